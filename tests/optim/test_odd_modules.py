"""Scripted, traced and lazy modules start each pass alike and end as after one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from tests import problems
from tests.optim.test_odd_buffers import run

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning"),
]


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n, self.warm = 0, False
        self.past = [0.5]
        self.by = {"a": 1.0}
        self.plain = torch.ones(5)
        self.register_buffer("kept", torch.zeros(5))
        self.register_buffer("count", torch.zeros(5))
        self.linear = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.n += 1
        self.past.append(float(self.n))
        self.by["b"] = 2.0
        self.count.add_(1)  # pyright: ignore[reportCallIssue]
        self.kept = self.kept + y.mean(0).detach()
        self.plain.mul_(0.5)
        scale = 1.0 if self.warm else 3.0
        self.warm = True
        return y * scale * self.plain * self.n * len(self.past) * len(self.by)


def test_scripted_parts_are_left_as_one_pass_leaves_them() -> None:
    torch.manual_seed(1)
    part = Scripted()
    names = ["n", "warm", "past", "by", "plain", "kept", "count"]
    mine = torch.jit.script(part)
    model = nn.Sequential(nn.Linear(4, 5), mine)
    twin = nn.Sequential(copy.deepcopy(model[0]), torch.jit.script(copy.deepcopy(part)))
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.3)
    for k in range(1, 3):
        x = torch.randn(6, 4)
        seen: list[tuple[int, float]] = []
        for _ in optimizer.probes():
            seen.append((mine.n, float(mine.count[0])))
            model(x).square().mean().backward()
        with torch.no_grad():
            twin(x)
        assert seen == [(k - 1, k - 1.0)] * 2
        for name in names:
            a, b = getattr(mine, name), getattr(twin[1], name)
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, name
        optimizer.step()
        twin.load_state_dict(model.state_dict())


def test_a_traced_model_trains_as_the_original() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    traced: Any = torch.jit.trace(
        copy.deepcopy(model), torch.randn(6, 4, dtype=torch.float64)
    )
    torch.manual_seed(2)
    run(model, 3)
    torch.manual_seed(2)
    run(traced, 3)
    for p, q in zip(model.parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


class Made(nn.Module):
    """Lazy in its own way: its first input says what its parameter's shape is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.UninitializedParameter()
        self.size = 0
        self.hook = self.register_forward_pre_hook(self.make)

    def make(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.size = inputs[0].shape[1]
        self.weight.materialize((self.size,), dtype=torch.float64)
        nn.init.normal_(self.weight)
        self.hook.remove()
        del self.hook

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * self.size


def lazy() -> nn.Module:
    return nn.Sequential(
        nn.Dropout(0.3), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Dropout(0.5),
        Made(), nn.LazyLinear(3), nn.Dropout(0.5),
    ).double()  # fmt: skip


@pytest.mark.parametrize("replay", [True, False])
def test_lazy_modules_train_as_those_that_were_made_before(replay: bool) -> None:
    torch.manual_seed(4)
    model: Any = lazy()
    x = torch.randn(6, 4, dtype=torch.float64)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=1e-13, replay_rng=replay)
    norm: Any = model[2]
    seen, outputs = [], []
    for _ in optimizer.probes():
        y = model(x)
        outputs.append(y.detach())
        seen.append(norm.running_mean.clone())
        y.square().mean().backward()
    assert not any(model[k]._forward_pre_hooks for k in (1, 2, 4, 5))
    if replay:
        torch.testing.assert_close(seen[0], seen[1])
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-6, atol=1e-9)
    assert norm.num_batches_tracked == 1
    assert model[4].size == 8
    optimizer.step()
    run(model, 2)
    assert norm.num_batches_tracked == 3


def test_a_lazy_module_used_twice_goes_on_from_its_first_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.LazyLinear(4), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.drop(self.layer(self.drop(self.layer(x))))

    torch.manual_seed(0)
    model, outputs = Twice().double(), []
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=1e-13)
    for _ in optimizer.probes():
        outputs.append(model(torch.ones(6, 4, dtype=torch.float64)))
        outputs[-1].square().mean().backward()
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-6, atol=1e-9)


