"""Checks of how a model is spread over processes, before results can be wrong."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakSet

import torch.distributed as dist
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel

from flatmin.core._fsdp import fsdp_class
from flatmin.core._scope import replicas
from flatmin.optim._watch import watching

#: The class of FSDP1.
_FSDP1 = "FullyShardedDataParallel"

#: Wrappers that were built since the first SAM, and the hook that notes them.
_built: WeakSet[nn.Module] = WeakSet()
_hooked: list[object] = []

#: The attributes by which libraries that shard into plain tensors mark a parameter.
_SHARDED = {"ds_id": "DeepSpeed ZeRO-3", "_is_flat_param": _FSDP1}


def check_shards(model: nn.Module) -> None:
    """Refuse parameters that are shards in plain tensors, without knowing the whole.

    Raises:
        ValueError: FSDP1 or another library holds shards in plain tensors, so that the
            norm of each process would be that of its own part.
    """
    note_wrappers()
    fsdp = fsdp_class(_FSDP1)
    found = fsdp is not None and any(isinstance(m, fsdp) for m in model.modules())
    name = _FSDP1 if found else None
    check_replicated(model)
    for p in model.parameters():
        name = name or next(
            (_SHARDED[key] for key in _SHARDED if hasattr(p, key)), None
        )
    if name is not None:
        raise ValueError(
            f"model is sharded by {name} into plain tensors: each process would climb "
            "in a ball of its own part of the weights. Shard it with "
            "torch.distributed.fsdp.fully_shard (FSDP2): its parameters know the whole."
        )


def check_replicated(model: nn.Module) -> None:
    """Refuse a module that averages without being a DistributedDataParallel module.

    Raises:
        ValueError: a part of the model was given to torch's `replicate`.
    """
    kind = _loaded("torch.distributed._composable.replicate", "DDP")
    if kind is not None and any(isinstance(m, kind) for m in model.modules()):
        raise ValueError(
            "model was given to torch.distributed._composable.replicate, whose "
            "averaging SAM cannot suspend. Wrap it in "
            "torch.nn.parallel.DistributedDataParallel instead."
        )


def check_pipeline(model: nn.Module) -> None:
    """Refuse a model that is one stage of a pipeline.

    A stage is no module and no parent of one, so it is looked for among all objects
    that hold a part of the model.

    Raises:
        RuntimeError: there is such a stage: the norm would be that of its own part.
    """
    kind = _loaded("torch.distributed.pipelining.stage", "_PipelineStageBase")
    if kind is None:
        return
    holders: list[Any] = gc.get_referrers(*model.modules())
    # Before Python 3.13, the holder may be the dict of the stage.
    stages = [*holders, *gc.get_referrers(*(h for h in holders if type(h) is dict))]
    if any(isinstance(stage, kind) and stage.num_stages > 1 for stage in stages):
        raise RuntimeError(
            "the model is a stage of a pipeline (torch.distributed.pipelining): each "
            "process would climb in a ball of its own stage. SAM supports "
            "DistributedDataParallel, FSDP2 and tensor parallelism."
        )


def _loaded(module: str, name: str) -> Any:
    """Return a class of a module; None if nothing has loaded the module."""
    return getattr(sys.modules.get(module), name, None)


@contextmanager
def seen_wrapped(model: nn.Module) -> Generator[None]:
    """Within a pass, refuse a wrapper around the model that SAM was not given.

    Raises:
        RuntimeError: the model runs inside of DistributedDataParallel, or of FSDP1, or
            is a stage of a pipeline.
        ValueError: as `check_replicated`.
    """
    if not _in_processes() or replicas(model):
        yield
        return
    check_replicated(model)
    check_pipeline(model)
    ours = {id(p) for p in model.parameters()}
    with watching(partial(_check_wrapper, ours)):
        yield


def note_wrappers() -> None:
    """From now on, note every wrapper that is built."""
    if not _hooked:
        _hooked.append(register_module_module_registration_hook(_note))


def has_wrapper(model: nn.Module) -> bool:
    """Whether a wrapper that was noted, and SAM was not given, holds the model."""
    if not _built or not _in_processes() or replicas(model):
        return False
    ours = {id(p) for p in model.parameters()}
    return any(_holds(wrapper, ours) for wrapper in _built)


def _note(module: nn.Module, name: str, inside: object) -> None:
    del name, inside
    if isinstance(module, _kinds()):
        _built.add(module)


def _kinds() -> tuple[type[nn.Module], ...]:
    """The classes of wrappers, as far as they are loaded."""
    fsdp = fsdp_class(_FSDP1)
    return (
        (DistributedDataParallel,) if fsdp is None else (DistributedDataParallel, fsdp)
    )


def _check_wrapper(ours: set[int], module: nn.Module) -> None:
    # Hooks do not see what a compiled module calls inside.
    held = module.modules() if hasattr(module, "_orig_mod") else [module]
    kinds = _kinds()
    for wrapper in held:
        if isinstance(wrapper, kinds) and _holds(wrapper, ours):
            raise RuntimeError(
                "the model that SAM was given runs inside of "
                f"{type(wrapper).__name__}, which SAM was not given: what it averages, "
                "and who shares a perturbation, would be wrong. Write "
                "optimizer.attach(wrapped_model) after wrapping, or build SAM with the "
                "wrapped model."
            )


def _holds(wrapper: nn.Module, ours: set[int]) -> bool:
    return any(id(p) in ours for p in wrapper.parameters())


def _in_processes() -> bool:
    ready = dist.is_available() and dist.is_initialized()
    return ready and dist.get_world_size() > 1
