"""Complex parameters: a number's size is its modulus, its sign ``x / |x|``."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM
from flatmin.core import Ascent, LpBall
from flatmin.core import _tensors as ts

EVERY_P = [1.0, 1.5, 2.0, 3.0, math.inf]


def vector(dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.tensor([3 + 4j, -1j, 0, -2 + 0j], dtype=dtype)


def climb(p: float, g: list[Tensor]) -> Ascent:
    return LpBall(p)(g, g, [0.5] * len(g), [0] * len(g))


def entries(parts: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([e.flatten() for e in parts if e is not None])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("p", EVERY_P)
def test_the_perturbation_is_the_highest_point_in_moduli(
    p: float, dtype: torch.dtype
) -> None:
    g = vector(dtype)
    ascent = climb(p, [g])
    eps = entries(ascent.eps)
    assert eps.dtype == dtype
    size = torch.linalg.vector_norm(eps, p).item()
    norm = torch.linalg.vector_norm(g, LpBall(p).q).item()
    height = (eps * g.conj()).real.sum().item()
    assert size == pytest.approx(0.5, rel=1e-6)
    assert ascent.norm.item() == pytest.approx(norm, rel=1e-6)
    assert height == pytest.approx(0.5 * norm, rel=1e-6)


@pytest.mark.parametrize("p", EVERY_P)
def test_real_and_complex_tensors_share_one_ball(p: float) -> None:
    real = torch.tensor([5.0, -7.0], dtype=torch.float64)
    mixed = climb(p, [vector(), real])
    moduli = climb(p, [vector().abs(), real])
    got = [e.abs() for e in mixed.eps if e is not None]
    wanted = [e.abs() for e in moduli.eps if e is not None]
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bad", [complex(math.inf, 0), complex(0, math.nan), 0j])
@pytest.mark.parametrize("p", EVERY_P)
def test_what_cannot_be_climbed_gives_no_perturbation(p: float, bad: complex) -> None:
    g = vector() * 0
    g[1] = torch.tensor(bad)
    ascent = climb(p, [g])
    assert not ascent.ok
    assert torch.equal(torch.view_as_real(entries(ascent.eps)), torch.zeros(4, 2))


def test_a_conjugate_view_is_measured_like_its_values() -> None:
    g = vector()
    assert ts.norm([g.conj()]).item() == pytest.approx(math.sqrt(30), rel=1e-12)
    assert ts.cosine([g.conj()], [g.conj()]).item() == 1.0


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(3, 4, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.w.T).abs()


class Parts(nn.Module):
    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.view_as_real(w.detach()).clone())

    def forward(self, x: Tensor) -> Tensor:
        return (x @ torch.view_as_complex(self.w).T).abs()


def trained(model: nn.Module) -> nn.Module:
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = SAM(base, model, rho=0.3)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 4, dtype=torch.complex128, generator=generator)
    y = torch.randint(3, (8,), generator=generator)
    for _ in range(10):
        for _ in optimizer.probes():
            F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def test_training_equals_that_of_real_and_imaginary_parts() -> None:
    model = Complex()
    twin = trained(Parts(model.w))
    start = copy.deepcopy(model.w.detach())
    trained(model)
    got = torch.view_as_real(model.w.detach())
    assert not torch.equal(model.w.detach(), start)
    (wanted,) = (p.detach() for p in twin.parameters())
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-13)