def test_a_lazy_module_that_no_pass_uses_is_watched_no_longer() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.spare = nn.Linear(4, 3), nn.LazyLinear(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    model = Unused().double()
    before = dict(model.spare._forward_pre_hooks)
    optimizer = SAM(torch.optim.SGD(model.layer.parameters(), lr=0.1), model)
    for _ in optimizer.probes():
        model(torch.ones(6, 4, dtype=torch.float64)).square().mean().backward()
    optimizer.step()
    assert dict(model.spare._forward_pre_hooks) == before


def masks(model: nn.Module, optimizer: SAM, x: Tensor) -> list[list[int]]:
    """The entries that dropout leaves, in each pass of a step."""
    found: list[list[int]] = []
    for _ in optimizer.probes():
        y = model(x)
        found.append(y.nonzero()[:, 1].tolist())
        y.square().mean().backward()
    optimizer.step()
    return found


def test_modules_that_are_made_pass_the_check_of_the_replay() -> None:
    torch.manual_seed(4)
    model = lazy()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=1e-13, check="replay")
    outputs: list[Tensor] = []
    x = torch.randn(6, 4, dtype=torch.float64)
    refused = None
    try:
        for _ in range(2):
            for _ in optimizer.probes():
                outputs.append(model(x))
                outputs[-1].square().mean().backward()
            optimizer.step()
    except RuntimeError as error:
        refused = error
    assert refused is None
    for k in (0, 3):
        first, again, last = outputs[k : k + 3]
        assert torch.equal(first, again)
        torch.testing.assert_close(again, last, rtol=1e-6, atol=1e-9)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_only_the_step_that_makes_parameters_jumps_in_the_random_stream() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(50), nn.Dropout(0.5))
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=1e-9), model, rho=1e-9)
    steps = [masks(model, optimizer, torch.ones(1, 4)) for _ in range(3)]
    assert all(first == second for first, second in steps)
    assert steps[0][0] != steps[1][0] != steps[2][0]


def test_only_the_step_that_makes_buffers_goes_back_to_when_they_were_made() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyBatchNorm1d(), nn.Linear(4, 3)).double()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=1e-13), model, rho=1e-13)
    for training in (True, False):
        outputs: list[Tensor] = []
        model.train(training)
        for _ in optimizer.probes():
            outputs.append(model(torch.ones(6, 4, dtype=torch.float64)))
            outputs[-1].square().mean().backward()
        optimizer.step()
        torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-9)


def test_a_loop_that_broke_off_before_parameters_were_made_leaves_no_hook() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LazyLinear(50), nn.Dropout(0.5))
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=1e-9), model, rho=1e-9)
    before = dict(model[0]._forward_pre_hooks)
    for _ in optimizer.probes():
        break
    assert dict(model[0]._forward_pre_hooks) == before
    first, second = masks(model, optimizer, torch.ones(1, 4))
    assert first == second


def test_a_lazy_module_may_rest_in_a_later_pass() -> None:
    torch.manual_seed(0)
    first, late = nn.Linear(4, 4), nn.LazyLinear(4)
    model = nn.ModuleList([first, late])
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, method=problems.Scripted(problems.three_at_w))
    for probe in optimizer.probes():
        y = first(torch.ones(2, 4))
        (y if probe.index == 1 else late(y)).square().mean().backward()
    optimizer.step()
    assert not late._forward_pre_hooks


class Keeping(nn.Module):
    """Keeps a view of its shares without a gradient, as torchmetrics keeps them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3).double()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        shares = self.layer(x).softmax(1)
        with torch.no_grad():
            self.kept.append(shares.reshape(-1))
        return shares


def test_views_without_gradient_of_results_are_left_alone() -> None:
    model = Keeping()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    x = torch.linspace(-1, 1, 8).view(2, 4).double()
    for _ in range(4):
        for _ in optimizer.probes():
            model(x).square().sum().backward()
        optimizer.step()
    assert len(model.kept) == 4
