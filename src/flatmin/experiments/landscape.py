"""``flatmin landscape``: the minima that runs of ``flatmin compare`` have found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch.nn.functional import cross_entropy

from flatmin import pictures
from flatmin.diagnostics import Objective, directions
from flatmin.diagnostics import landscape as measure
from flatmin.diagnostics.landscape import Plane
from flatmin.experiments.comparison import Finished, finished
from flatmin.experiments.data import Data
from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import RunStore, locked, write, write_json
from flatmin.experiments.train import Run, percent

#: Examples per pass.
_BATCH = 256


def ceiling(classes: int) -> float:
    """Where landscapes are cut off: twice the loss of guessing."""
    return 2 * math.log(classes)


def title(run: Run) -> str:
    """What pictures call the model of a run."""
    return f"{run.arm.label}, {percent(run.noise)} label noise"


def around(
    run: Run,
    data: Data,
    root: Path,
    at: Sequence[float],
    file: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, points: None,
) -> Plane:
    """Training losses around the weights that a finished run has stored.

    The directions are the same draws for every run. BatchNorm's running statistics
    stay those of the run, so that the loss is a function of the weights alone.

    Args:
        run: which run.
        data: what it was trained on.
        root: the run folder of its comparison.
        at: the coordinates along both axes; 1 moves every filter by its own norm.
        file: where unfinished losses are kept.
        progress: called with the points that are done, and all.

    Raises:
        BadInput: the run has no weights, or ``file`` is of others.
    """
    model = run.model(data)
    model.load_state_dict(RunStore(run.folder(root)).weights())
    labels = run.labels(data)
    batches = zip(data.x.split(_BATCH), labels.split(_BATCH), strict=True)
    try:
        objective = Objective(model.eval(), cross_entropy, list(batches))
        return measure.plane(
            objective,
            directions.random(objective, 0),
            directions.random(objective, 1),
            a=at,
            file=file,
            progress=progress,
            settings={"run": title(run), "seed": run.seed},
        )
    except ValueError as refused:
        raise BadInput(str(refused)) from None


def landscape(
    folders: Sequence[Path], out: Path, points: int, radius: float, console: Console
) -> Path:
    """Measure and draw the minima of some runs on one scale.

    Args:
        folders: of runs, such as ``runs/compare/noise-40/sam/seed-0``.
        out: where ``landscape.html``, ``.svg``, ``.png`` and ``.json`` go.
        points: along each axis.
        radius: half the side of the plane.
        console: for progress.

    Returns:
        The path of ``landscape.html``.

    Raises:
        BadInput: a folder does not hold one finished run; nothing was written then.
    """
    try:
        at = measure.axis(points, radius)
    except ValueError as refused:
        raise BadInput(str(refused)) from None
    opened = [_one(folder) for folder in folders]
    runs = [one.runs[0] for one in opened]
    names = [title(run) for run in runs]
    if len(set(names)) < len(names):
        names = [f"{title(run)}, seed {run.seed}" for run in runs]
    if len(set(names)) < len(names):
        raise BadInput("a run is given twice, or two comparisons have the same runs.")
    top = ceiling(max(len(one.data.classes) for one in opened))
    with locked(out):
        # Of one name each, so that what was interrupted is continued.
        parts = [out / f".plane-{k}.json" for k in range(len(runs))]
        planes = {
            name: _watched(name, console, run, one.data, one.root, at, part)
            for name, part, run, one in zip(names, parts, runs, opened, strict=True)
        }
        draw(planes, out, top)
        for part in parts:
            part.unlink()
    return out / "landscape.html"


def _watched(name: str, console: Console, *arguments: Any) -> Plane:
    with console.status(name) as status:

        def progress(done: int, points: int) -> None:
            status.update(f"{name}: {done} of {points} points")

        return around(*arguments, progress=progress)


def draw(planes: dict[str, Plane], out: Path, top: float) -> None:
    """The files of a folder of landscapes."""
    write_json(out / "landscape.json", {k: p.to_dict() for k, p in planes.items()})
    figure = pictures.surface(planes, top=top)
    write(out / "landscape.svg", pictures.encoded(figure, "svg"))
    write(out / "landscape.png", pictures.encoded(figure, "png"))
    text = (
        "Training loss around trained weights, on a plane of two random directions "
        "that are as long as the weights filter by filter. Draws, axes, heights and "
        "colours are the same for all. A plane is two directions of many thousands: "
        "it can show that a minimum is sharp, not that it is flat."
    )
    write(out / "landscape.html", pictures.page(planes, text=text, top=top))


def _one(folder: Path) -> Finished:
    """The comparison of a folder that holds one finished run."""
    opened = finished(folder)
    if len(opened.runs) > 1:
        raise BadInput(
            f"{folder} holds {len(opened.runs)} finished runs. Give folders of one, "
            "such as runs/compare/noise-40/sam/seed-0."
        )
    return opened
