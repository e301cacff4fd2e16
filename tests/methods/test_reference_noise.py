"""Random perturbation of half of each batch against its formula, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from flatmin import SAM
from flatmin.core import Step, sources
from flatmin.core.noise import SplitNoise
from flatmin.methods import split_rwp
from tests.methods.against import ONE, STEPS, TWO, Pair, batch_of, pair_of
from tests.reference import noise

GROUPS = pytest.mark.parametrize("groups", [ONE, TWO], ids=["one", "two"])
KINDS = pytest.mark.parametrize("kind", ["sgd", "adamw"])


def part_loss(pair: Pair, step: int, part: slice) -> noise.Loss:
    x, y = batch_of(step)

    def loss(w: list[Tensor]) -> Tensor:
        named = dict(zip(pair.names, w, strict=True))
        return F.cross_entropy(functional_call(pair.net, named, (x[part],)), y[part])

    return loss


def draws(step: int, t: Tensor, i: int) -> Tensor:
    """What `random_sam` draws too: a generator for each step and tensor."""
    draw = torch.Generator().manual_seed(step * 1_000_003 + i)
    return torch.randn(t.shape, generator=draw).to(t.dtype)


@GROUPS
@KINDS
@pytest.mark.parametrize(("rho", "mix"), [(0.1, 0.5), (0.5, 0.2), (0.3, 0.0)])
def test_split_rwp_equals_its_formula(
    groups: Any, kind: str, rho: float, mix: float
) -> None:
    pair = pair_of(kind, groups, rho)
    # Fewer than are made, so that the end of the schedule is passed.
    steps = STEPS - 5
    optimizer = split_rwp(pair.base, pair.net, steps=steps, rho=rho, mix=mix)
    for k in range(STEPS):
        for probe in optimizer.probes():
            x, y = probe.take(*batch_of(k))
            F.cross_entropy(pair.net(x), y).backward()
        optimizer.step()
    half = round(len(batch_of(0)[0]) / 2)
    first, second = (
        [part_loss(pair, k, part) for k in range(STEPS)]
        for part in (slice(0, half), slice(half, None))
    )
    w = noise.split_rwp(
        list(zip(first, second, strict=True)), pair.losses, pair.start,
        pair.reference, pair.rhos, steps=steps, mix=mix, draw=draws,
    )  # fmt: skip
    pair.check(w, {})


def sgd_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_the_noise_of_a_filter_is_as_long_as_it_on_average() -> None:
    """``E ||eps_i||^2 = rho^2 n ||w_i||^2`` for a filter of n entries."""
    model = nn.Conv2d(3, 40, 5, bias=False).double()
    with torch.no_grad():
        model.weight.mul_(torch.arange(40).view(-1, 1, 1, 1))
    optimizer = SAM(sgd_of(model), model, rho=0.2, method=SplitNoise())
    w = model.weight.detach().clone()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    eps = torch.zeros_like(w)
    for probe in optimizer.probes():
        eps = model.weight.detach() - w
        part = probe.take(x)
        model(part).square().mean().backward()
    found = eps.square().sum(dim=(1, 2, 3)) / (w.square().sum(dim=(1, 2, 3)) + 1e-300)
    assert found[0] == 0
    assert float(found[1:].mean()) == pytest.approx(0.2**2 * 75, rel=0.1)
    assert float(found[1:].min()) > 0.5 * 0.2**2 * 75


def test_both_passes_cost_one_gradient_and_see_each_example_once() -> None:
    model = nn.Linear(2, 1).double()
    optimizer = split_rwp(sgd_of(model), model, steps=4)
    x, seen = torch.arange(14.0, dtype=torch.float64).view(7, 2), []
    for _ in range(3):
        rows: list[Tensor] = []
        for probe in optimizer.probes():
            part: Any = probe.take(x)
            rows.append(part)
            model(part).mean().backward()
        optimizer.step()
        seen.append(rows)
    # In the first step there is no noise yet.
    assert [len(rows) for rows in seen] == [1, 2, 2]
    assert all(torch.equal(torch.cat(rows), x) for rows in seen)


def test_a_batch_of_one_cannot_be_split() -> None:
    model = nn.Linear(2, 1)
    optimizer = SAM(sgd_of(model), model, rho=0.1, method=SplitNoise())
    with pytest.raises(ValueError, match="1 example leaves nothing for the second"):
        halved(optimizer, model, torch.ones(1, 2))


def halved(optimizer: SAM, model: nn.Module, x: Tensor) -> None:
    for probe in optimizer.probes():
        model(probe.take(x)).mean().backward()


def test_the_draws_are_those_of_the_source() -> None:
    w = torch.ones(3, 4, dtype=torch.float64)
    step = Step(7, nn.Module(), [w], [{"sam_rho": 1.0}], group_of=[0])
    (drawn,) = sources.normal(step)
    assert drawn is not None
    assert torch.equal(drawn, draws(7, w, 0))


def test_weights_that_are_not_finite_are_not_perturbed() -> None:
    first, last = nn.Linear(3, 4), nn.Linear(4, 2)
    model = nn.Sequential(first, last)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = split_rwp(base, model, steps=2, rho=0.5)
    optimizer.param_groups[0]["sam_step"] = 1
    with torch.no_grad():
        first.weight[0, 0] = torch.inf
    before = [p.detach().clone() for p in model.parameters()]
    for probe in optimizer.probes():
        assert all(map(torch.equal, model.parameters(), before))
        probe.take(torch.ones(4, 3))
        last(torch.ones(2, 4)).sum().backward()
    assert optimizer.unperturbed_steps == 1
