"""Second-order SAM where a layer's second derivative is not autograd's by itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from flatmin import second_order_sam
from tests.problems import gradient

X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6)
Y = torch.tensor([0, 2, 1, 2])
RHO = 0.3


def old_weight_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(layer)


class Exponential(nn.Module):
    """A parametrization of a user's."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.abs().exp()


LAYERS: dict[str, Callable[[nn.Module], object]] = {
    "weight-norm": parametrizations.weight_norm,
    "weight-norm-columns": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "weight-norm-old": old_weight_norm,
    "cayley": lambda m: parametrizations.orthogonal(m, orthogonal_map="cayley"),
    "own": lambda m: parametrize.register_parametrization(m, "weight", Exponential()),
}


def loss(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y)


def objective(model: nn.Module, w: list[nn.Parameter]) -> float:
    """``L(w + rho g / ||g||)``; the weights are ``w`` again afterwards."""
    g = torch.autograd.grad(loss(model), w)
    size = torch.cat([x.flatten() for x in g]).norm()
    with torch.no_grad():
        kept = [p.clone() for p in w]
        for p, x in zip(w, g, strict=True):
            p.add_(RHO * x / size)
        value = float(loss(model))
        for p, x in zip(w, kept, strict=True):
            p.copy_(x)
    return value


def by_differences(model: nn.Module) -> Tensor:
    """The gradient of the objective, by central differences."""
    w = list(model.parameters())
    found: list[float] = []
    for p in w:
        entries = p.data.view(-1)
        for i in range(len(entries)):
            old, ends = float(entries[i]), list[float]()
            for sign in (1, -1):
                entries[i] = old + sign * 1e-5
                ends.append(objective(model, w))
            entries[i] = old
            found.append((ends[0] - ends[1]) / 2e-5)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("apply", LAYERS.values(), ids=list(LAYERS))
def test_the_gradient_is_that_of_the_objective(
    apply: Callable[[nn.Module], object],
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    apply(model[0])
    expected = by_differences(model)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for probe in second_order_sam(base, model, rho=RHO).probes():
        probe.backward(loss(model))
    mine = torch.cat([gradient(p).flatten() for p in model.parameters()])
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-8)


class Complex(nn.Module):
    """A complex layer between real ones, whose weight may be stored as pairs."""

    def __init__(self, pairs: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        z = torch.randn(5, 6, dtype=torch.complex128)
        self.z = nn.Parameter(torch.view_as_real(z).clone() if pairs else z)
        self.head = nn.Linear(5, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        z = self.z if self.z.is_complex() else torch.view_as_complex(self.z)
        return self.head((x + 0.5j * x.square()).matmul(z.T).abs())


def test_complex_weights_are_pairs_of_real_ones() -> None:
    found: list[Tensor] = []
    for pairs in (True, False):
        model = Complex(pairs)
        optimizer = second_order_sam(
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model, rho=RHO
        )
        for _ in range(4):
            for probe in optimizer.probes():
                probe.backward(loss(model))
            optimizer.step()
        z = model.z.detach()
        found.append(z if pairs else torch.view_as_real(z))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)
