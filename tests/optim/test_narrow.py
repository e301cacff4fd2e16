"""Weights of two bytes: what of the perturbation arrives."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM, bsam, friendly_sam, vasso

N = 20_000


class Plane(nn.Module):
    """A loss with the same gradient everywhere."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(1)
        w = torch.randn(N, generator=draw) * 0.03
        self.slope = torch.randn(N, generator=draw).to(dtype)
        self.w = nn.Parameter(w.to(dtype))

    def forward(self) -> Tensor:
        return (self.w.double() * self.slope.double()).sum()


def displacements(dtype: torch.dtype, rho: float, steps: int) -> tuple[Tensor, Tensor]:
    """What moved in each step, and what should have."""
    model = Plane(dtype)
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer = SAM(base, model, rho=rho)
    g = model.slope.double()
    moved = []
    for _ in range(steps):
        start = model.w.detach().double()
        for probe in optimizer.probes():
            if probe.perturbed:
                moved.append(model.w.detach().double() - start)
            model().backward()
        optimizer.step()
    return torch.stack(moved), rho * g / g.norm()


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_perturbation_arrives_on_average(dtype: torch.dtype) -> None:
    # As long, per entry, as rho = 0.05 is in a model of 2 million weights.
    moved, eps = displacements(dtype, 0.005, 64)
    shares = moved @ eps / (eps @ eps)
    assert shares.mean().item() == pytest.approx(1, abs=0.01)
    assert cosine(moved.mean(0), eps) > 0.97


def test_rounding_to_the_nearest_would_not_do() -> None:
    model = Plane(torch.bfloat16)
    w, g = model.w.detach(), model.slope.double()
    eps = 0.005 * g / g.norm()
    moved = (w.double() + eps).bfloat16().double() - w.double()
    assert (moved == 0).double().mean() > 0.7
    assert cosine(moved, eps) < 0.75


def test_a_second_run_perturbs_alike() -> None:
    first, _ = displacements(torch.bfloat16, 0.005, 3)
    second, _ = displacements(torch.bfloat16, 0.005, 3)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])


def test_two_tensors_are_not_rounded_alike() -> None:
    model = nn.ParameterList([nn.Parameter(torch.ones(N).bfloat16()) for _ in "ab"])
    base = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer = SAM(base, model, rho=0.002 * math.sqrt(2 * N))
    where = []
    for probe in optimizer.probes():
        if probe.perturbed:
            where = [p.detach() != 1 for p in model]
        torch.stack([p.double().sum() for p in model]).sum().backward()
    assert 0.1 < where[0].double().mean() < 0.9
    assert not torch.equal(where[0], where[1])


class Slope(nn.Module):
    """Linear in one weight, with another slope in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))

    def forward(self, slope: float) -> Tensor:
        return (slope * self.w).sum()


def remembered(build: Callable[..., SAM], entry: str, **options: Any) -> float:
    """What is remembered of a slope of 1, and then 2 for a hundred steps."""
    model = Slope()
    optimizer = build(torch.optim.SGD(model.parameters(), lr=0.0), model, **options)
    for slope in [1.0] + [2.0] * 100:
        for _ in optimizer.probes():
            model(slope).backward()
        optimizer.step()
    return optimizer.state[model.w][entry].item()


def test_a_running_mean_of_narrow_gradients_is_not_rounded_away() -> None:
    expected = pytest.approx(2 - 0.999**100, rel=1e-5)
    assert remembered(friendly_sam, "sam_friend", decay=0.999) == expected
    assert remembered(vasso, "sam_smooth", theta=0.001) == expected


def test_the_scale_of_narrow_weights_is_learned() -> None:
    """s <- b s + (1 - b) (sqrt(s) |g| + damping), from 1."""
    s = 1.0
    for slope in [1.0] + [2.0] * 100:
        s = 0.999 * s + 0.001 * (math.sqrt(s) * slope + 0.1)
    found = remembered(bsam, "sam_scale", n=100, precision=0.0)
    assert found == pytest.approx(s, rel=1e-5)


@pytest.mark.parametrize("how", ["plain", "maximize", "scaler"])
def test_gradients_may_be_wider_than_weights(how: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2).bfloat16()
    for p in model.parameters():
        p.grad_dtype = torch.float32
    base = torch.optim.SGD(model.parameters(), lr=0.1, maximize=how == "maximize")
    scaler = torch.amp.GradScaler("cpu", enabled=how == "scaler")
    optimizer = SAM(base, model)
    start = model.weight.detach().clone()
    for _ in optimizer.probes(scaler=scaler):
        scaler.scale(model(torch.ones(3, 4).bfloat16()).square().mean()).backward()
    assert all(p.grad_dtype == torch.float32 for p in model.parameters())
    scaler.step(optimizer)
    assert not torch.equal(model.weight, start)
