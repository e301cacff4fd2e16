"""Refusals of a base or a model on which a method would perturb nothing."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from flatmin.core import filters
from flatmin.core._adapted import adapted
from flatmin.optim._bases import check_base
from flatmin.optim._checks import check_model


def check_norms(base: Optimizer, model: nn.Module) -> None:
    """Refuse a base that trains no parameter of a normalisation layer.

    Raises:
        ValueError: it trains none.
    """
    ours = _trained(base, model)
    inside = filters.parameters_within(model, filters.NORMS)
    if any(id(p) in ours for p in inside):
        return
    found = {type(m).__name__ for m in model.modules() if isinstance(m, filters.NORMS)}
    there = f"those of its {', '.join(sorted(found))}" if found else "it has no such"
    raise ValueError(
        "sam_on moves the weights of normalisation layers, and the base trains none "
        f"of model {type(model).__name__}: {there} layers"
        f"{' have no weights, are frozen or not in the base' if found else ''}. "
        "Use flatmin.SAM(base, model)."
    )


def check_weights(base: Optimizer, model: nn.Module) -> None:
    """Refuse a base that trains no parameter with "weight" in its name.

    Raises:
        ValueError: none has it.
    """
    ours = _trained(base, model)
    names = [name for name, p in model.named_parameters() if id(p) in ours]
    if names and not any("weight" in name for name in names):
        raise ValueError(
            'asam scales parameters with "weight" in their name, as its authors\' code '
            f"does, and there is none among {', '.join(names[:4])}"
            f"{', ...' if len(names) > 4 else ''}: it would be SAM with a radius ten "
            "times too large. Rename the parameters, or use flatmin.SAM(base, model)."
        )


def check_momentum(base: Optimizer) -> None:
    """Refuse a base without momentum, as far as its groups tell.

    Raises:
        ValueError: all its groups have ``momentum`` 0, and no ``betas``.
    """
    check_base(base)
    groups = base.param_groups
    if all(g.get("momentum") == 0 and "betas" not in g for g in groups):
        name = type(base).__name__
        raise ValueError(
            f"momentum_sam climbs along the momentum of the base, and {name} has "
            f"momentum=0: no step would climb. Write {name}(..., momentum=0.9)."
        )


def check_adapters(base: Optimizer, model: nn.Module) -> None:
    """Refuse a model without LoRA layers that the base trains and we can perturb.

    Raises:
        ValueError: it has no LoRA layer, or one that cannot be perturbed.
    """
    adapted(model, _parameters(base, model))


def _trained(base: Optimizer, model: nn.Module) -> set[int]:
    return {id(p) for p in _parameters(base, model)}


def _parameters(base: Optimizer, model: nn.Module) -> list[nn.Parameter]:
    check_base(base)
    check_model(model)
    groups = base.param_groups
    return [p for group in groups for p in group["params"] if p.requires_grad]
