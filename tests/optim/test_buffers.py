"""Buffers after a step are those of one plain forward pass at ``w``."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from flatmin import SAM
from flatmin.core import Ask, LpBall, Program, Step
from tests.problems import (
    Noisy,
    Scripted,
    assert_same,
    batch,
    loss_of,
    snapshot,
    without,
)


class Images(nn.Module):
    """The six features as an image of 2 x 3 pixels for a norm layer with 4 channels."""

    def __init__(self, norm: nn.Module, *, flat: bool = False) -> None:
        super().__init__()
        self.lift, self.norm, self.flat = nn.Conv2d(1, 4, 1), norm, flat
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x.reshape(-1, 1, 2, 3))
        x = self.norm(x.flatten(2) if self.flat else x)
        return self.head(x.flatten(1))


class Counting(nn.Module):
    """Buffers of every fate: written in place, replaced, made late, never touched."""

    in_place: Tensor
    replaced: Tensor
    counter: Tensor
    switch: Tensor
    late: Tensor | None
    hidden: Tensor
    fixed: Tensor
    graph: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("in_place", torch.zeros(3))
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("counter", torch.tensor(0))
        self.register_buffer("switch", torch.tensor(False))
        self.register_buffer("late", None)
        self.register_buffer("hidden", torch.zeros(1), persistent=False)
        self.register_buffer("fixed", torch.ones(1).expand(5))
        self.register_buffer("empty", torch.empty(0, 2))
        self.register_buffer("graph", torch.eye(3).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        mean = y.detach().mean(0)
        self.in_place.mul_(0.9).add_(mean)
        self.replaced = 0.9 * self.replaced + mean
        self.counter += 1
        self.switch.logical_not_()
        self.late = mean if self.late is None else self.late + mean
        self.hidden += mean[0]
        if "made" not in self._buffers:
            self.register_buffer("made", mean)
        return y * self.fixed[:3] + torch.sparse.mm(self.graph, y.T).T


def batch_norm_1d() -> nn.Module:
    return Images(nn.BatchNorm1d(4), flat=True)


def cumulative_batch_norm() -> nn.Module:
    return Images(nn.BatchNorm2d(4, momentum=None))


def instance_norm() -> nn.Module:
    return Images(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))


def spectral() -> nn.Module:
    return nn.Sequential(spectral_norm(nn.Linear(6, 8)), nn.Linear(8, 3))


def nothing() -> nn.Module:
    return nn.Linear(6, 3)


MODELS: list[Callable[[], nn.Module]] = [
    batch_norm_1d,
    lambda: Images(nn.BatchNorm2d(4)),
    cumulative_batch_norm,
    instance_norm,
    spectral,
    Counting,
    nothing,
]
NAMES = ["bn1d", "bn2d", "bn-cumulative", "instance", "spectral", "custom", "none"]
every_model = pytest.mark.parametrize("build", MODELS, ids=NAMES)


def sam(model: nn.Module, **options: bool) -> SAM:
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return SAM(base, model, rho=0.5, protect_buffers=options.get("protect", True))


def norm_of(model: nn.Sequential) -> nn.BatchNorm1d:
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    return norm


def mean_of(model: nn.Sequential) -> Tensor:
    mean = norm_of(model).running_mean
    assert mean is not None
    return mean


def buffers(model: nn.Module) -> dict[str, Tensor]:
    now = {name: b.detach() for name, b in model.named_buffers()}
    return {name: b.to_dense() if b.is_sparse else b for name, b in now.items()}


def loop(optimizer: SAM, model: nn.Module) -> None:
    for _ in optimizer.probes():
        loss_of(model, batch()).backward()


@every_model
def test_a_step_leaves_buffers_as_one_forward_pass_does(
    build: Callable[[], nn.Module],
) -> None:
    model = build()
    optimizer = sam(model)
    for _ in range(3):
        twin = copy.deepcopy(model)
        loss_of(twin, batch())
        loop(optimizer, model)
        optimizer.step()
        assert_same(buffers(model), buffers(twin))


@every_model
def test_both_passes_start_from_the_same_buffers(
    build: Callable[[], nn.Module],
) -> None:
    model = build()
    for _ in range(2):
        seen: list[dict[str, Tensor]] = []
        for _ in sam(model).probes():
            seen.append({k: b.clone() for k, b in buffers(model).items()})
            loss_of(model, batch()).backward()
        assert_same(seen[0], seen[1])


def test_buffers_stay_in_their_storage() -> None:
    model = Noisy()
    places = {name: b.data_ptr() for name, b in model.named_buffers()}
    loop(sam(model), model)
    assert places == {name: b.data_ptr() for name, b in model.named_buffers()}


def test_batches_are_counted_once() -> None:
    model = Noisy()
    optimizer = sam(model)
    for n in range(1, 4):
        loop(optimizer, model)
        optimizer.step()
        assert norm_of(model).num_batches_tracked == n


def test_unprotected_buffers_are_updated_by_both_passes() -> None:
    model = Noisy()
    optimizer = sam(model, protect=False)
    means: list[Tensor] = []
    for _ in optimizer.probes():
        loss_of(model, batch()).backward()
        means.append(mean_of(model).clone())
    assert norm_of(model).num_batches_tracked == 2
    assert not torch.equal(means[0], means[1])
    assert torch.equal(mean_of(model), means[1])


def test_batch_norm_in_eval_mode_is_untouched() -> None:
    model = Noisy()
    model[1].eval()
    before = snapshot(model)
    loop(sam(model), model)
    assert_same(snapshot(model), before)
    assert not model[1].training


def test_three_passes_keep_the_first_ones_buffers() -> None:
    def three(step: Step) -> Program:
        g = yield Ask()
        for _ in range(2):
            dense = [d for d in g if d is not None]
            g = yield Ask(LpBall()(step.w, dense, [0.5] * len(dense), step.group_of))
        return g

    model = Noisy()
    twin = copy.deepcopy(model)
    loss_of(twin, batch())
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(0)
    loop(SAM(base, model, method=Scripted(three)), model)
    assert_same(buffers(model), buffers(twin))


@pytest.mark.parametrize("how", ["raise", "break"])
def test_leaving_the_second_pass_keeps_the_first_ones_buffers(how: str) -> None:
    model = Noisy()
    twin = copy.deepcopy(model)
    loss_of(twin, batch())
    torch.manual_seed(0)

    def leave() -> None:
        for probe in sam(model).probes():
            loss_of(model, batch()).backward()
            if probe.index == 1:
                if how == "break":
                    break
                raise KeyError

    if how == "break":
        leave()
    else:
        with pytest.raises(KeyError):
            leave()
    assert_same(buffers(model), buffers(twin))


def test_a_buffer_that_grows_is_followed() -> None:
    class Growing(nn.Module):
        history: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)
            self.register_buffer("history", torch.zeros(0))

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            self.history = torch.cat([self.history, y.detach().mean()[None]])
            return y

    model = Growing()
    optimizer = sam(model)
    for n in range(1, 4):
        loop(optimizer, model)
        optimizer.step()
        assert model.history.shape == (n,)


def test_expanded_buffers_can_be_protected() -> None:
    model = nn.Linear(6, 3)
    mask = torch.ones(1).expand(5)
    model.register_buffer("mask", mask)
    with without(RuntimeError, "nobody can write to it in place"):
        loop(sam(model), model)
    assert model.mask is mask
