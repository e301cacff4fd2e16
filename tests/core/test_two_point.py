"""Each joint is a seam: a toy value in it gives the closed form one expects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.core import (
    Ascent,
    Ask,
    Batch,
    Combine,
    Gradients,
    LpBall,
    Method,
    Metric,
    Program,
    Scope,
    Step,
    TwoPoint,
)
from tests.problems import Quadratic, Scripted, descend, gradient

RHO = 0.3


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-14)


def on_quadratic(
    method: Method, *, lr: float = 0.1, scope: Scope | None = None
) -> tuple[Quadratic, SAM]:
    model = Quadratic()
    base = torch.optim.SGD(model.parameters(), lr=lr)
    return model, SAM(base, model, rho=RHO, method=method, scope=scope)


def found(model: Quadratic, optimizer: SAM) -> Tensor:
    """The vector to descend at the model's weights."""
    optimizer.zero_grad()
    descend(optimizer, model)
    return gradient(model.w)


def test_plain_joints_are_sam() -> None:
    model, optimizer = on_quadratic(TwoPoint())
    close(found(model, optimizer), model.sam_gradient(RHO))


def test_a_gate_decides_when() -> None:
    def every_second(step: Step) -> bool:
        return step.index % 2 == 0

    model, optimizer = on_quadratic(TwoPoint(gate=every_second))
    for k in range(4):
        w = model.w.detach().clone()
        g = model.sam_gradient(RHO) if k % 2 == 0 else model.a @ w
        descend(optimizer, model)
        assert optimizer.statistics.passes == (2 if k % 2 == 0 else 1)
        optimizer.step()
        close(model.w.detach(), w - 0.1 * g)


def test_a_radius_follows_the_learning_rate() -> None:
    def three_lr(step: Step) -> list[float]:
        return [3 * group["lr"] for group in step.groups]

    model, optimizer = on_quadratic(TwoPoint(radius=three_lr))
    for lr in (0.1, 0.05, 0.0):
        optimizer.param_groups[0]["lr"] = lr
        close(found(model, optimizer), model.sam_gradient(3 * lr))


def test_a_metric_says_what_the_ball_is() -> None:
    class Adaptive(Metric):
        def __call__(
            self, w: list[Tensor], g: list[Tensor], rho: list[float], group: list[int]
        ) -> Ascent:
            size = [t.detach().abs() for t in w]
            scaled = [s * d for s, d in zip(size, g, strict=True)]
            inner = LpBall(2)(w, scaled, rho, group)
            eps: Gradients = [
                s * e for s, e in zip(size, inner.eps, strict=True) if e is not None
            ]
            return inner._replace(eps=tuple(eps))

    model, optimizer = on_quadratic(TwoPoint(metric=Adaptive()))
    w = model.w.detach()
    g, t = model.a @ w, w.abs()
    eps = RHO * t**2 * g / (t * g).norm()
    close(found(model, optimizer), model.a @ (w + eps))


def test_a_source_says_along_what() -> None:
    direction = torch.arange(1.0, 6.0, dtype=torch.float64)

    def constant(step: Step, batch: Batch) -> Program:
        del step, batch
        yield from ()
        return [direction]

    model, optimizer = on_quadratic(TwoPoint(source=constant))
    w = model.w.detach()
    eps = RHO * direction / direction.norm()
    close(found(model, optimizer), model.a @ (w + eps))
    assert optimizer.statistics.passes == 1
    assert optimizer.statistics.loss is None


class Half(Combine):
    """The mean of both gradients."""

    def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
        return [
            None if a is None or b is None else (a + b) / 2
            for a, b in zip(g, g_eps, strict=True)
        ]


def test_a_combination_gets_both_gradients_if_it_needs_them() -> None:
    model, optimizer = on_quadratic(TwoPoint(combine=Half()))
    plain = model.a @ model.w.detach()
    close(found(model, optimizer), (plain + model.sam_gradient(RHO)) / 2)


def test_a_combination_that_needs_no_g_gets_none() -> None:
    class Deaf(Half):
        @property
        def needs_g(self) -> bool:
            return False

        def __call__(self, step: Step, g: Gradients, g_eps: Gradients) -> Gradients:
            assert g == []
            return g_eps

    model, optimizer = on_quadratic(TwoPoint(combine=Deaf()))
    close(found(model, optimizer), model.sam_gradient(RHO))


class Mean(nn.Module):
    """The mean of ``|w - x|^2 / 2`` over the examples x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w - x).pow(2).sum(1).mean() / 2


def test_a_batch_takes_the_first_quarter_for_the_ascent() -> None:
    def quarter(n: int) -> slice:
        return slice(0, n // 4)

    model, x = Mean(), torch.randn(8, 2, dtype=torch.float64)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=RHO, method=TwoPoint(batch=quarter))
    sizes: list[int] = []
    for probe in optimizer.probes():
        part = probe.take(x)
        assert isinstance(part, Tensor)
        sizes.append(len(part))
        model(part).backward()
    w = model.w.detach()
    g = w - x[:2].mean(0)
    assert sizes == [2, 8]
    close(gradient(model.w), w + RHO * g / g.norm() - x.mean(0))


def test_an_index_can_take_any_examples_of_several_tensors() -> None:
    index = torch.tensor([6, 1])
    model, x, y = Mean(), torch.randn(8, 2), torch.arange(8)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, method=TwoPoint(batch=lambda n: index))
    for probe in optimizer.probes():
        part, labels = probe.take(x, y)
        assert labels.tolist() == ([6, 1] if probe.index == 0 else list(range(8)))
        model(part).backward()


class Normed(nn.Module):
    """``c |p|^2 / 2`` for each parameter of a linear and a norm layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.double()
        for p in self.parameters():
            nn.init.normal_(p)

    def forward(self) -> Tensor:
        c = range(1, 5)
        terms = zip(c, self.parameters(), strict=True)
        return torch.stack([k * p.pow(2).sum() / 2 for k, p in terms]).sum()


