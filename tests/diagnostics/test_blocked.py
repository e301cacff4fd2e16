"""A network in oneDNN's layout is the network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

import flatmin
from flatmin.diagnostics import Objective, _grid, landscape
from flatmin.diagnostics._blocked import Blocked
from flatmin.diagnostics.landscape import axis
from tests.diagnostics.small import by_hand, losses, same, two


class Residual(nn.Module):
    """All that is known: with and without a norm, a ReLU, or another user."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.shared = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)])
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Conv2d(8, 5, 1, stride=2)
        self.head = nn.Sequential(
            nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout()
        )
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        y = F.relu(self.norms[0](self.shared(x)))
        y = self.norms[1](self.shared(y))
        y += x
        x = self.pool(torch.relu(y))
        x = x + F.avg_pool2d(self.norm(x), 3, 1, 1)
        z = self.last(x)
        return self.second(torch.relu(self.first(self.head(torch.relu(z) + z))))


def trained(model: nn.Module) -> nn.Module:
    """In evaluation mode, neither weights nor statistics those of the start."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=draw))
        for _ in range(20):
            model(torch.randn(16, 2, 8, 8, generator=draw) + 1)
    return model.eval()


def images(n: int = 10) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 2, 8, 8, generator=draw)


def plain() -> nn.Sequential:
    """Two convolutions with all that is fused, and a pooling between them."""
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        nn.Linear(4, 3),
    )


@pytest.mark.parametrize("make", [Residual, plain])
@torch.no_grad()
def test_outputs_are_those_of_the_model_wherever_its_weights_move(
    make: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = trained(make())
    blocked = Blocked(model)
    for _ in range(3):
        same(blocked(images()), model(images()), 1e-5)
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))


def test_its_parameters_are_those_of_the_model_in_their_order() -> None:
    model = trained(Residual())
    for mine, theirs in zip(
        Blocked(model).parameters(), model.parameters(), strict=True
    ):
        assert mine is theirs


def test_norms_and_activations_are_parts_of_the_convolutions() -> None:
    blocked = Blocked(trained(plain())).blocked
    called = [node.op for node in blocked.graph.nodes]
    # Two convolutions, pooling, flattening and the last layer; one mark of NaN.
    assert called.count("call_module") == 5
    assert called.count("call_function") == 1


def overflowing(where: str) -> nn.Module:
    """Weights with which numbers become infinite, then NaN, at some place."""
    model: Any = trained(Residual() if where in ("sum", "head") else plain())
    with torch.no_grad():
        if where == "activation":
            model[0].weight.fill_(1e25)
            model[1].weight.fill_(1e25)
        elif where == "sum":
            model.stem.bias.fill_(torch.inf)
            model.norms[1].running_mean.fill_(torch.inf)
        else:
            model.first.bias.fill_(torch.nan)
    return model


@pytest.mark.parametrize("where", ["activation", "sum", "head"])
@torch.no_grad()
def test_numbers_that_overflow_stay_what_they_are(where: str) -> None:
    model, x = overflowing(where), images()
    expected = model(x)
    assert expected.isnan().any()
    same(Blocked(model)(x), expected)


@torch.no_grad()
def test_one_pixel_that_is_no_number_is_not_lost_where_the_largest_is_taken() -> None:
    model, x = trained(plain()), images()
    x[0, 0, 0, 0] = torch.nan
    assert model(x)[0].isnan().all()
    same(Blocked(model)(x), model(x), 1e-5)


def circular() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"))


def hooked() -> nn.Module:
    model = plain()
    model[2].register_forward_hook(lambda _m, _x, out: -out)
    return model


def prepared() -> nn.Module:
    model = plain()
    model[2].register_forward_pre_hook(lambda _m, x: -x[0])
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (hooked, "hooks"),
        (prepared, "hooks"),
        (circular, "with zeros"),
        (lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.GELU()), "NaN"),
    ],
    ids=["hook", "pre-hook", "circular padding", "unknown layer"],
)
def test_other_models_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Blocked(make())


def objective(model: nn.Module) -> Objective:
    x = images(20)
    y = torch.arange(20) % 3
    data = list(zip(x.split(8), y.split(8), strict=True))
    return Objective(model, cross_entropy, data)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that networks in oneDNN's layout are given."""
    sizes: list[int] = []
    forward = Blocked.forward

    def counted(self: Blocked, x: Tensor) -> Tensor:
        sizes.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(Blocked, "forward", counted)
    return sizes


def test_a_landscape_is_measured_in_it_and_is_that_of_the_loop(
    calls: list[int],
) -> None:
    there = objective(trained(plain()))
    u, v = two(there)
    plane = landscape.plane(there, u, v, a=axis(3))
    # Two points are compared with the loop before.
    assert calls == [20] * (9 + 2)
    same(losses(plane), by_hand(there, u, v, axis(3)).double(), 1e-5)


def test_recalibrated_norms_and_dense_models_are_not(calls: list[int]) -> None:
    for model, recalibrate in (
        (trained(plain()), True),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 3)), False),
    ):
        there = objective(model)
        grid = _grid.Grid(there, two(there), recalibrate, 2**30)
        with grid.way("threads", [(0.0, 0.0)]) as way:
            assert way.name == "threads"
    assert calls == []


#: Prints how many pages ten passes have fetched. What a process has freed before counts
#: as long as it lives, so it has to be a new one.
#: Huge pages, of which the system may or may not have some, would make pages few.
PASSES = """
import ctypes, resource, torch
from flatmin.diagnostics import _grid

PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0

def fetched():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt

def pass_over(k):
    "Four tensors of 1024 pages or more each, freed together; larger than before."
    _ = [torch.ones(2**20 + k * 2**16) for _ in range(4)]

_grid._keep_freed_memory()
pass_over(0)
before = fetched()
for k in range(10):
    pass_over(1 + k)
print(fetched() - before)
"""


def test_freed_memory_is_not_fetched_anew() -> None:
    package = str(Path(flatmin.__file__).parents[1])
    printed = subprocess.run(
        [sys.executable, "-c", PASSES],
        env={**os.environ, "PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(printed) < 2 * 4096
