"""The constructor's checks; their messages say what to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from flatmin.core import Group, Method, Replica, Scope, World
from flatmin.core._checks import radius
from flatmin.core._scope import replicas
from flatmin.core._shards import any_sharded
from flatmin.optim._wrapping import check_shards


def check_model(model: object) -> None:
    """Refuse anything but a module with parameters.

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


def check_method(method: object) -> None:
    """Refuse anything but a `Method`, which declares what it remembers.

    Raises:
        TypeError: it is something else, such as a function.
    """
    if not isinstance(method, Method):
        raise TypeError(
            f"method must be a flatmin.core.Method, got {method!r}, which cannot say "
            "what it needs and remembers. Write a class Mine(flatmin.core.Method) "
            "whose __call__(self, step) is the program, and give SAM method=Mine()."
        )


#: Scopes by the names that `flatmin.SAM` takes.
_SCOPES: dict[str, type[Scope]] = {"replica": Replica, "world": World}


def check_scope(scope: Scope | str | None, model: nn.Module) -> Scope:
    """Return the scope that was asked for, or the default for the model.

    Raises:
        TypeError: it is neither a scope nor the name of one.
        ValueError: the scope and the way the model is distributed exclude each other,
            or parts of the model are averaged over different processes.
    """
    check_shards(model)
    sharded = any_sharded([*model.parameters()])
    replicated = replicas(model)
    _check_same_processes(replicated)
    if scope is None:
        scope = World() if sharded else Replica()
    scope = _named(scope)
    name = type(scope).__name__
    if sharded and isinstance(scope, Replica | Group):
        raise ValueError(
            f"scope {name} needs whole parameters, but the model's are sharded "
            "(DTensor): one shard cannot hold the perturbations of several processes. "
            "Use scope='world', the default for sharded models."
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
            "scope='world', or static_graph=False."
        )
    return scope


def _named(scope: Scope | str) -> Scope:
    """The scope itself, or the one of this name."""
    if isinstance(scope, str) and scope in _SCOPES:
        return _SCOPES[scope]()
    if isinstance(scope, str | type) or not hasattr(scope, "alone"):
        raise TypeError(
            f"scope is 'replica', 'world', or flatmin.core.Group(process_group), got "
            f"{scope!r}."
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


def check_group(group: dict[str, Any]) -> None:
    """Refuse a group with an impossible radius.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not finite.
    """
    radius(group["sam_rho"], "sam_rho")


def check_names(groups: list[dict[str, Any]], defaults: Mapping[str, Any]) -> None:
    """Refuse other libraries' name of the radius, which nothing would read.

    Args:
        groups: of the base.
        defaults: the names that the base itself has; Adadelta has a ``"rho"``.

    Raises:
        ValueError: a group has a ``"rho"`` and the base has none.
    """
    if "rho" not in defaults and any("rho" in group for group in groups):
        raise ValueError(
            'a group has "rho", which neither SAM nor this base reads. The radius of '
            'a group is "sam_rho". Write: for group in optimizer.param_groups: '
            'group["sam_rho"] = group.pop("rho").'
        )


#: What torch, pytorch_optimizer and timm call decoupled weight decay in a group.
_DECOUPLED = ("decoupled_weight_decay", "weight_decouple", "decoupled_decay")

#: Torch's optimizers that decouple weight decay without a word in their groups.
_ALWAYS_DECOUPLED = ("Adafactor", "Muon")


def check_decay(base: Optimizer) -> None:
    """Refuse weight decay that is not a part of the gradient.

    Raises:
        ValueError: the weight decay is decoupled.
    """
    said = any(group.get(name) for group in base.param_groups for name in _DECOUPLED)
    always = any(kind.__name__ in _ALWAYS_DECOUPLED for kind in type(base).__mro__)
    if said or (always and any(group["weight_decay"] for group in base.param_groups)):
        raise ValueError(
            "decay_in_ascent=True needs a base that adds weight decay to the gradient, "
            "but this one decays the weights themselves. Use SGD or Adam, or "
            "decay_in_ascent=False."
        )


def check_accumulation(method: Method, model: nn.Module) -> None:
    """Refuse an accumulating loop whose results may not be added up.

    Raises:
        RuntimeError: they may not, or the loop is inside of ``no_sync()``.
    """
    if not all(part.require_backward_grad_sync for part in replicas(model)):
        raise RuntimeError(
            "probes(accumulate=True) inside of no_sync() would leave what it "
            "accumulates without its average over the replicas. Call it outside."
        )
    if not method.traits.adds_up:
        raise RuntimeError(
            "what this method descends or remembers is that of a whole batch, and "
            "would be counted once per micro-batch. Put the micro-batches into the "
            "body of one probes() loop."
        )