def norm_layers_only(step: Step, g: Gradients) -> Gradients:
    norms = (m for m in step.model.modules() if isinstance(m, nn.LayerNorm))
    chosen = {id(p) for m in norms for p in m.parameters()}
    return [d if id(p) in chosen else None for p, d in zip(step.w, g, strict=True)]


def test_a_filter_says_which_parameters_move_and_count() -> None:
    model = Normed()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=RHO, method=TwoPoint(filter=norm_layers_only))
    scale, shift = model.norm.weight.detach(), model.norm.bias.detach()
    length = torch.cat([3 * scale, 4 * shift]).norm()
    descend(optimizer, model)
    close(gradient(model.linear.weight), model.linear.weight.detach())
    close(gradient(model.linear.bias), 2 * model.linear.bias.detach())
    close(gradient(model.norm.weight), 3 * (scale + RHO * 3 * scale / length))
    close(gradient(model.norm.bias), 4 * (shift + RHO * 4 * shift / length))


def test_a_filter_that_lets_nothing_move_gives_the_plain_gradient() -> None:
    def nothing(step: Step, g: Gradients) -> Gradients:
        return [None] * len(g)

    model, optimizer = on_quadratic(TwoPoint(filter=nothing))
    close(found(model, optimizer), model.a @ model.w.detach())


class Recorder:
    """A scope whose group has found twice another's gradient."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.other = torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)

    @contextmanager
    def alone(self, model: nn.Module) -> Iterator[None]:
        self.calls.append(f"enter {type(model).__name__}")
        try:
            yield
        finally:
            self.calls.append("leave")

    def share(self, w: list[Tensor], g: Gradients) -> Gradients:
        assert len(w) == len(g)
        self.calls.append("share")
        return [None if d is None else d + self.other for d in g]

    def average(self, model: nn.Module, w: list[Tensor], v: Gradients) -> Gradients:
        self.calls.append("average")
        return v


def test_a_scope_surrounds_the_climb_and_shares_its_gradient() -> None:
    scope = Recorder()
    model, optimizer = on_quadratic(TwoPoint(), scope=scope)
    for _ in optimizer.probes():
        scope.calls.append("pass")
        model().backward()
    assert scope.calls == ["enter Quadratic", "pass", "leave", "share", "pass"]
    w = model.w.detach()
    g = model.a @ w + scope.other
    close(gradient(model.w), model.a @ (w + RHO * g / g.norm()))


def test_a_scope_is_left_if_the_pass_fails() -> None:
    def fail() -> Tensor:
        raise KeyError

    scope = Recorder()
    _, optimizer = on_quadratic(TwoPoint(), scope=scope)
    with pytest.raises(KeyError):
        descend(optimizer, fail)
    assert scope.calls == ["enter Quadratic", "leave"]


def test_a_program_of_three_passes() -> None:
    def uphill_twice(step: Step) -> Program:
        point = None
        for _ in range(2):
            g = yield Ask(point)
            dense = [d for d in g if d is not None]
            point = LpBall(2)(step.w, dense, [RHO], [0])
        return (yield Ask(point))

    model, optimizer = on_quadratic(Scripted(uphill_twice))
    w, a = model.w.detach(), model.a
    once = w + RHO * (a @ w) / (a @ w).norm()
    twice = w + RHO * (a @ once) / (a @ once).norm()
    close(found(model, optimizer), a @ twice)
    assert optimizer.statistics.passes == 3
    # Of two ascents the second is the step's perturbation.
    assert optimizer.statistics.perturbed_loss is not None
    close(optimizer.statistics.perturbed_loss, model.loss(twice))


def test_a_program_is_told_about_the_step() -> None:
    seen: list[Step] = []

    def plain(step: Step) -> Program:
        seen.append(step)
        return (yield Ask())

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].bias.requires_grad_(False)
    groups = [{"params": layer.parameters()} for layer in model]
    optimizer = SAM(torch.optim.SGD(groups, lr=0.1), model, method=Scripted(plain))
    for _ in range(2):
        descend(optimizer, lambda: model(torch.ones(3, 2)).sum())
        optimizer.step()
    assert [step.index for step in seen] == [0, 1]
    step = seen[0]
    assert step.model is model
    assert step.groups is optimizer.param_groups
    assert step.group_of == [0, 1, 1]
    expected = [model[0].weight, *model[1].parameters()]
    assert all(a is b for a, b in zip(step.w, expected, strict=True))
