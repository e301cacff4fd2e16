"""Models whose gradients are known, or whose shape has broken a SAM before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.nn import functional as F
from torch.optim import Optimizer

from flatmin import SAM
from flatmin.core import Ask, Method, Program, Step

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Scripted(Method):
    """A method without traits, from its program."""

    script: Callable[[Step], Program]

    def __call__(self, step: Step) -> Program:
        return self.script(step)


def three_at_w(step: Step) -> Program:
    """Three passes without a climb; descends the last gradient."""
    del step
    yield Ask()
    yield Ask()
    return (yield Ask())


def batch(dtype: torch.dtype = torch.float32, n: int = 12) -> Batch:
    """Inputs with 6 features and labels of 3 classes; every model below takes them."""
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(n, 6, generator=draw, dtype=torch.float64).to(dtype)
    return x, torch.randint(3, (n,), generator=draw)


class Quadratic(nn.Module):
    """``w'Aw / 2`` in float64; at ``v`` its gradient is ``A v``."""

    def __init__(self, n: int = 5) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(n)
        root = torch.randn(n, n, generator=draw, dtype=torch.float64)
        self.a = root @ root.T / n + torch.eye(n, dtype=torch.float64)
        self.w = nn.Parameter(torch.randn(n, generator=draw, dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.loss(self.w)

    def loss(self, v: Tensor) -> Tensor:
        return v @ self.a @ v / 2

    def sam_gradient(self, rho: float) -> Tensor:
        w = self.w.detach()
        g = self.a @ w
        return self.a @ (w + rho * g / g.norm())


def mlp(dtype: torch.dtype = torch.float64) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def two_layers() -> nn.Sequential:
    """Two modules for two parameter groups."""
    return nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)).double()


class Noisy(nn.Sequential):
    """BatchNorm and dropout: everything a second pass could disturb."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(8, 3),
        )


class Tied(nn.Module):
    """One weight used by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 6, bias=False)
        self.decode = nn.Linear(6, 6, bias=False)
        self.decode.weight = self.encode.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.decode(torch.tanh(self.encode(x)))))


class Odd(nn.Module):
    """A frozen, an empty, a 0-dim, a non-contiguous and an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.randn(6, 6), requires_grad=False)
        self.empty = nn.Parameter(torch.empty(0, 6))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.turned = nn.Parameter(torch.randn(8, 6).T)
        self.unused = nn.Parameter(torch.randn(4))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, x @ self.empty.T], 1)
        return self.head(torch.tanh(x @ self.frozen @ self.turned) * self.scale)


class Branching(nn.Module):
    """A layer that is skipped in the passes named in ``skip``."""

    def __init__(self, *skip: int) -> None:
        super().__init__()
        # Not an attribute, which would be the same at the start of every pass.
        calls = count()
        self.skip = skip
        self.call: Callable[[], int] = lambda: next(calls)
        self.maybe = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x if self.call() in self.skip else torch.tanh(self.maybe(x)))


def loss_of(model: nn.Module, data: Batch) -> Tensor:
    x, y = data
    return F.cross_entropy(model(x).float() if x.itemsize < 4 else model(x), y)


def passes(optimizer: SAM, model: nn.Module, data: Batch) -> None:
    """A `probes` loop as users write it."""
    for probe in optimizer.probes():
        loss = loss_of(model, data)
        loss.backward()
        probe.loss = loss


def sam_steps(optimizer: SAM, model: nn.Module, data: Batch, n: int) -> None:
    for _ in range(n):
        passes(optimizer, model, data)
        optimizer.step()


def plain_steps(optimizer: Optimizer, model: nn.Module, data: Batch, n: int) -> None:
    for _ in range(n):
        optimizer.zero_grad()
        loss_of(model, data).backward()
        optimizer.step()


def descend(optimizer: SAM, loss: Callable[[], Tensor]) -> None:
    """A `probes` loop over a loss without data."""
    for probe in optimizer.probes():
        value = loss()
        value.backward()
        probe.loss = value


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, duplicates included, as they are."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in tensors(model).items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Bit for bit, as far as ``==`` sees bits; NaN equals NaN."""
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=0, atol=0, equal_nan=True, msg=name
        )


def assert_same_state(a: Optimizer, b: Optimizer) -> None:
    """Two optimizers' states, tensor by tensor, in the order of their parameters."""
    mine, other = a.state_dict()["state"], b.state_dict()["state"]
    assert mine.keys() == other.keys()
    for k in mine:
        assert mine[k].keys() == other[k].keys()
        for name, value in mine[k].items():
            if isinstance(value, Tensor):
                assert torch.equal(value, other[k][name]), name
            else:
                assert value == other[k][name], name


@contextmanager
def without(kind: type[Exception], why: str) -> Iterator[None]:
    """An error that is the defect in question, told apart from one in the test."""
    try:
        yield
    except kind as error:
        raise AssertionError(why) from error


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Every parameter has its bits and its storage afterwards."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    places = {name: p.data_ptr() for name, p in model.named_parameters()}
    strides = {name: p.stride() for name, p in model.named_parameters()}
    yield
    assert_same(dict(before), {n: p.detach() for n, p in model.named_parameters()})
    assert places == {name: p.data_ptr() for name, p in model.named_parameters()}
    assert strides == {name: p.stride() for name, p in model.named_parameters()}


class OneProcess:
    """One process that believes in a group of one."""

    def __enter__(self) -> None:
        store = HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)

    def __exit__(self, *_: object) -> None:
        torch.distributed.destroy_process_group()


def refusal(call: Callable[[], object], kind: type[Exception] = Exception) -> str:
    """Return what the error of a call says; empty if there is none."""
    try:
        call()
    except kind as error:
        return str(error)
    return ""
