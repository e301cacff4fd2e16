"""``check="replay"`` finds what a forward pass changes and SAM cannot rewind."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flatmin import SAM
from flatmin.core import Ascent, Ask, Step
from flatmin.methods import esam, multi_step_sam, second_order_sam
from tests.problems import (
    Noisy,
    OneProcess,
    Scripted,
    assert_same,
    batch,
    loss_of,
    snapshot,
    untouched,
    without,
)


class Drifting(nn.Module):
    """Scales by a number from an iterator, which nobody can rewind."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = count(1)

    def forward(self, x: Tensor) -> Tensor:
        return x / next(self.calls)


def network(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Tanh(), nn.Linear(8, 3))


def sam(model: nn.Module, **options: Any) -> SAM:
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return SAM(base, model, rho=0.3, check="replay", **options)


def loop(
    optimizer: SAM, model: nn.Module, factor: Callable[[], float] = lambda: 1.0
) -> int:
    bodies = 0
    for probe in optimizer.probes():
        loss = loss_of(model, batch()) * factor()
        probe.loss = loss
        probe.backward(loss)
        bodies += 1
    return bodies


def no_hooks(model: nn.Module) -> bool:
    return not any(m._forward_hooks for m in model.modules())


def test_a_model_whose_state_is_rewound_passes_and_trains_as_without() -> None:
    torch.manual_seed(0)
    model, twin = Noisy(), Noisy()
    twin.load_state_dict(model.state_dict())
    plain = SAM(torch.optim.SGD(twin.parameters(), lr=0.1), twin, rho=0.3)
    optimizer = sam(model)
    for k in range(3):
        torch.manual_seed(k)
        with without(RuntimeError, "the first run of the first pass left something"):
            assert loop(optimizer, model) == 3
        optimizer.step()
        torch.manual_seed(k)
        assert loop(plain, twin) == 2
        plain.step()
    assert_same(snapshot(model), snapshot(twin))
    assert no_hooks(model)
    assert optimizer.statistics.passes == 2


def test_the_module_that_differs_is_named() -> None:
    model = network(nn.ReLU(), Drifting(), nn.Dropout(0.1))
    message = r"output of module '2' \(Drifting\), of the same input"
    with untouched(model), pytest.raises(RuntimeError, match=message):
        loop(sam(model), model)
    assert no_hooks(model)


def test_an_input_that_differs_is_named_so() -> None:
    model, calls = network(), count(1)
    optimizer = sam(model)
    x, y = batch()

    def body() -> None:
        for _ in optimizer.probes():
            loss_of(model, (x * next(calls), y)).backward()

    with pytest.raises(
        RuntimeError, match=r"module '0' \(Linear\), and its input does"
    ):
        body()


def test_a_loss_that_differs_is_named_so() -> None:
    model, calls = network(), count(1)
    with pytest.raises(RuntimeError, match="the loss, while every module"):
        loop(sam(model), model, lambda: 1 / next(calls))


def test_a_gradient_that_differs_is_named_so() -> None:
    model, calls = network(), count(1)
    first: Any = model[0]
    first.weight.register_hook(lambda g: g / next(calls))
    with pytest.raises(RuntimeError, match=r"the gradient of '0\.weight', while"):
        loop(sam(model), model)


def test_modules_that_are_called_in_another_order_are_named() -> None:
    class Branches(nn.Module):
        def __init__(self, one: bool) -> None:
            super().__init__()
            self.a, self.b, self.calls = nn.Linear(8, 8), nn.Linear(8, 8), count()
            self.one = one

        def forward(self, x: Tensor) -> Tensor:
            again = next(self.calls) > 0
            if self.one:
                return self.b(x) if again else self.a(x)
            return x

    model = network(Branches(one=True))
    with pytest.raises(
        RuntimeError, match=r"called: module '1\.a' .*then module '1\.b'"
    ):
        loop(sam(model), model)


def test_modules_that_are_called_more_often_are_counted() -> None:
    model, calls = network(), count()
    optimizer = sam(model)

    def body() -> None:
        for _ in optimizer.probes():
            loss_of(model, batch()).backward()
            if next(calls) == 1:
                model[0](batch()[0])

    with pytest.raises(RuntimeError, match="how many modules are called: 4, then 5"):
        body()


