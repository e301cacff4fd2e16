"""The loss on lines and planes through weights, after Li et al. (arXiv:1712.09913)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch.distributed as dist
from torch import Tensor, nn

from flatmin.diagnostics import _sweep as sweep
from flatmin.diagnostics import directions as directed
from flatmin.diagnostics._grid import How
from flatmin.diagnostics._objective import Objective
from flatmin.diagnostics._slices import Line, Plane, check_labels

__all__ = ["Line", "Options", "Plane", "axis", "line", "plane"]


class Options(TypedDict, total=False):
    """How the losses of a line or a plane are measured.

    Attributes:
        recalibrate: recompute BatchNorm's running statistics over the data at every
            point, as the mean over the batches as they are given. False (the default)
            keeps the statistics of the weights ``w``, so that the loss is a function of
            the weights alone.
        how: ``"loop"`` moves the weights in place, point by point; ``"stacked"``
            evaluates many points at once by `torch.func.vmap`; ``"threads"`` gives each
            core a copy of the model, and calls ``forward``, the criterion and hooks
            from several threads at a time. ``"auto"`` (the default) takes the fastest
            that gives the loop's rises, up to rounding, at the nearest and the farthest
            point, and at one further out if these rise too little to tell; it takes
            threads only where all functions are torch's own: without hooks and
            ``forward``, and with a criterion of torch's.
        memory: bytes that kept data, stacked weights, or copies of the model may take;
            by default 2**30. Data that does not fit is read anew for every point.
        ranks: processes that share the points; each of them holds all data and the
            same weights, and all get the whole result. None is this process alone.
        file: where unfinished losses are saved every two seconds, and the record in
            the end. If the file exists, the measurement is continued. Each call reads
            the data once more, to tell whether the file is of the same losses.
        progress: called with the number of points that are done, and of all points.
        settings: added to those of the record, of types that JSON has.
    """

    recalibrate: bool
    how: How
    memory: int
    ranks: dist.ProcessGroup | None
    file: str | Path | None
    progress: Callable[[int, int], None]
    settings: Mapping[str, Any]


def axis(points: int = 31, radius: float = 1.0) -> tuple[float, ...]:
    """Coordinates from ``-radius`` to ``radius``, 0 among them if ``points`` is odd.

    Raises:
        ValueError: there are fewer than two points, or the radius is not positive.
    """
    if points < 2 or not 0 < radius < math.inf:
        raise ValueError(
            "an axis needs at least 2 points and a positive radius, got "
            f"{points} and {radius}."
        )
    return tuple(radius * (2 * k - points + 1) / (points - 1) for k in range(points))


def line(
    objective: Objective,
    u: Sequence[Tensor],
    *,
    a: Sequence[float] | None = None,
    label: str = "u",
    **options: Unpack[Options],
) -> Line:
    """The loss at ``w + a u``.

    Weights, buffers, modes, gradients and random streams are as before afterwards,
    also after an exception.

    Args:
        objective: whose loss.
        u: one tensor per entry of ``objective.w``, see `directions`.
        a: the coordinates, in lengths of ``u``; by default ``axis()``.
        label: what ``u`` is, in words.
        **options: see `Options`.

    Raises:
        ValueError: as for `plane`.

    Example:
        >>> import torch
        >>> from flatmin.diagnostics import Objective, directions, landscape
        >>> model = torch.nn.Linear(4, 2)
        >>> data = [(torch.randn(8, 4), torch.randn(8, 2))]
        >>> objective = Objective(model, torch.nn.functional.mse_loss, data)
        >>> u = directions.random(objective, seed=0)
        >>> line = landscape.line(objective, u, a=[-1, 0, 1])
        >>> abs(line.losses[1] - float(objective.loss())) < 1e-6
        True
    """
    at = _coordinates("a", a)
    measured = _measure(objective, {"u": u}, [(x,) for x in at], options)
    record = Line(
        a=at,
        losses=tuple(measured.losses),
        labels=(label,),
        settings=measured.settings,
        fingerprint=measured.fingerprint,
    )
    measured.keep(record)
    return record


def plane(
    objective: Objective,
    u: Sequence[Tensor],
    v: Sequence[Tensor],
    *,
    a: Sequence[float] | None = None,
    b: Sequence[float] | None = None,
    labels: tuple[str, str] = ("u", "v"),
    marks: Mapping[str, tuple[float, float]] | None = None,
    **options: Unpack[Options],
) -> Plane:
    """The loss at ``w + a u + b v``.

    Weights, buffers, modes, gradients and random streams are as before afterwards,
    also after an exception.

    Args:
        objective: whose loss.
        u: one tensor per entry of ``objective.w``, see `directions`.
        v: the same.
        a: the coordinates along ``u``, in lengths of it; by default ``axis()``.
        b: the coordinates along ``v``; by default those along ``u``.
        labels: what ``u`` and ``v`` are, in words.
        marks: places to be marked in pictures, by name; for instance the coordinates
            of a `directions.Basis`.
        **options: see `Options`.

    Raises:
        ValueError: directions do not fit the weights; coordinates are no finite
            numbers; labels are not two; the file is of other weights, directions, data,
            settings, criterion or forward; ``how`` is not right for this model; both
            data and points are shared among processes, or processes that share the
            points differ.

    Reference:
        Li, Xu, Taylor, Studer, Goldstein. Visualizing the Loss Landscape of Neural
        Nets. NeurIPS 2018, arXiv:1712.09913.
    """
    along = _coordinates("a", a)
    across = along if b is None else _coordinates("b", b)
    rows = [(x, y) for y in across for x in along]
    check_labels(labels)
    given: Mapping[str, tuple[float, float]] = {} if marks is None else marks
    places = tuple((name, float(x), float(y)) for name, (x, y) in given.items())
    measured = _measure(objective, {"u": u, "v": v}, rows, options)
    n = len(along)
    record = Plane(
        a=along,
        b=across,
        losses=tuple(tuple(measured.losses[k : k + n]) for k in range(0, len(rows), n)),
        labels=labels,
        marks=places,
        settings=measured.settings,
        fingerprint=measured.fingerprint,
    )
    measured.keep(record)
    return record


def _measure(
    objective: Objective,
    directions: Mapping[str, Sequence[Tensor]],
    rows: Sequence[tuple[float, ...]],
    options: Options,
) -> sweep.Measured:
    ranks = options.get("ranks")
    recalibrate = options.get("recalibrate", False)
    if objective.group is not None and ranks is not None:
        raise ValueError(
            "the processes of Objective's group share the data, those of ranks the "
            "points; only one of the two can be given."
        )
    if recalibrate:
        _check_recalibration(objective)
    file = options.get("file")
    return sweep.measured(
        objective,
        [directed.checked(objective, d, name) for name, d in directions.items()],
        rows,
        sweep.Manner(
            recalibrate=recalibrate,
            how=options.get("how", "auto"),
            memory=options.get("memory", 2**30),
            ranks=ranks,
            file=None if file is None else Path(file),
            progress=options.get("progress", lambda done, total: None),
            settings=options.get("settings", {}),
        ),
    )


def _check_recalibration(objective: Objective) -> None:
    if objective.group is not None:
        raise ValueError(
            "recalibrate=True needs all data in one process, got an Objective with a "
            "group."
        )
    if any(isinstance(m, nn.SyncBatchNorm) for m in objective.model.modules()):
        raise ValueError(
            "recalibrate=True would let SyncBatchNorm mix the points of different "
            "processes. Give a model with BatchNorm instead."
        )


def _coordinates(name: str, given: Sequence[float] | None) -> tuple[float, ...]:
    at = axis() if given is None else tuple(map(float, given))
    if not at or not all(map(math.isfinite, at)):
        raise ValueError(f"{name} must be finite numbers, at least one, got {given}.")
    return at
