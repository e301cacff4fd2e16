"""Checks of the base optimizer: which ones SAM can step with."""

from __future__ import annotations

import inspect
import warnings
from weakref import WeakSet

from torch import nn
from torch.optim import Optimizer

from flatmin.core import Method
from flatmin.core._fsdp import reshard
from flatmin.core._shards import PLAIN
from flatmin.optim._states import States, held_by

_in_use: WeakSet[Optimizer] = WeakSet()


def claim(*optimizers: Optimizer) -> None:
    """Note that these belong to a SAM: no other may wrap them."""
    _in_use.update(optimizers)


def claimed(optimizer: Optimizer) -> bool:
    """Whether the optimizer is a SAM or belongs to one."""
    return optimizer in _in_use


def check_base(base: object) -> None:
    """Accept only a built optimizer that needs no closure and steps along ``.grad``.

    Raises:
        TypeError: the base is no optimizer.
        ValueError: it needs a closure, takes its gradients from elsewhere, or belongs
            to a SAM already.
    """
    if not isinstance(base, Optimizer):
        raise TypeError(
            f"base must be a torch.optim.Optimizer, got {type(base).__name__}."
        )
    if any(one in _in_use for one in (base, *held_by(base))):
        raise ValueError("base already belongs to a SAM. Build a new base optimizer.")
    closure = inspect.signature(base.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"base {type(base).__name__} calls its closure itself, SAM gives it "
            "gradients. Use an optimizer whose step() needs no closure."
        )
    _check_gradients(base)


def _check_gradients(base: Optimizer) -> None:
    """Refuse a base that computes its gradients from those of single examples."""
    for one in (base, *held_by(base)):
        if hasattr(type(one), "grad_samples"):
            raise ValueError(
                f"base {type(one).__name__} steps along the gradients of single "
                "examples (.grad_sample) and would not look at what SAM writes into "
                ".grad: it would train without SAM. Use the optimizer within it, or "
                "train without SAM."
            )


def check_saved(base: Optimizer, states: States, method: Method) -> None:
    """Refuse a base whose state dict would lack what the method remembers.

    Raises:
        ValueError: the memory would be lost when the base is saved.
    """
    ps = [p for group in base.param_groups for p in group["params"]]
    remembered = method.traits.remembers
    if remembered and not states.saves(ps):
        raise ValueError(
            f"base {type(base).__name__} does not save what is in its state, where "
            f"this method keeps {', '.join(remembered)}: a resumed run would "
            "forget it. Use the optimizer within it as the base."
        )


def check_parameters(base: Optimizer, model: nn.Module) -> None:
    """Refuse a base without parameters of the model; warn if some are not the model's.

    Raises:
        ValueError: they have no parameter in common, or the base has weights that FSDP2
            gathered for a forward pass and has let go of.
    """
    # Whole weights would stand in the place of the parameters that the base has.
    reshard(model)
    mine = {id(p) for p in model.parameters()}
    ours = [p for group in base.param_groups for p in group["params"]]
    outside = [p for p in ours if id(p) not in mine]
    plain = [p for p in outside if type(p) in PLAIN and p.numel()]
    if not all(p.untyped_storage().nbytes() for p in plain):
        raise ValueError(
            "base was built after a forward pass of FSDP2, from weights that were "
            "whole for that pass alone: it cannot train them. Build the base right "
            "after fully_shard, or call model.reshard() before."
        )
    if len(outside) == len(ours):
        raise ValueError(
            "base and model have no parameter in common. Build the base from this "
            "model's parameters, after the model has reached its device and after "
            "fully_shard."
        )
    if outside:
        shapes = ", ".join(str(tuple(p.shape)) for p in outside[:3])
        warnings.warn(
            f"base trains {len(outside)} parameters that are not in model (of shapes "
            f"{shapes}{', ...' if len(outside) > 3 else ''}). They move with the "
            "others, but buffers beside them (BatchNorm) are updated in every pass, "
            "and methods that go by a parameter's name or layer do not know them. "
            "Give SAM all modules: SAM(base, torch.nn.ModuleList([model, other])).",
            UserWarning,
            stacklevel=4,
        )
