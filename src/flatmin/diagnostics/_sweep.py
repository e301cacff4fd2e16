"""All points of a line or a plane: shared among processes, saved, and continued."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from flatmin.diagnostics import _slices as slices
from flatmin.diagnostics import _trees as trees
from flatmin.diagnostics._grid import Grid, How, Row, Way
from flatmin.diagnostics._objective import Objective
from flatmin.diagnostics._slices import Line, Plane
from flatmin.diagnostics._still import bits, still, strided
from flatmin.diagnostics.directions import Direction

#: Seconds between two times that unfinished losses are saved.
SAVE_EVERY = 2.0

#: The kind of a file of unfinished losses.
_UNFINISHED = "unfinished losses"


@dataclass(frozen=True, slots=True)
class Manner:
    """How the points are measured; see `flatmin.diagnostics.landscape.Options`."""

    recalibrate: bool
    how: How
    memory: int
    ranks: dist.ProcessGroup | None
    file: Path | None
    progress: Callable[[int, int], None]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """Losses, what they depend on, and the file for their record."""

    losses: list[float]
    settings: dict[str, Any]
    fingerprint: str
    file: Path | None

    def keep(self, record: Line | Plane) -> None:
        """Write the record to the file, if this process is the one that writes it."""
        if self.file is not None:
            record.save(self.file)


def measured(
    objective: Objective,
    directions: Sequence[Direction],
    rows: Sequence[Row],
    manner: Manner,
) -> Measured:
    """The losses at ``w + sum_j c_j d_j`` for every row ``c``."""
    settings = {
        **manner.settings,
        "examples": objective.n,
        "recalibrated": manner.recalibrate,
    }
    together = _Together(manner.ranks or objective.group, objective.device)
    file = manner.file if together.first else None
    with still(objective.model):
        grid = Grid(objective, directions, manner.recalibrate, manner.memory)
        mark = _fingerprint(objective, directions, rows, settings, grid.data or ())
        mark = together.agreed(mark, must=manner.ranks is not None)
        losses, done = together.shared(lambda: _known(file, mark, len(rows)), len(rows))
        if not done.all():
            sweep = _Sweep(rows, losses, done, together, manner, file, mark)
            with grid.way(manner.how, rows) as way:
                sweep.run(way)
    return Measured(_list(losses), settings, mark, file)


class _Together:
    """The processes that share the work; or this one alone."""

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device) -> None:
        self._group = group
        self._device = device
        self.count = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)
        self.first = self.rank == 0

    def reduced(self, x: Tensor, by: Any = dist.ReduceOp.SUM) -> Tensor:
        """Add up ``x``, on the CPU, over the processes, or reduce it by ``by``."""
        if self._group is None:
            return x
        there = x.to(self._device)
        dist.all_reduce(there, by, self._group)
        return there.cpu()

    def agreed(self, mark: str, must: bool) -> str:
        """Return the fingerprint of all processes: the sum of theirs, byte by byte.

        Args:
            mark: of this process.
            must: whether all have the same; then that is the result.

        Raises:
            ValueError: ``must`` is set, and a process has another fingerprint.
        """
        own = torch.tensor(list(bytes.fromhex(mark)), device="cpu")
        if not must:
            return bytes(_list(self.reduced(own) % 256)).hex()
        first = self.reduced(own if self.first else torch.zeros_like(own))
        if self.reduced((own != first).any().long()) > 0:
            raise ValueError(
                "the processes that share the points have different weights, "
                "directions, data or settings."
            )
        return mark

    def shared(
        self, known: Callable[[], tuple[Tensor, Tensor]], n: int
    ) -> tuple[Tensor, Tensor]:
        """Give all processes the losses that the first knows, and which these are.

        Raises:
            ValueError: the first process has refused its file.
        """
        nothing = _nothing(n)
        refusal: ValueError | None = None
        try:
            losses, done = known() if self.first else nothing
        except ValueError as error:
            refusal, (losses, done) = error, nothing
        if self.reduced(torch.tensor(int(refusal is not None), device="cpu")) > 0:
            raise refusal or ValueError("another process has refused the file.")
        return self.reduced(losses), self.reduced(done) > 0


@dataclass(slots=True)
class _Sweep:
    """The points that are not done yet, chunk by chunk."""

    rows: Sequence[Row]
    losses: Tensor
    done: Tensor
    together: _Together
    manner: Manner
    file: Path | None
    fingerprint: str

    def run(self, way: Way) -> None:
        """Measure the points: each process takes a chunk, then all share the losses."""
        at_once = torch.tensor(way.at_once, device="cpu")
        at_once = int(self.together.reduced(at_once, dist.ReduceOp.MIN))
        n = len(self.rows)
        chunks = [range(k, min(k + at_once, n)) for k in range(0, n, at_once)]
        # A chunk is measured as a whole, so that it has the bits of an unbroken run.
        chunks = [chunk for chunk in chunks if not self.done[list(chunk)].all()]
        shares = 1 if self.manner.ranks is None else self.together.count
        saved = time.monotonic()
        try:
            for k in range(0, len(chunks), shares):
                self._round(way, chunks[k : k + shares])
                if time.monotonic() - saved >= SAVE_EVERY:
                    self._save()
                    saved = time.monotonic()
        except BaseException:
            self._save()
            raise

    def _round(self, way: Way, chunks: Sequence[range]) -> None:
        """Measure a chunk per process of ``ranks``, or one by the group together."""
        own = 0 if self.manner.ranks is None else self.together.rank
        found = torch.zeros_like(self.losses)
        # There may be no chunk left for the last processes.
        for at in map(list, chunks[own : own + 1]):
            found[at] = way.losses([self.rows[k] for k in at]).cpu()
        new = [k for chunk in chunks for k in chunk]
        self.losses[new] = self.together.reduced(found)[new]
        self.done[new] = True
        self.manner.progress(int(self.done.sum()), len(self.done))

    def _save(self) -> None:
        if self.file is None:
            return
        pairs = zip(_list(self.losses), _list(self.done), strict=True)
        slices.write(
            self.file,
            {
                "kind": _UNFINISHED,
                "fingerprint": self.fingerprint,
                "losses": [slices.plain(x) if done else None for x, done in pairs],
            },
        )


def _known(file: Path | None, fingerprint: str, n: int) -> tuple[Tensor, Tensor]:
    """The losses in a file, and which of them it has: float64 and float, ``[n]``."""
    losses, done = _nothing(n)
    if file is None or not file.exists():
        return losses, done
    values = slices.read(file)
    if values.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{file} is of other weights, directions, data or settings, or of another "
            "criterion or forward. Remove it, or give another file."
        )
    for k, x in enumerate(_flat(values["losses"])):
        if x is not None:
            losses[k], done[k] = slices.number(x), 1
    return losses, done


def _nothing(n: int) -> tuple[Tensor, Tensor]:
    """No losses yet: float64 and float, ``[n]``, on the CPU."""
    losses = torch.zeros(n, dtype=torch.float64, device="cpu")
    return losses, torch.zeros_like(losses, dtype=torch.float32)


def _flat(losses: Sequence[Any]) -> list[Any]:
    """The losses of a line, of a plane, or unfinished ones, in the order of rows."""
    return [x for row in losses for x in (row if isinstance(row, list) else [row])]  # pyright: ignore[reportUnknownVariableType]


def _list(x: Any) -> list[Any]:
    """A tensor's values; torch does not say of which type."""
    return x.tolist()


def _fingerprint(
    objective: Objective,
    directions: Sequence[Direction],
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    data: Iterable[Any],
) -> str:
    """SHA-256 of all that the losses depend on.

    Data that is not kept, the criterion and ``forward`` are told by what they give: the
    loss of every batch at the weights, and what its mean divides by.
    """
    sha = hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode())
    fixed = [*objective.model.parameters(), *objective.model.buffers()]
    batches = [x for batch in data for x in trees.tensors(batch)]
    own = [*fixed, *(x for d in directions for x in d), *batches]
    for x in [*own, _losses(objective)]:
        sha.update(f"{x.dtype}{tuple(x.shape)}".encode())
        for part in strided(x.detach().cpu()):
            sha.update(bits(part).numpy().data)
    return sha.hexdigest()


@torch.no_grad()
def _losses(objective: Objective) -> Tensor:
    """Sum and divisor of the losses of every batch at the weights: ``[batches, 2]``."""
    with objective.reading():
        losses = [objective.loss_of(batch) for batch in objective.batches()]
        pairs = [torch.stack([loss.total, loss.divisor]) for loss in losses]
    return torch.stack(pairs) if pairs else torch.zeros(0, 2, device="cpu")
