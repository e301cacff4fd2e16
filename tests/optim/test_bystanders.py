"""What a step must leave to others, and what others may do in the middle of one."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adafactor, Adam, Muon

import flatmin
from flatmin import SAM
from flatmin.core import Ask, Method, Program, Step, Traits


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batch(n: int = 16) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(n, 4, generator=draw, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=draw)


def plain(model: nn.Module) -> list[Tensor]:
    """The gradient of the mean loss."""
    x, y = batch()
    loss = cross_entropy(model(x), y)
    return list(torch.autograd.grad(loss, list(model.parameters())))


# Parameters of the model that another optimizer trains.


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("name", ["SAM", "part_sam", "second_order_sam"])
def test_other_optimizers_find_the_gradient_of_the_whole_loss(
    name: str, accumulate: bool
) -> None:
    model = network()
    body, head = model[0], model[2]
    build = getattr(flatmin, name)
    optimizer = build(SGD(body.parameters(), lr=0.1), model, rho=1e-7)
    expected = plain(model)[2:]
    x, y = batch()
    times = 2 if accumulate else 1
    for _ in range(times):
        for probe in optimizer.probes(accumulate=accumulate):
            losses = cross_entropy(model(x), y, reduction="none")
            if name == "part_sam":
                rare = y == 2
                flat, rest = (losses * part for part in (rare, ~rare))
                probe.backward(probe.total(flat=flat.mean(), rest=rest.mean()))
            else:
                probe.backward(losses.mean())
    for p, g in zip(head.parameters(), expected, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, times * g, rtol=1e-5, atol=1e-8)


# Bases that clear gradients in their step.


class Clearing(SGD):
    def step(self, closure: Any = None) -> Any:
        value = super().step(closure)
        self.zero_grad()
        return value


def clearing_in_a_hook(model: nn.Module) -> SGD:
    base = SGD(model.parameters(), lr=0.1)
    base.register_step_post_hook(lambda one, *_: one.zero_grad())
    return base


@pytest.mark.parametrize("own_step", [False, True])
@pytest.mark.parametrize(
    "make", [lambda m: Clearing(m.parameters(), lr=0.1), clearing_in_a_hook]
)
def test_a_base_that_clears_gradients_leaves_the_memory(
    make: Any, own_step: bool
) -> None:
    x, y = batch()
    found: list[list[Tensor]] = []
    for build in (make, lambda m: SGD(m.parameters(), lr=0.1)):
        model = network()
        base = build(model)
        optimizer = flatmin.stale_sam(base, model, rho=0.5)
        for _ in range(3):
            for _ in optimizer.probes():
                cross_entropy(model(x), y).backward()
            (optimizer if own_step else base).step()
        found.append(list(model.parameters()))
        assert all("sam_stale" in optimizer.state[p] for p in model.parameters())
    assert all(map(torch.equal, *found))


def test_a_step_that_a_fused_base_skips_is_no_step() -> None:
    model = network().float()
    base = Adam(model.parameters(), lr=0.1, fused=True)
    optimizer = flatmin.stale_sam(base, model, rho=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    x, y = batch()
    steps: list[float] = []
    for k in range(4):
        for _ in optimizer.probes(scaler=scaler):
            loss = cross_entropy(model(x.float()), y)
            scaler.scale(loss * (torch.inf if k == 1 else 1)).backward()
        scaler.step(base)
        scaler.update()
        steps.append(optimizer.param_groups[0]["sam_step"])
        kept = [optimizer.state[p]["sam_stale"] for p in model.parameters()]
        assert all(t.isfinite().all() for t in kept)
    assert steps == [1, 1, 2, 3]


# Weight decay of the weights themselves.


@pytest.mark.parametrize("kind", [Adafactor, Muon])
def test_decay_that_bypasses_the_gradient_is_no_part_of_the_ascent(kind: Any) -> None:
    layer = nn.Linear(4, 4, bias=False)
    decaying = kind(layer.parameters(), lr=0.1, weight_decay=0.5)
    with pytest.raises(ValueError, match="this one decays the weights themselves"):
        SAM(decaying, layer, decay_in_ascent=True)
    SAM(kind(layer.parameters(), lr=0.1, weight_decay=0.0), layer, decay_in_ascent=True)


# State of the model that cannot be written to as usual.


class Conjugated(nn.Module):
    """Keeps a conjugated view, its imaginary part, and arrays that are read-only."""

    basis: Tensor
    negative: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()
        # torch does not say what its transform returns.
        basis: Any = torch.fft.fft(torch.eye(4, dtype=torch.complex128))
        basis = basis.conj()
        self.register_buffer("basis", basis)
        self.register_buffer("negative", basis.imag)
        self.scale = np.broadcast_to(np.float64(2.0), (4,))

    def forward(self, x: Tensor) -> Tensor:
        turned = (x.to(self.basis.dtype) @ self.basis).real + x @ self.negative
        return self.layer(turned * torch.tensor(self.scale.copy()))


def test_views_that_conjugate_and_read_only_arrays_take_part() -> None:
    torch.manual_seed(0)
    model = Conjugated()
    x, y = batch()
    optimizer = SAM(SGD(model.parameters(), lr=0.1), model, rho=0.1)
    before = model.basis.clone(), model.negative.clone()
    w = [p.detach().clone().requires_grad_() for p in model.parameters()]
    reference = Conjugated()
    with torch.no_grad():
        for p, q in zip(reference.parameters(), w, strict=True):
            p.copy_(q)
    for _ in optimizer.probes():
        cross_entropy(model(x), y).backward()
    optimizer.step()
    g = torch.autograd.grad(
        cross_entropy(reference(x), y), list(reference.parameters())
    )
    length = torch.cat([t.flatten() for t in g]).norm()
    with torch.no_grad():
        for p, t in zip(reference.parameters(), g, strict=True):
            p.add_(t, alpha=float(0.1 / length))
    g_eps = torch.autograd.grad(
        cross_entropy(reference(x), y), list(reference.parameters())
    )
    for p, q, t in zip(model.parameters(), w, g_eps, strict=True):
        torch.testing.assert_close(p, q - 0.1 * t, rtol=1e-9, atol=1e-12)
    assert torch.equal(model.basis, before[0])
    assert torch.equal(model.negative, before[1])


# Memory that is wider than the weights.


@pytest.mark.parametrize("through", ["sam", "base"])
@pytest.mark.parametrize("name", ["lookbehind_sam", "looksam", "stale_sam"])
def test_memory_of_narrow_weights_is_resumed_bit_for_bit(
    name: str, through: str
) -> None:
    x, y = torch.randn(16, 4).bfloat16(), torch.randint(3, (16,))

    def made() -> tuple[nn.Module, SAM]:
        model = network().bfloat16()
        base = SGD(model.parameters(), lr=0.1, maximize=True)
        return model, getattr(flatmin, name)(base, model, rho=0.05)

    def steps(model: nn.Module, optimizer: SAM, n: int) -> None:
        for _ in range(n):
            for _ in optimizer.probes():
                (-cross_entropy(model(x).float(), y)).backward()
            optimizer.step()

    one, optimizer = made()
    steps(one, optimizer, 3)
    other, resumed = made()
    other.load_state_dict(one.state_dict())
    loads = resumed if through == "sam" else resumed.base
    loads.load_state_dict(optimizer.state_dict())
    steps(one, optimizer, 3)
    steps(other, resumed, 3)
    assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["lookbehind_sam", "friendly_sam", "stale_sam"])
def test_what_is_remembered_in_a_state_dict_stays_as_it_was(
    name: str, dtype: torch.dtype
) -> None:
    """Neither the optimizer that gave it nor one that loaded it writes to it."""
    x, y = torch.randn(16, 4).to(dtype), torch.randint(3, (16,))

    def step(model: nn.Module, optimizer: SAM) -> None:
        for _ in optimizer.probes():
            cross_entropy(model(x).float(), y).backward()
        optimizer.step()

    def made() -> tuple[nn.Module, SAM]:
        model = network().to(dtype)
        base = SGD(model.parameters(), lr=0.1)
        return model, getattr(flatmin, name)(base, model, rho=0.05)

    one, optimizer = made()
    step(one, optimizer)
    step(one, optimizer)
    content = optimizer.state_dict()
    then = copy.deepcopy(content["state"])
    other, resumed = made()
    resumed.load_state_dict(content)
    for pair in ((one, optimizer), (other, resumed)):
        step(*pair)
        step(*pair)
    assert then.keys() == content["state"].keys()
    for at, entry in then.items():
        assert entry.keys() == content["state"][at].keys()
        for key, value in entry.items():
            assert torch.equal(value, content["state"][at][key])


def test_a_number_that_a_base_keeps_beside_the_parameters_is_saved_and_loaded() -> None:
    model, (x, y) = network(), batch()

    def made() -> SAM:
        base = SGD(model.parameters(), lr=0.1)
        base.state["rounds"] = 3  # pyright: ignore[reportArgumentType]
        return flatmin.stale_sam(base, model, rho=0.05)

    optimizer = made()
    for _ in optimizer.probes():
        cross_entropy(model(x), y).backward()
    optimizer.step()
    content = optimizer.state_dict()
    assert content["state"]["rounds"] == 3
    resumed = made()
    resumed.load_state_dict(content)
    assert resumed.state_dict()["state"]["rounds"] == 3


@dataclass(frozen=True)
class Shift(Method):
    """Remembers the newest gradient twice, and the one before."""

    order: tuple[str, ...]

    @property
    def traits(self) -> Traits:
        return Traits(remembers=self.order)

    def __call__(self, step: Step) -> Program:
        g = yield Ask()
        newest = [v if v is None else v.clone() for v in g]
        kept = {"newest": newest, "twin": newest, "older": step.memory.recall("newest")}
        for name in self.order:
            if (value := kept[name]) is not None:
                step.memory.keep(name, value)
        return g


@pytest.mark.parametrize("order", list(permutations(["newest", "twin", "older"])))
def test_one_memory_may_become_another(order: tuple[str, ...]) -> None:
    model = network()
    w = next(model.parameters())
    base = SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, method=Shift(order))
    seen: list[Tensor] = []
    for _ in range(4):
        for _ in optimizer.probes():
            x, y = batch()
            cross_entropy(model(x), y).backward()
        assert w.grad is not None
        seen.append(w.grad.clone())
        optimizer.step()
        entry = optimizer.state[w]
        assert torch.equal(entry["sam_newest"], seen[-1])
        assert torch.equal(entry["sam_twin"], seen[-1])
        assert len(seen) == 1 or torch.equal(entry["sam_older"], seen[-2])


def test_a_state_dict_that_a_hook_makes_fit_is_loaded() -> None:
    model = network()
    optimizer = flatmin.stale_sam(SGD(model.parameters(), lr=0.1), model, rho=0.5)
    x, y = batch()
    for _ in optimizer.probes():
        cross_entropy(model(x), y).backward()
    optimizer.step()
    content = optimizer.state_dict()
    (group,) = content["param_groups"]
    more = {**content, "param_groups": [{**group, "params": [*group["params"], 99]}]}
    optimizer.register_load_state_dict_pre_hook(lambda _, given: content)
    optimizer.load_state_dict(more)
    kept = content["state"][0]["sam_stale"]
    assert torch.equal(optimizer.state[model[0].weight]["sam_stale"], kept)


# Bases with a zero_grad of their own.


class Plain(SGD):
    def zero_grad(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().zero_grad()


def test_a_base_whose_zero_grad_takes_no_argument_clears() -> None:
    model = network()
    optimizer = SAM(Plain(model.parameters(), lr=0.1), model)
    x, y = batch()
    for _ in optimizer.probes():
        cross_entropy(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
