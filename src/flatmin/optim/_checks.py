"""What the constructor refuses, and what it says instead."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from flatmin.core import Group, Method, Replica, Scope, World
from flatmin.core._checks import radius
from flatmin.core._scope import replicas
from flatmin.core._shards import is_dtensor
from flatmin.optim._objective import calling_scaler

_in_use: WeakSet[Optimizer] = WeakSet()


def claim(*optimizers: Optimizer) -> None:
    """Note that these belong to a SAM: no other may wrap them."""
    _in_use.update(optimizers)


def check_base(base: object) -> None:
    """A built optimizer that can step without a closure.

    Raises:
        TypeError: it is something else.
        ValueError: it needs a closure, or belongs to a SAM already.
    """
    if isinstance(base, type):
        raise TypeError(
            f"base must be a built optimizer, got the class {base.__name__}. "
            f"Build it first: {base.__name__}(model.parameters(), lr=...)."
        )
    if not isinstance(base, Optimizer):
        raise TypeError(
            f"base must be a torch.optim.Optimizer, got {type(base).__name__}."
        )
    if base in _in_use:
        raise ValueError("base already belongs to a SAM. Build a new base optimizer.")
    closure = inspect.signature(base.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"base {type(base).__name__} calls its closure itself, SAM gives it "
            "gradients. Use an optimizer whose step() needs no closure."
        )


def check_model(model: object) -> None:
    """A module with parameters.

    Raises:
        TypeError: it is no module.
        ValueError: it has no parameters.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}. Write "
            "SAM(base, model)."
        )
    if next(model.parameters(), None) is None:
        raise ValueError(
            f"model {type(model).__name__} has no parameters: nothing to perturb."
        )


def check_scope(scope: Scope | None, model: nn.Module) -> Scope:
    """The scope that was asked for, or the one that fits the model.

    Raises:
        ValueError: the scope and the way the model is distributed exclude each other,
            or its parts are averaged over different processes.
    """
    sharded = any(is_dtensor(p) for p in model.parameters())
    replicated = replicas(model)
    _check_same_processes(replicated)
    if scope is None:
        scope = World() if sharded else Replica()
    name = type(scope).__name__
    if sharded and isinstance(scope, Replica | Group):
        raise ValueError(
            f"scope {name} needs whole parameters, but the model's are sharded "
            "(DTensor): one shard cannot hold the perturbations of several processes. "
            "Use scope=flatmin.core.World(), the default for sharded models."
        )
    if isinstance(scope, World | Group) and not (replicated or sharded):
        raise ValueError(
            f"scope {name} needs a model in DistributedDataParallel or with sharded "
            f"parameters, got {type(model).__name__}. Give SAM the wrapped model."
        )
    static = any(replica.static_graph for replica in replicated)
    if static and not isinstance(scope, World):
        raise ValueError(
            "model is in DistributedDataParallel with static_graph=True, whose first "
            f"backward pass has to be averaged; that of scope {name} is not. Use "
            "scope=flatmin.core.World(), or static_graph=False."
        )
    return scope


def _check_same_processes(replicated: Sequence[Any]) -> None:
    groups = [replica.process_group for replica in replicated]
    if len({tuple(dist.get_process_group_ranks(group)) for group in groups}) > 1:
        raise ValueError(
            "model holds several DistributedDataParallel modules that are averaged "
            "over different processes, so there is no one set of replicas to share a "
            "perturbation. Wrap them with the same process group."
        )


def check_parameters(base: Optimizer, model: nn.Module) -> None:
    """Base and model belong together.

    Raises:
        ValueError: they do not.
    """
    mine = {id(p) for p in model.parameters()}
    ours = [p for group in base.param_groups for p in group["params"]]
    if not any(id(p) in mine for p in ours):
        raise ValueError(
            "base and model have no parameter in common. Build the base from this "
            "model's parameters, after the model has reached its device."
        )


def check_group(group: dict[str, Any]) -> None:
    """A possible radius.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not finite.
    """
    radius(group["sam_rho"], "sam_rho")


def check_decay(groups: list[dict[str, Any]]) -> None:
    """Weight decay that is a part of the gradient.

    Raises:
        ValueError: it is decoupled.
    """
    if any(group.get("decoupled_weight_decay") for group in groups):
        raise ValueError(
            "decay_in_ascent=True needs a base that adds weight decay to the gradient, "
            "but this one decays the weights themselves. Use SGD or Adam, or "
            "decay_in_ascent=False."
        )


def check_accumulation(method: Method, model: nn.Module) -> None:
    """What loops over micro-batches find may be added up.

    Raises:
        RuntimeError: it may not.
    """
    if not all(part.require_backward_grad_sync for part in replicas(model)):
        raise RuntimeError(
            "probes(accumulate=True) inside of no_sync() would leave what it "
            "accumulates without its average over the replicas. Call it outside."
        )
    if not getattr(method, "adds_up", True):
        raise RuntimeError(
            "what this method descends holds its running mean, which would be counted "
            "once per micro-batch. Put the micro-batches into the body of one "
            "probes() loop."
        )


def check_scaling(method: Method, closure: object, unscaled: bool) -> None:
    """A GradScaler that calls ``step`` knows the gradients, and the method its scale.

    Raises:
        RuntimeError: one of them does not.
    """
    unaware = getattr(method, "needs_unscaled", False) and not unscaled
    if not (closure is not None or unaware) or calling_scaler() is None:
        return
    if closure is not None:
        raise RuntimeError(
            "GradScaler.step(optimizer, closure) looks for overflows before the "
            "closure makes the gradients that count. Write: for probe in "
            "optimizer.probes(): closure(). Then scaler.step(optimizer)."
        )
    raise RuntimeError(
        "this method needs gradients without the loss scale. Write "
        "optimizer.probes(scaler=scaler)."
    )