def test_a_result_of_another_shape_differs() -> None:
    class Shaped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = count(1)

        def forward(self, x: Tensor) -> Tensor:
            return x.new_zeros(next(self.calls))

    model = network()
    shaped = model[0].extra = Shaped()
    model[0].register_forward_hook(lambda m, i, o: shaped(o) is None or None)
    with pytest.raises(RuntimeError, match=r"'0\.extra' \(Shaped\)"):
        loop(sam(model), model)


def test_rounding_is_no_difference() -> None:
    model, calls = network(), count()

    def rounds(_: Any, __: Any, y: Tensor) -> Tensor:
        return y * (1 + 1e-7 * next(calls))

    model[0].register_forward_hook(rounds)
    loop(sam(model), model)


@pytest.mark.parametrize("method", [multi_step_sam, second_order_sam])
def test_every_method_can_be_checked(method: Any) -> None:
    model = network()
    twin = network()
    twin.load_state_dict(model.state_dict())
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = method(base, model, rho=0.1, check="replay")
    plain = method(torch.optim.SGD(twin.parameters(), lr=0.1), twin, rho=0.1)
    assert loop(optimizer, model) == loop(plain, twin) + 1
    optimizer.step()
    plain.step()
    assert_same(snapshot(model), snapshot(twin))


def test_losses_of_examples_are_compared_too() -> None:
    model, calls = network(), count(1)
    optimizer = esam(torch.optim.SGD(model.parameters(), lr=0.1), model, check="replay")
    x, y = batch()

    def body() -> None:
        for probe in optimizer.probes():
            losses = nn.functional.cross_entropy(model(x), y, reduction="none")
            probe.backward(losses / next(calls))

    with pytest.raises(RuntimeError, match="the loss, while"):
        body()


def away_first(step: Step) -> Any:
    one = torch.ones((), dtype=torch.float64)
    eps = [None, *(0.1 * torch.ones_like(p) for p in step.w[1:])]
    return (yield Ask(Ascent((*eps,), one, one > 0)))


def test_a_first_pass_away_from_w_is_checked_where_it_is() -> None:
    model = network()
    first: Any = model[0]
    seen: list[Tensor] = []
    with untouched(model):
        for _ in sam(model, method=Scripted(away_first)).probes():
            seen.append(first.bias.detach().clone())
            loss_of(model, batch()).backward()
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], first.bias)


def test_accumulating_loops_are_checked() -> None:
    model, twin = network(), network()
    twin.load_state_dict(model.state_dict())
    optimizer = sam(model)
    plain = SAM(torch.optim.SGD(twin.parameters(), lr=0.1), twin, rho=0.3)
    for o, m in ((optimizer, model), (plain, twin)):
        for _ in range(2):
            for _ in o.probes(accumulate=True):
                loss_of(m, batch()).backward()
        o.step()
    assert_same(snapshot(model), snapshot(twin))


@pytest.mark.parametrize("bodies", [1, 2])
def test_hooks_are_removed_however_the_loop_is_left(bodies: int) -> None:
    model = Noisy()
    before = snapshot(model)
    for n, _ in enumerate(sam(model).probes(), 1):
        if n == bodies:
            break
        loss_of(model, batch()).backward()
    assert no_hooks(model)
    kept = snapshot(model)
    assert all(torch.equal(kept[k], before[k]) for k in kept if "weight" in k)


def test_replicas_are_checked() -> None:
    with OneProcess():
        replica = DistributedDataParallel(network(Drifting()))
        with pytest.raises(RuntimeError, match=r"'module\.1' \(Drifting\)"):
            loop(sam(replica), replica)
        replica = DistributedDataParallel(network())
        loop(sam(replica), replica)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_inside_of_compiled_parts_is_not_watched() -> None:
    model = nn.Sequential(torch.jit.script(network()), nn.Identity())
    loop(sam(model), model)
    compiled: Any = torch.compile(network(), backend="eager", fullgraph=True)
    loop(sam(compiled), compiled)


def test_complex_sparse_and_missing_results_are_compared() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"c": torch.complex(x, x), "s": x.to_sparse(), "n": x > 0, "x": None}

    model = network()
    odd = model[0].odd = Odd()
    model[0].register_forward_hook(lambda m, i, o: odd(o) is None or None)
    loop(sam(model), model)


def test_another_check_is_refused() -> None:
    model = network()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="check is 'replay' or None, got 'all'"):
        SAM(base, model, check="all")  # type: ignore[arg-type]
