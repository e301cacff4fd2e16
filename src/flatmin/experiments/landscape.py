"""``flatmin landscape``: the minima that finished runs have found."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flatmin import __version__, pictures
from flatmin.diagnostics import directions
from flatmin.diagnostics import landscape as measure
from flatmin.diagnostics.landscape import Plane
from flatmin.experiments.datasets import SETS
from flatmin.experiments.errors import BadInput, expanded
from flatmin.experiments.runs.files import check_outside, locked, write, write_json
from flatmin.experiments.runs.images import Window
from flatmin.experiments.runs.network import packed
from flatmin.experiments.runs.opened import Finished, names

#: Examples per pass.
_BATCH = 256

#: Most landscapes side by side: more are too small to be compared.
_MOST = 12


def ceiling(classes: int) -> float:
    """Return the loss at which landscapes are cut off: twice that of guessing."""
    return 2 * math.log(classes)


def _top(run: Finished) -> float:
    """Return the `ceiling` of a run; guessing a standardised series' mean costs 1."""
    images = run.run.images
    return 2.0 if isinstance(images, Window) else ceiling(len(images.classes))


def axis(points: int, radius: float) -> tuple[float, ...]:
    """The coordinates of a plane along each of its axes.

    Args:
        points: how many.
        radius: half the side of the plane.

    Raises:
        BadInput: the radius is not finite and positive, or there are too few points.
    """
    if not 0 < radius < math.inf:
        raise BadInput(f"--radius must be finite and above 0, got {radius:g}.")
    try:
        return measure.axis(points, radius)
    except ValueError as refused:
        raise BadInput(str(refused)) from None


def around(
    run: Finished,
    at: Sequence[float],
    file: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, points: None,
) -> Plane:
    """Measure training losses around the weights that a finished run has stored.

    The directions are the same draws for every run. BatchNorm's running statistics
    stay those of the run, so that the loss is a function of the weights alone.

    Args:
        run: which run.
        at: the coordinates along both axes; 1 moves every filter by its own norm.
        file: where unfinished losses are kept.
        progress: called with the number of points done, and of all points.

    Raises:
        BadInput: the run has no weights, or ``file`` is of others.
    """
    objective = run.objective(_BATCH)
    try:
        return measure.plane(
            objective,
            directions.random(objective, 0),
            directions.random(objective, 1),
            a=at,
            file=file,
            progress=progress,
            settings={"run": run.title, "seed": run.experiment.seed},
        )
    except ValueError as refused:
        raise BadInput(str(refused)) from None


def landscape(
    runs: Sequence[Finished],
    out: Path,
    at: Sequence[float],
    console: Console,
) -> Path:
    """Measure and draw the minima of some runs on one scale.

    Args:
        runs: that are opened.
        out: where ``landscape.html``, ``.svg``, ``.png`` and ``.json`` go.
        at: the coordinates along both axes, see `axis`.
        console: for progress.

    Returns:
        The path of ``landscape.html``.

    Raises:
        BadInput: there are too many runs, one is damaged, ``out`` is among images, or
            no loss is finite; nothing but unfinished losses was written then.
    """
    if len(runs) > _MOST:
        raise BadInput(
            f"these are {len(runs)} finished runs, and at most {_MOST} are drawn side "
            "by side. Give folders of fewer, such as "
            "runs/figure1/sam/x1/seed-0."
        )
    for run in runs:
        if run.experiment.data not in SETS:
            check_outside(out, expanded(run.experiment.data))
        run.check()
    with locked(out):
        # The same request continues them; another one has files of other names.
        parts = [out / f".plane-{_key(run, at)}.json" for run in runs]
        planes = {
            name: _watched(name, console, run, at, part)
            for name, run, part in zip(names(runs), runs, parts, strict=True)
        }
        draw(planes, out, max(map(_top, runs)))
        for part in parts:
            part.unlink(missing_ok=True)
    return out / "landscape.html"


def _key(run: Finished, at: Sequence[float]) -> str:
    """Return a name for all that decides a run's plane."""
    told = [__version__, run.title, run.experiment.seed, *at, run.data().digest()]
    found = hashlib.sha256(json.dumps(told).encode())
    found.update(packed({"y": run.run.labels()}))
    found.update(packed(run.run.model().state_dict()))
    return found.hexdigest()[:16]


def _watched(name: str, console: Console, *arguments: Any) -> Plane:
    with console.status(name) as status:

        def progress(done: int, points: int) -> None:
            status.update(f"{name}: {done} of {points} points")

        return around(*arguments, progress=progress)


def draw(planes: dict[str, Plane], out: Path, top: float) -> None:
    """Write the files of a folder of landscapes.

    Raises:
        BadInput: no loss is finite; nothing is written then.
    """
    _check_finite(planes.values())
    figure = pictures.surface(planes, top=top)
    svg, png = (pictures.encoded(figure, kind) for kind in ("svg", "png"))
    text = (
        "Training loss around trained weights, on a plane of two random directions "
        "that are as long as the weights filter by filter. Draws, axes, heights and "
        "colours are the same for all. A plane is two directions of many thousands: "
        "it can show that a minimum is sharp, not that it is flat."
    )
    page = pictures.page(planes, text=text, top=top)
    # Everything is drawn before anything is written.
    write_json(out / "landscape.json", {k: p.to_dict() for k, p in planes.items()})
    write(out / "landscape.svg", svg)
    write(out / "landscape.png", png)
    write(out / "landscape.html", page)


def _check_finite(planes: Iterable[Plane]) -> None:
    planes = list(planes)
    losses = (loss for plane in planes for row in plane.losses for loss in row)
    if not any(map(math.isfinite, losses)):
        radius = max(max(plane.a) for plane in planes)
        raise BadInput(
            f"no training loss within radius {radius:g} is a finite number. Give a "
            "smaller --radius, such as 1."
        )
