"""Methods refuse a base or a model on which they would never perturb."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, AdamW, Optimizer, RMSprop

import flatmin
from flatmin import SAM
from flatmin.core import TwoPoint, filters
from tests.problems import Quadratic, batch, loss_of, sam_steps

DATA = batch(torch.float64)


def normed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)).double()


def sgd(parameters: Iterable[Tensor]) -> SGD:
    return SGD(parameters, lr=0.1, momentum=0.9)


def test_sam_on_needs_normalisation_layers() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    said = r"trains none of model Sequential: it has no such layers.*Use flatmin\.SAM"
    with pytest.raises(ValueError, match=said):
        flatmin.sam_on(sgd(model.parameters()), model, rho=0.5)


def test_sam_on_needs_layers_with_weights() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False))
    with pytest.raises(ValueError, match="those of its BatchNorm1d layers have no"):
        flatmin.sam_on(sgd(model.parameters()), model, rho=0.5)


def test_sam_on_needs_layers_that_train() -> None:
    model = normed()
    for p in model[1].parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match=r"those of its LayerNorm layers .* frozen"):
        flatmin.sam_on(sgd(model.parameters()), model, rho=0.5)


def test_sam_on_needs_layers_that_are_in_the_base() -> None:
    model = normed()
    with pytest.raises(ValueError, match="not in the base"):
        flatmin.sam_on(sgd(model[0].parameters()), model, rho=0.5)


def test_a_base_that_was_refused_can_be_used_again() -> None:
    model = nn.Linear(6, 3)
    base = SGD(model.parameters(), lr=0.1)
    for build in (flatmin.sam_on, flatmin.momentum_sam):
        with pytest.raises(ValueError, match=r"flatmin\.SAM|momentum=0"):
            build(base, model, rho=0.5)
    SAM(base, model)


def test_asam_needs_a_parameter_to_scale() -> None:
    model = Quadratic()
    with pytest.raises(ValueError, match="there is none among w: it would be SAM with"):
        flatmin.asam(sgd(model.parameters()), model)


def test_asam_does_not_count_a_weight_that_the_base_does_not_train() -> None:
    model = normed()
    biases = [p for name, p in model.named_parameters() if "weight" not in name]
    with pytest.raises(ValueError, match=r"none among 0\.bias, 1\.bias, 2\.bias: it"):
        flatmin.asam(sgd(biases), model)


class Many(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d, self.e = (
            nn.Parameter(torch.zeros(1)) for _ in range(5)
        )


def test_asam_names_some_parameters_of_many() -> None:
    model = Many()
    with pytest.raises(ValueError, match=r"among a, b, c, d, \.\.\.: it would"):
        flatmin.asam(sgd(model.parameters()), model)


@pytest.mark.parametrize(
    "base",
    [lambda ps: SGD(ps, lr=0.1), lambda ps: RMSprop(ps, lr=0.1)],
    ids=["SGD", "RMSprop"],
)
def test_momentum_sam_needs_momentum(base: Callable[..., Optimizer]) -> None:
    model = normed()
    said = r"has momentum=0: no step would climb\. Write \w+\(\.\.\., momentum=0\.9\)"
    with pytest.raises(ValueError, match=said):
        flatmin.momentum_sam(base(model.parameters()), model)


def test_a_group_with_momentum_is_enough() -> None:
    model = normed()
    groups = [
        {"params": model[0].parameters(), "momentum": 0.0},
        {"params": model[2].parameters()},
    ]
    optimizer = flatmin.momentum_sam(sgd(groups), model)  # pyright: ignore[reportArgumentType]
    assert climbs(optimizer, model) == [False, True]


class Around(Optimizer):
    """An optimizer that leaves momentum to another, as Lookahead does."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, dict(inner.defaults))
        self.inner = inner

    def step(self, closure: Any = None) -> Any:
        del closure
        self.inner.step()


def climbs(optimizer: SAM, model: nn.Module) -> list[bool]:
    """Whether the weights of the last layer move, in the first two steps."""
    moved: list[bool] = []
    for _ in range(2):
        w = [p.detach().clone() for p in model.parameters()]
        for probe in optimizer.probes():
            pairs = zip(model.parameters(), w, strict=True)
            moved.append(any(not torch.equal(p, q) for p, q in pairs))
            loss_of(model, DATA).backward()
            del probe
        optimizer.step()
    return moved


@pytest.mark.parametrize(
    "base",
    [
        sgd,
        lambda ps: AdamW(ps, lr=0.1),
        lambda ps: RMSprop(ps, lr=0.1, momentum=0.5),
        lambda ps: Around(sgd(ps)),
    ],
    ids=["SGD", "AdamW", "RMSprop", "an inner SGD"],
)
def test_with_momentum_the_second_step_climbs(base: Callable[..., Any]) -> None:
    model = normed()
    optimizer = flatmin.momentum_sam(base(model.parameters()), model, rho=0.1)
    assert climbs(optimizer, model) == [False, True]


@pytest.mark.parametrize(
    "base",
    [
        lambda ps: Adagrad(ps, lr=0.1),
        lambda ps: Adadelta(ps, lr=0.1),
    ],
    ids=["Adagrad", "Adadelta"],
)
def test_a_state_without_momentum_is_refused_in_the_second_step(
    base: Callable[..., Any],
) -> None:
    model = normed()
    optimizer = flatmin.momentum_sam(base(model.parameters()), model)
    sam_steps(optimizer, model, DATA, 1)
    w = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="neither momentum_buffer nor exp_avg"):
        sam_steps(optimizer, model, DATA, 1)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), w, strict=True))


def test_a_radius_of_zero_needs_no_momentum_yet() -> None:
    model = normed()
    base = Adagrad(model.parameters(), lr=0.1)
    optimizer = flatmin.momentum_sam(base, model, rho=0.0)
    sam_steps(optimizer, model, DATA, 2)


@pytest.mark.parametrize(
    "keep",
    [filters.named(lambda name: "wieght" in name), filters.within(nn.GroupNorm)],
    ids=["named", "within"],
)
def test_a_filter_that_matches_nothing_names_what_there_is(keep: Any) -> None:
    model = normed()
    optimizer = SAM(sgd(model.parameters()), model, method=TwoPoint(filter=keep))
    said = r"matches no parameter .* has 0\.weight, 0\.bias, 1\.weight, 1\.bias, \.\.\."
    with pytest.raises(ValueError, match=said):
        sam_steps(optimizer, model, DATA, 1)


def test_a_filter_that_matches_nothing_names_all_of_a_few() -> None:
    model = nn.Linear(6, 3).double()
    method = TwoPoint(filter=filters.named(lambda name: name == "head"))
    optimizer = SAM(sgd(model.parameters()), model, method=method)
    with pytest.raises(ValueError, match=r"The model has weight, bias\."):
        sam_steps(optimizer, model, DATA, 1)


def test_a_filter_is_given_functions_and_types() -> None:
    with pytest.raises(TypeError, match=r"got 'norm'\. Write .*'norm' in name"):
        filters.named("norm")  # pyright: ignore[reportArgumentType]
    for kinds in ((), (nn.LayerNorm(3),), ("LayerNorm",)):
        with pytest.raises(TypeError, match="needs types of modules, got"):
            filters.within(*kinds)  # pyright: ignore[reportArgumentType]
