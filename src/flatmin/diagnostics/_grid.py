"""``L(w + sum_j c_j d_j)`` for many ``c``: one after the other, or many at a time.

Three ways give the same numbers up to rounding:

* *loop*: the weights are moved in place, and the data is read as it is given;
* *stacked*: `torch.func.vmap` over weights stacked point by point, for models so small
  that starting an operation takes longer than doing it;
* *threads*: copies of the model, one per core, each at a point of its own. On a CPU,
  cores that share a small operation wait for each other, and a convolution whose
  weights differ from point to point is slow. The copies are in the fastest layout
  that gives the right loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from queue import SimpleQueue
from typing import Any, Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from flatmin.core import Gradients
from flatmin.diagnostics import _batches as batching
from flatmin.diagnostics import _trees as trees
from flatmin.diagnostics._agreement import Losses, Row, Truth, truth
from flatmin.diagnostics._blocked import Blocked
from flatmin.diagnostics._criterion import is_of_torch
from flatmin.diagnostics._functional import Loss, names, reads
from flatmin.diagnostics._hooks import any_hooks
from flatmin.diagnostics._objective import Objective, pair
from flatmin.diagnostics._still import collecting
from flatmin.diagnostics.directions import Direction

#: How the points are evaluated; ``"auto"`` is the fastest way that is right.
How: TypeAlias = Literal["auto", "loop", "stacked", "threads"]

#: How many bytes the largest intermediate tensor of a batch or a stack of points may
#: have: a CPU's cache holds a few such tensors, and they keep an accelerator busy.
_TENSOR = {"cpu": 2**22}
_TENSOR_ELSEWHERE = 2**28

#: The largest block that glibc can learn to keep, less its own header.
_LARGEST_KEPT = 2**25 - 2**16

#: The most points that are stacked, and the points per thread between two reports.
_MOST_STACKED, _PER_THREAD = 256, 4

#: Not annotated in torch.
_vmap: Any = vmap


@dataclass(frozen=True, slots=True)
class Way:
    """One way to evaluate points.

    Attributes:
        name: of the way.
        at_once: how many points to ask for at a time.
        losses: evaluates them.
    """

    name: str
    at_once: int
    losses: Losses


#: Makes a `Way`, or None where it would not pay; puts what it opens on the stack.
Maker: TypeAlias = Callable[[ExitStack], Way | None]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a copy of the model, and the data it reads, lie in memory."""

    model: Callable[[nn.Module], nn.Module]
    data: Callable[[list[Any]], list[Any]]


def _channels_last(model: nn.Module) -> nn.Module:
    return model.to(memory_format=torch.channels_last)  # pyright: ignore


#: Sorted by likely speed, the fastest first.
_LAYOUTS = (
    Layout(Blocked, list),
    Layout(_channels_last, batching.channels_last),
    Layout(lambda model: model, list),
)


