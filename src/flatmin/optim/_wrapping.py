"""Checks of how a model is spread over processes, before results can be wrong."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flatmin.core._scope import replicas
from flatmin.core._shards import fsdp_class
from flatmin.optim._watch import watching

#: The class of FSDP1.
_FSDP1 = "FullyShardedDataParallel"

#: The attributes by which libraries that shard into plain tensors mark a parameter.
_SHARDED = {"ds_id": "DeepSpeed ZeRO-3", "_is_flat_param": _FSDP1}


def check_shards(model: nn.Module) -> None:
    """Refuse parameters that are shards in plain tensors, without knowing the whole.

    Raises:
        ValueError: FSDP1 or another library holds shards in plain tensors, so that the
            norm of each process would be that of its own part.
    """
    fsdp = fsdp_class(_FSDP1)
    found = fsdp is not None and any(isinstance(m, fsdp) for m in model.modules())
    name = _FSDP1 if found else None
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


@contextmanager
def seen_wrapped(model: nn.Module) -> Generator[None]:
    """Within a loop, refuse a wrapper around the model that SAM was not given.

    Raises:
        RuntimeError: the model runs inside of DistributedDataParallel, or of FSDP1.
    """
    if not _in_processes() or replicas(model):
        yield
        return
    ours = {id(p) for p in model.parameters()}
    with watching(partial(_check_wrapper, ours)):
        yield


def _check_wrapper(ours: set[int], module: nn.Module) -> None:
    # Hooks do not see what a compiled module calls inside.
    held = module.modules() if hasattr(module, "_orig_mod") else [module]
    kinds = tuple(
        k for k in (DistributedDataParallel, fsdp_class(_FSDP1)) if k is not None
    )
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
