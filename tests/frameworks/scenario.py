"""What every framework has to train: a network, its batches, and the columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

import flatmin
from flatmin import SAM

BATCHES, SIZE, EPOCHS = 6, 8, 2
LR, MOMENTUM = 0.1, 0.9
SEED = 3


@dataclass(frozen=True)
class Scenario:
    """One training, as a column of the matrix wants it.

    Attributes:
        method: a key of ``METHODS``; None trains with the base alone.
        rho: the radius.
        dropout: of the network, whose mask both passes share.
        schedule: whether a step of the optimizer is followed by one of the schedule.
        clip_norm: the largest norm of the vector that is descended; None for any.
        clip_value: the largest entry of that vector; None for any.
        accumulate: micro-batches per step, each with a perturbation of its own.
        precision: ``"32"``, ``"bf16"`` or ``"16"``, the last with a GradScaler.
        overflows: numbers of the network's training passes whose gradient is infinite.
        stop: after how many micro-batches the training is killed and resumed; None
            for never.
        processes: how many share the training, in DistributedDataParallel.
    """

    method: str | None = "sam"
    rho: float = 0.1
    dropout: float = 0.25
    schedule: bool = False
    clip_norm: float | None = None
    clip_value: float | None = None
    accumulate: int = 1
    precision: str = "32"
    overflows: tuple[int, ...] = ()
    stop: int | None = None
    processes: int = 1


@dataclass
class Trace:
    """What a training left.

    Attributes:
        state: the network's parameters and buffers.
        losses: what was logged, one per micro-batch.
        counts: how often each hook of the host was called.
    """

    state: dict[str, Tensor]
    losses: list[float]
    counts: dict[str, int] = field(default_factory=dict)


#: Column of the matrix -> what is different there.
COLUMNS: dict[str, Scenario] = {
    "plain loop": Scenario(),
    "rho 0 = base": Scenario(rho=0.0),
    "schedule": Scenario(schedule=True),
    "clip norm": Scenario(clip_norm=0.1),
    "clip value": Scenario(clip_value=0.01),
    "accumulate 2": Scenario(accumulate=2),
    "bf16": Scenario(precision="bf16"),
    "fp16": Scenario(precision="16"),
    "fp16, overflow in the ascent": Scenario(precision="16", overflows=(6,)),
    "fp16, overflow in the descent": Scenario(precision="16", overflows=(7,)),
    # Hosts differ in whether they keep random streams: no dropout.
    "resume": Scenario(dropout=0.0, schedule=True, stop=8),
    "DDP": Scenario(processes=2),
    "DDP, accumulate 2": Scenario(processes=2, accumulate=2),
}

#: Two more columns look at the plain loop: what was logged, and what was called.
LOGGED, HOOKS = "logged loss is L(w)", "hooks once"

METHODS: dict[str, Callable[..., SAM]] = {
    "sam": flatmin.SAM,
    "gsam": flatmin.gsam,
    "subset_sam": flatmin.subset_sam,
}


def scenario(column: str, method: str | None) -> Scenario:
    """A column's training with that method."""
    return replace(COLUMNS.get(column, COLUMNS["plain loop"]), method=method)


class Net(nn.Module):
    """Batch norm, dropout, and gradients that overflow when told to."""

    def __init__(self, of: Scenario) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(of.dropout),
            nn.Linear(8, 3),
        )
        self.overflows = of.overflows
        # An iterator, not a number: SAM rewinds a module's numbers before each pass.
        self.passes = iter(range(1_000_000))

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        if self.training and next(self.passes) in self.overflows:
            out.register_hook(lambda g: g * torch.inf)
        return out


def network(of: Scenario) -> Net:
    """The same weights at every call; call `start` before the first batch."""
    torch.manual_seed(SEED)
    return Net(of)


def start() -> None:
    """Set the random stream from which the masks of dropout are drawn."""
    torch.manual_seed(SEED + 1)


def loss_of(out: Tensor, y: Tensor) -> Tensor:
    """The loss, in float32 whatever the precision of the network."""
    return F.cross_entropy(out.float(), y)


def batches(rank: int = 0) -> list[tuple[Tensor, Tensor]]:
    """The micro-batches of an epoch, other ones on each rank; no epoch shuffles."""
    draw = torch.Generator().manual_seed(100 + rank)
    return [
        (
            torch.randn(SIZE, 6, generator=draw),
            torch.randint(3, (SIZE,), generator=draw),
        )
        for _ in range(BATCHES)
    ]


class Examples(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """The batches as a data set, in order: ``DataLoader(Examples(), SIZE)``."""

    def __init__(self, rank: int = 0) -> None:
        self.x, self.y = map(torch.cat, zip(*batches(rank), strict=True))

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


def base_of(model: nn.Module) -> SGD:
    """The optimizer that SAM wraps."""
    return SGD(model.parameters(), lr=LR, momentum=MOMENTUM)


def optimizer_of(of: Scenario, model: nn.Module) -> Optimizer:
    """What trains ``model``: a SAM, or the base where the method is None."""
    base = base_of(model)
    if of.method is None:
        return base
    return METHODS[of.method](base, model, rho=of.rho)


def schedule_of(optimizer: Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Halves the learning rate at every third step of the optimizer."""
    return torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)


def scaler_of(of: Scenario) -> torch.amp.GradScaler:
    """A scaler that the CPU has too; it does nothing unless the precision is 16."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=of.precision == "16")


def autocast(of: Scenario) -> Any:
    """The region in which the forward pass of that precision runs."""
    dtype = torch.float16 if of.precision == "16" else torch.bfloat16
    return torch.autocast("cpu", dtype, enabled=of.precision != "32")


def trace(model: nn.Module, losses: list[float], **counts: int) -> Trace:
    """The trace of a finished training, of the network inside of any wrapper."""
    inner = next(m for m in model.modules() if isinstance(m, Net))
    state = {name: t.detach().clone() for name, t in inner.state_dict().items()}
    return Trace(state, losses, counts)
