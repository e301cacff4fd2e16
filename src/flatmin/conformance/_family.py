"""Relatives of SAM, against the formulas of their authors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter, Loss
from flatmin.conformance._check import AtMost, Measured, Wrong, check, needed


@check(
    "C26",
    "ASAM is its authors' formula, eta on weights and plain SAM on biases",
    "difference of the perturbation, in lengths of the authors'",
    AtMost(1e-4),
)
def adaptive(adapter: Adapter) -> Measured:
    """Expect ``rho T^2 g / ||T g||``, ``T = |w| + eta`` on weights, 1 on biases."""
    build = needed(adapter.asam, "ASAM")
    model = on.network()
    data = on.batches(1)[0]
    loss = on.classify(model, data)
    on.backward(model, loss)
    named = dict(model.named_parameters())
    g = {name: p.grad for name, p in named.items() if p.grad is not None}
    t = {
        name: p.detach().abs() + 0.01 if "weight" in name else torch.ones_like(p)
        for name, p in named.items()
    }
    size = on.length([t[name] * g[name] for name in named])
    expected = [on.RHO * t[name] ** 2 * g[name] / size for name in named]
    optimizer = build(on.RESTING, model, on.RHO, 0.01)
    eps = on.eps_of_step(adapter, optimizer, model, loss)
    off = [a - b for a, b in zip(eps, expected, strict=True)]
    inner = sum((a * b).sum().item() for a, b in zip(eps, expected, strict=True))
    cosine = inner / (on.length(eps) * on.length(expected))
    return Measured(on.length(off) / on.length(expected), f"cosine {cosine:.3f}")


class Rescaled(nn.Module):
    """A network whose function does not depend on ``c``: ``W2/c relu(c W1 x)``."""

    def __init__(self, c: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(5, 8, bias=False).double()
        self.second = nn.Linear(8, 3, bias=False).double()
        with torch.no_grad():
            self.first.weight.mul_(c)
            self.second.weight.div_(c)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores."""
        return self.second(F.relu(self.first(x)))


@check(
    "T3",
    "ASAM does not see a rescaling of layers that leaves the function",
    "relative change of the perturbed loss when the layers are scaled by 3 and 1/3",
    AtMost(1e-6),
)
def invariance(adapter: Adapter) -> Measured:
    """Measure with eta = 0, on a ReLU network without biases."""
    needed(adapter.asam, "ASAM")
    w, there = _losses(adapter, 1.0)
    _, rescaled = _losses(adapter, 3.0)
    if there - w <= 0:
        raise Wrong("the perturbation does not climb")
    return Measured(abs(rescaled - there) / there)


def _losses(adapter: Adapter, c: float) -> tuple[float, float]:
    """Return ``L(w)`` and ``L(w + eps)``."""
    build = needed(adapter.asam, "ASAM")
    model = Rescaled(c)
    loss = on.classify(model, on.batches(1)[0])
    seen: list[float] = []

    def heard() -> Tensor:
        value = loss()
        seen.append(value.item())
        return value

    adapter.step(build(on.RESTING, model, on.RHO, 0.0), model, heard)
    return seen[0], seen[1]


@check(
    "C27",
    "Friendly SAM is its authors' rule, its mean over raw gradients",
    "greatest difference of a weight after 10 steps",
    AtMost(1e-6),
)
def friendly(adapter: Adapter) -> Measured:
    """Compare with a loop that climbs along ``g - sigma m`` and adds ``g`` to ``m``."""
    build = needed(adapter.friendly, "Friendly SAM")
    data = on.batches(10)
    twin = on.network()
    losses = [on.classify(twin, batch) for batch in data]
    _friendly_reference(twin, losses, sigma=1.0, lmbda=0.9)
    model = on.network()
    optimizer = build(on.MOMENTUM, model, on.RHO, 1.0, 0.9)
    on.train(adapter, optimizer, model, data)
    return Measured(on.distance(on.weights(model), on.weights(twin)))


def _friendly_reference(
    model: nn.Module, losses: list[Loss], *, sigma: float, lmbda: float
) -> None:
    base = on.MOMENTUM.build(model)
    ps = list(model.parameters())
    mean: list[Tensor] = []
    for loss in losses:
        w = on.weights(model)
        on.backward(model, loss)
        g = [p.grad.clone() for p in ps if p.grad is not None]
        d = [v - sigma * m for v, m in zip(g, mean, strict=True)] if mean else g
        old = mean or g
        mean = [lmbda * m + (1 - lmbda) * v for m, v in zip(old, g, strict=True)]
        size = on.length(d)
        with torch.no_grad():
            for p, v in zip(ps, d, strict=True):
                p.add_(v * (on.RHO / size))
        on.backward(model, loss)
        with torch.no_grad():
            for p, v in zip(ps, w, strict=True):
                p.copy_(v)
        base.step()


@check(
    "C28",
    "random noise, as bSAM's, is removed after the step",
    "greatest move of a weight in 10 steps at learning rate 0",
    AtMost(1e-6),
)
def noise(adapter: Adapter) -> Measured:
    """Use gradients of zero, so that only the noise can move a weight."""
    build = needed(adapter.noisy, "method with random noise")
    model = on.network()
    before = on.weights(model)
    optimizer = build(model)
    loss = on.classify(model, on.batches(1)[0])
    for _ in range(10):
        adapter.step(optimizer, model, lambda: loss() * 0.0)
    return Measured(on.distance(on.weights(model), before))
