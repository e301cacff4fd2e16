"""A stretched base against its formula, written out, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM
from flatmin.core import Ask, Method, Program, Step, TwoPoint, radii
from flatmin.core.nested import Lookbehind
from flatmin.core.stretch import Stretched
from flatmin.methods import ire
from tests.methods.against import ONE, TWO, batch_of, pair_of
from tests.reference import stretch

GROUPS = pytest.mark.parametrize("groups", [ONE, TWO], ids=["one", "two"])
KINDS = pytest.mark.parametrize("kind", ["sgd", "adamw"])


@GROUPS
@KINDS
@pytest.mark.parametrize(
    ("rho", "sharp", "every", "start"), [(0.5, 0.1, 3, 0), (1.0, 0.4, 10, 7)]
)
def test_ire_equals_its_formula(
    groups: Any, kind: str, rho: float, sharp: float, every: int, start: int
) -> None:
    pair = pair_of(kind, groups, rho)
    pair.train(ire(pair.base, pair.net, rho=rho, sharp=sharp, every=every, start=start))
    w = stretch.ire(
        pair.losses, pair.start, pair.reference, pair.rhos,
        sharp=sharp, every=every, start=start,
    )  # fmt: skip
    pair.check(w, {})


@KINDS
def test_around_sam_it_stretches_the_step_along_sams_gradient(kind: str) -> None:
    pair = pair_of(kind, ONE, 0.1)
    kappa = radii.scheduled(lambda step: 5.0 + step)  # times rho
    method = Stretched(0.2, 4, inner=TwoPoint(), kappa=kappa)
    optimizer = SAM(pair.base, pair.net, rho=0.1, method=method)
    pair.train(optimizer)
    w, flat = pair.start, list[Tensor]()
    for t, loss in enumerate(pair.losses):
        g = stretch.gradients(loss, w)
        length = torch.cat([x.flatten() for x in g]).norm()
        there = [x + 0.1 * v / length for x, v in zip(w, g, strict=True)]
        v = stretch.gradients(loss, there)
        old, w = w, pair.reference(w, v)
        flat = stretch.flat_entries(v, 0.2) if t % 4 == 0 else flat
        pairs = zip(old, w, flat, strict=True)
        kappa = 0.1 * (5.0 + t)
        w = [x + (1 + kappa * p) * (y - x) for x, y, p in pairs]
    pair.check(w, {})


def test_a_step_takes_one_gradient() -> None:
    pair = pair_of("sgd", ONE)
    optimizer = ire(pair.base, pair.net, rho=1.0)
    for step in range(12):
        passes = 0
        for _ in optimizer.probes():
            x, y = batch_of(step)
            F.cross_entropy(pair.net(x), y).backward()
            passes += 1
        optimizer.step()
        assert passes == 1


def test_a_layer_without_a_gradient_when_ranked_is_stretched_when_it_has_one() -> None:
    used, late = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
    model = nn.ModuleList([used, late])
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = ire(base, model, rho=1.0, sharp=0.5, every=10)
    x = torch.ones(3, 2, dtype=torch.float64)
    before = late.weight.detach().clone()
    for step in range(2):
        before = late.weight.detach().clone()
        for _ in optimizer.probes():
            out = used(x) + (late(x) if step else 0)
            out.square().mean().backward()
        optimizer.step()
    assert late.weight.grad is not None
    expected = before - 2 * 0.1 * late.weight.grad
    torch.testing.assert_close(late.weight.detach(), expected, rtol=1e-12, atol=0)


def test_micro_batches_are_refused() -> None:
    model = nn.Linear(2, 1)
    optimizer = ire(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with pytest.raises(RuntimeError, match="micro-batches into the body of one"):
        next(iter(optimizer.probes(accumulate=True)))


def test_a_method_that_moves_the_weights_itself_cannot_be_inside() -> None:
    model = nn.Linear(2, 1)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    method = Stretched(0.1, 1, inner=Lookbehind(1, 0.5))
    optimizer = SAM(base, model, rho=0.1, method=method)
    with pytest.raises(ValueError, match="Lookbehind changes the base's step itself"):
        trained_once(optimizer, model)


def trained_once(optimizer: SAM, model: nn.Module) -> None:
    for _ in optimizer.probes():
        model(torch.ones(4, 2)).square().sum().backward()
    optimizer.step()


def test_without_stretch_narrow_weights_are_those_of_the_base() -> None:
    models = [nn.Linear(100, 100).bfloat16() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    bases = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    none = Stretched(0.1, 1, kappa=lambda step: [0.0] * len(step.groups))
    optimizer = SAM(bases[0], models[0], rho=0.1, method=none)
    x = torch.randn(8, 100).bfloat16()
    for _ in optimizer.probes():
        models[0](x).square().mean().backward()
    optimizer.step()
    models[1](x).square().mean().backward()
    bases[1].step()
    assert torch.equal(models[0].weight, models[1].weight)


class HalfWay(Method):
    """The base's step, half of which is taken back."""

    __slots__ = ()

    def __call__(self, step: Step) -> Program:
        g = yield Ask()
        anchor: list[Tensor | None] = [w.detach().clone() for w in step.w]
        step.memory.pull(anchor, [0.5] * len(step.w))
        return g


def test_a_step_is_pulled_back_once_however_many_its_micro_batches() -> None:
    model = nn.Linear(2, 1, bias=False).double()
    before = model.weight.detach().clone()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=0.1, method=HalfWay())
    for _ in range(3):
        for _ in optimizer.probes(accumulate=True):
            model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    optimizer.step()
    expected = before - 0.5 * 0.1 * 3
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 1), "sharp must be in (0, 1), got 0.0; the authors' is 0.1"),
        ((1.0, 1), "sharp must be in (0, 1)"),
        ((0.1, 0), "every must be at least 1"),
        ((0.1, 1, -1), "start must be at least 0"),
    ],
)
def test_what_stretches_nothing_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Stretched(*values)
