"""What an average must not average, and what it must give back."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from flatmin.averaging import EMA, LAWA, SWA, Average

KINDS: list[Callable[[nn.Module], Average]] = [
    lambda model: EMA(model, 0.9),
    SWA,
    lambda model: LAWA(model, 3),
]
each = pytest.mark.parametrize("kind", KINDS, ids=["EMA", "SWA", "LAWA"])


def normed(norm: Any) -> nn.Sequential:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(norm(nn.Linear(6, 5)), nn.ReLU(), norm(nn.Linear(5, 2)))


def trained(model: nn.Module, average: Average, steps: int = 40) -> None:
    draw = torch.Generator().manual_seed(0)
    base = SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        x = torch.randn(16, 6, generator=draw)
        base.zero_grad()
        nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
        base.step()
        average.update()


@each
@pytest.mark.parametrize(
    "norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm]
)
@pytest.mark.parametrize("for_good", [False, True])
def test_spectral_norms_are_those_of_the_averaged_weights(
    kind: Callable[[nn.Module], Average], norm: Any, for_good: bool
) -> None:
    torch.manual_seed(0)
    model = normed(norm)
    average = kind(model)
    trained(model, average)
    model.eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}

    def largest() -> list[float]:
        model(torch.zeros(1, 6))
        return [torch.linalg.matrix_norm(model[i].weight, 2).item() for i in (0, 2)]

    if for_good:
        average.transfer()
        assert largest() == pytest.approx([1.0, 1.0], rel=1e-3)
        return
    with average.applied():
        assert largest() == pytest.approx([1.0, 1.0], rel=1e-3)
        assert not model[0].training
    after = model.state_dict()
    assert all(torch.equal(t, after[name]) for name, t in before.items())


class Masked(nn.Module):
    """Attention over the positions before, with a mask that grows with its input."""

    mask: Tensor

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(6))
        self.persistent = persistent
        self.grow(1)

    def grow(self, length: int) -> None:
        mask = torch.ones(length, length).tril().bool()
        self.register_buffer("mask", mask, persistent=self.persistent)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        if len(self.mask) < n:
            self.grow(n)
        for layer in self.layers:
            likeness = (x @ x.mT).masked_fill(~self.mask[:n, :n], -torch.inf)
            x = layer(likeness.softmax(-1) @ x)
        return x


@each
@pytest.mark.parametrize("persistent", [False, True])
def test_the_weights_come_back_though_a_buffer_has_grown(
    kind: Callable[[nn.Module], Average], persistent: bool
) -> None:
    torch.manual_seed(0)
    model = Masked(persistent)
    average = kind(model)
    average.update()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    average.update()
    before = [p.detach().clone() for p in model.parameters()]
    with average.applied():
        model(torch.randn(2, 9, 4))
        assert not torch.equal(before[0], next(model.parameters()))
    assert all(map(torch.equal, before, model.parameters()))
    assert len(model.mask) == 1


@each
def test_a_mask_may_grow_in_training(kind: Callable[[nn.Module], Average]) -> None:
    torch.manual_seed(0)
    model = Masked(persistent=False)
    average = kind(model)
    for length in (3, 5):
        model(torch.randn(2, length, 4))
        average.update()
    with average.applied():
        model(torch.randn(2, 4, 4))
        assert len(model.mask) == 5
    average.load_state_dict(average.state_dict())


class Frozen(nn.Module):
    """Keeps its BatchNorm in evaluation mode, whatever it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.free = nn.BatchNorm1d(6), nn.BatchNorm1d(6)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.free(self.frozen(x))


def test_layers_that_stay_in_evaluation_mode_keep_their_statistics() -> None:
    torch.manual_seed(0)
    model = Frozen().train()
    mean = model.frozen.running_mean
    assert mean is not None
    mean = nn.init.normal_(mean).clone()
    average = SWA(model)
    average.update()
    batches = [3 + torch.randn(8, 6) for _ in range(3)]
    average.refresh(batches)
    with average.applied():
        torch.testing.assert_close(model.frozen.running_mean, mean, rtol=0, atol=0)
        inner = torch.stack([model.frozen(x).mean(0) for x in batches]).mean(0)
        torch.testing.assert_close(model.free.running_mean, inner)


def test_an_error_in_refresh_leaves_the_momentum_of_the_layers() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, momentum=0.3))
    average = SWA(model)
    average.update()
    with pytest.raises(RuntimeError, match="dtype"):
        average.refresh([torch.randn(8, 6), torch.randn(8, 6).double()])
    assert model[1].momentum == 0.3
    assert model.training


def test_refresh_draws_from_streams_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    average = SWA(model)
    average.update()

    def drawn() -> Any:
        yield torch.randn(8, 6) + random.random() + np.random.rand()  # noqa: NPY002

    def streams() -> tuple[Any, ...]:
        numbers: Any = np.random.get_state()  # noqa: NPY002
        return random.getstate(), numbers[1].tolist(), torch.get_rng_state().tolist()

    before = streams()
    average.refresh(drawn())
    assert streams() == before