class Span:
    """``sum_j c_j d_j``."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self._parts = [
            xs if any(bool(x.any()) for x in xs) else None
            for xs in zip(*directions, strict=True)
        ]

    def at(self, c: Row) -> Gradients:
        """One point; None for a parameter that does not move."""
        return [xs if xs is None else _mix(c, xs) for xs in self._parts]

    def stacked(self, rows: Sequence[Row]) -> Gradients:
        """Points along a new first axis."""
        columns = [
            torch.tensor(column, dtype=torch.float64, device="cpu")
            for column in zip(*rows, strict=True)
        ]

        def mixed(xs: tuple[Tensor, ...]) -> Tensor:
            aside = (-1, *[1] * xs[0].dim())
            return _mix([c.to(xs[0]).view(aside) for c in columns], xs)

        return [xs if xs is None else mixed(xs) for xs in self._parts]


class Grid:
    """Losses in the span of some directions, and the ways to them.

    Args:
        objective: whose losses.
        directions: one or two.
        recalibrate: whether BatchNorm's running statistics are computed at each point.
        memory: bytes that kept data, stacked weights, or copies of the model may take.
    """

    def __init__(
        self,
        objective: Objective,
        directions: Sequence[Direction],
        recalibrate: bool,
        memory: int,
    ) -> None:
        self.data = batching.kept(objective, memory)
        self._objective = objective
        self._own = self._view(objective.model, self.data or objective.data)
        self._span = Span(directions)
        self._recalibrate = recalibrate
        self._memory = memory

    @contextmanager
    def way(self, how: How, rows: Sequence[Row]) -> Generator[Way]:
        """Give the fastest way that is right at some points, or the one asked for.

        A fast way assumes that a copy of the model does what the model does, that
        batches can be cut anew, or that `vmap` takes the model. So its losses are
        compared with the loop's.

        Args:
            how: the way.
            rows: the points.

        Raises:
            ValueError: the way asked for is not right.
        """
        _keep_freed_memory()
        makers = [make for name, make in self._makers(how) if how in ("auto", name)]
        with ExitStack() as stack:
            way = self._first_right(makers, stack, rows)
            if way is None and how not in ("auto", "loop"):
                raise ValueError(
                    f"how={how!r} does not give this model's loss: the model, its data "
                    "or the memory are not made for it. Use how='auto'."
                )
            yield way or Way("loop", 1, self._loop)

    def _first_right(
        self, makers: Sequence[Maker], stack: ExitStack, rows: Sequence[Row]
    ) -> Way | None:
        if not makers:
            return None
        true = truth(self._loop, rows, self._own.w)
        found = (self._tried(make, stack, true) for make in makers)
        return next((one for one in found if one is not None), None)

    def _makers(self, how: How) -> list[tuple[How, Maker]]:
        """The fast ways, sorted by likely speed, the fastest first."""
        modules = self._objective.model.modules()
        convolves = any(isinstance(m, _ConvNd) for m in modules)
        # Convolutions with BatchNorm in them do not collect its statistics.
        layouts = _LAYOUTS[0 if convolves and not self._recalibrate else 1 :]
        stacked: list[tuple[How, Maker]] = [("stacked", self._stacked)]
        threads: list[tuple[How, Maker]] = [
            ("threads", partial(self._threads, layout=layout)) for layout in layouts
        ]
        if how == "auto" and _may_share(self._objective):
            threads = []
        on_cpu = self._objective.device.type == "cpu"
        ways = threads + stacked if convolves else stacked + threads
        return ways if on_cpu else stacked

    def _tried(self, make: Maker, stack: ExitStack, true: Truth) -> Way | None:
        """Return the way if it is right on all processes that share the data."""
        try:
            way = make(stack)
            right = way is not None and true.agrees(way.losses(true.rows))
        except Exception:
            # Any error: if the model is to blame, the loop raises it as well.
            way, right = None, False
        at_once = torch.tensor(way.at_once if way and right else 0, device="cpu")
        if self._objective.group is not None:
            at_once = at_once.to(self._objective.device)
            dist.all_reduce(at_once, dist.ReduceOp.MIN, self._objective.group)
        return replace(way, at_once=int(at_once)) if way and at_once > 0 else None

    def _loop(self, rows: Sequence[Row]) -> Tensor:
        return torch.stack([self._loss(self._own, c) for c in rows])

    def _loss(self, view: Objective, c: Row) -> Tensor:
        with view.at(self._span.at(c)):
            if self._recalibrate:
                _recalibrate(view)
            return view.loss()

    def _stacked(self, stack: ExitStack) -> Way | None:
        del stack
        data, size = self._cut()
        most = min(_MOST_STACKED, self._memory // (3 * _bytes(self._own.w)))
        at_once = min(self._limit // size, most)
        if self._recalibrate or at_once < 2:
            return None
        loss = Loss(self._view(self._objective.model, data))
        if self._reads_elsewhere(loss):
            return None
        return Way("stacked", at_once, partial(self._stack, loss))

    def _reads_elsewhere(self, loss: Loss) -> bool:
        """Whether `functional_call` leaves weights as they are in some batch."""
        w = [p.detach() for p in self._own.w]
        named = dict(zip(names(loss, self._own.w), w, strict=True))
        with torch.enable_grad():
            return any(
                reads(functional_call(loss, named, (batch,)).total, self._own.w)
                for batch in map(trees.detached, loss.objective.batches())
            )

    @torch.no_grad()
    def _stack(self, loss: Loss, rows: Sequence[Row]) -> Tensor:
        stacks = self._span.stacked(rows)
        named = zip(names(loss, self._own.w), self._own.w, stacks, strict=True)
        w = {name: p.detach() + x for name, p, x in named if x is not None}
        total = torch.zeros(len(rows), dtype=torch.float64, device=self._own.device)

        def one(w: dict[str, Tensor], batch: Any) -> Tensor:
            return functional_call(loss, w, (batch,)).total

        for batch in loss.objective.batches():
            totals: Tensor = _vmap(one, (0, None))(w, batch)
            total += totals
        return total / self._own.divisor

    def _threads(self, stack: ExitStack, layout: Layout) -> Way | None:
        if self.data is None:
            return None
        cores = torch.get_num_threads()
        if cores * _bytes(self._own.model.parameters()) > self._memory:
            return None
        if not self._copies_are_whole:
            return None
        data = self.data if self._recalibrate else list(self._cut()[0])
        data = layout.data(data)
        free: SimpleQueue[Objective] = SimpleQueue()
        for _ in range(cores):
            model = layout.model(copy.deepcopy(self._objective.model))
            free.put(self._view(model, data))
        autocast = _autocast_of("cpu")
        pool = ThreadPoolExecutor(
            cores, initializer=torch.set_num_threads, initargs=(1,)
        )
        # Threads that start later take the number that was set last, so restore it.
        stack.callback(torch.set_num_threads, cores)
        stack.enter_context(pool)

        def one(c: Row) -> Tensor:
            view = free.get()
            try:
                # Each thread has an autocast state of its own.
                with autocast():
                    return self._loss(view, c)
            finally:
                free.put(view)

        def losses(rows: Sequence[Row]) -> Tensor:
            return torch.stack(list(pool.map(one, rows)))

        return Way("threads", cores * _PER_THREAD, losses)

    @cached_property
    def _copies_are_whole(self) -> bool:
        """Whether a copy of the model reads none of the model's own weights."""
        view = self._view(copy.deepcopy(self._objective.model), self._own.data)
        view.model.requires_grad_(False)
        with torch.enable_grad():
            return not any(
                reads(view.loss_of(batch).total, self._own.w)
                for batch in map(trees.detached, view.batches())
            )

    def _cut(self) -> tuple[Iterable[Any], int]:
        """Batches that are large enough, and the largest tensor of one, in bytes."""
        batch = next(iter(self._own.batches()))
        size, examples = batching.largest(self._own, batch)
        if self.data is None:
            return self._own.data, size
        wanted = max(1, self._limit * examples // size)
        data = batching.cut(self.data, wanted)
        same = len(data) == len(self.data)
        share = 1 if same else min(wanted, self._own.n) / examples
        return data, math.ceil(size * share)

    @property
    def _limit(self) -> int:
        return _TENSOR.get(self._objective.device.type, _TENSOR_ELSEWHERE)

    def _view(self, model: nn.Module, data: Iterable[Any]) -> Objective:
        """The objective with another model and other batches, of this process alone."""
        view = copy.copy(self._objective)
        view.model, view.data, view.group = model, data, None
        view.w = [p for p in model.parameters() if p.requires_grad]
        return view


def _may_share(objective: Objective) -> bool:
    """Whether copies of the model may write to one place, from several threads.

    Functions are not copied with the model: its hooks, ``forward``, the criterion.
    """
    ours = objective.forward is pair and is_of_torch(objective.measure)
    patched = any("forward" in vars(m) for m in objective.model.modules())
    return not ours or patched or any_hooks(objective.model)


def _keep_freed_memory() -> None:
    """Let glibc keep blocks of up to 32 MiB when they are freed.

    It gives a block back to the system if it has not seen one as large freed before.
    To fetch the pages again takes longer than to compute on them; see M_MMAP_THRESHOLD
    in mallopt(3).
    """
    torch.empty(_LARGEST_KEPT, dtype=torch.uint8, device="cpu")


def _autocast_of(device: str) -> Callable[[], torch.autocast]:
    """Return what enters this thread's autocast state in another thread."""
    return partial(
        torch.autocast,
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=torch.is_autocast_cache_enabled(),
    )


def _recalibrate(objective: Objective) -> None:
    """Set BatchNorm's running statistics to those of the data at the weights."""
    norms = [m for m in objective.model.modules() if isinstance(m, _BatchNorm)]
    try:
        for m in norms:
            m.training = True
        with collecting(norms), torch.no_grad():
            for batch in objective.batches():
                objective.loss_of(batch)
    finally:
        for m in norms:
            m.training = False


def _mix(c: Sequence[Tensor | float], xs: Sequence[Tensor]) -> Tensor:
    total = xs[0] * c[0]
    for x, c_j in zip(xs[1:], c[1:], strict=True):
        total = total + x * c_j
    return total


def _bytes(xs: Iterable[Tensor]) -> int:
    return sum(x.nbytes for x in xs)
