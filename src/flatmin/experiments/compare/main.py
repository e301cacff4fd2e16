"""``flatmin compare`` from its first line to its report; the file is in this order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console

from flatmin.experiments.compare import estimate, page, preflight, workers
from flatmin.experiments.compare.place import (
    Place,
    Sets,
    check_images,
    check_place,
    claim,
    parts,
    read,
    read_place,
)
from flatmin.experiments.compare.plan import ARMS, Comparison
from flatmin.experiments.compare.results import by_setting
from flatmin.experiments.compare.search import Chosen, all_trained, train_all
from flatmin.experiments.compare.tables import table
from flatmin.experiments.compare.verdict import Verdict, verdict
from flatmin.experiments.datasets import DataSet, findings, shared
from flatmin.experiments.dry_run import duration
from flatmin.experiments.errors import BadInput, shortened
from flatmin.experiments.launch import launched, share_of_threads, world_size
from flatmin.experiments.progress import bars
from flatmin.experiments.runs.files import locked, read_json
from flatmin.experiments.table import counted


def compare(
    what: Comparison, root: Path, data: Path, processes: int, console: Console
) -> Path:
    """Run a comparison, or what is left of it, and write its report.

    Args:
        what: the comparison.
        root: the folder of its runs and its report.
        data: where data sets are.
        processes: that share the work on this machine.
        console: where to print.

    Returns:
        The path of ``report.html``.

    Raises:
        BadInput: data, settings, device or folder cannot be used; nothing is written.
    """
    check_place(root, what)
    fabric = _launched(what)
    with share_of_threads(processes):
        sets = _prepared(fabric, what, data, processes, console)
        with locked(root):
            place = claim(root, data, what, sets)
            chosen = _trained(fabric, what, place, processes, console)
            return _report(what, sets, chosen, place, console)


def _trained(
    fabric: Fabric, what: Comparison, place: Place, processes: int, console: Console
) -> list[Chosen]:
    """Choose the settings of every method, and train with them."""
    with workers.helping(processes - 1, place), bars(console) as progress:
        return train_all(fabric, what, place, progress)


def report(root: Path, data: Path, console: Console) -> Path:
    """Write the report of a finished comparison again, and print its results.

    Args:
        root: its folder.
        data: where data sets are.
        console: where to print.

    Returns:
        The path of ``report.html``.

    Raises:
        BadInput: the folder is not a comparison's, a run is not finished, or the images
            have changed.
    """
    what, place = read_place(root, data)
    sets = read(what, data)
    with locked(root):
        check_images(place, sets)
        chosen = all_trained(what, place)
        if not chosen:
            raise BadInput(f"{root} is not finished. flatmin compare continues it.")
        return _report(what, sets, chosen, place, console)


def numbers(root: Path) -> dict[str, Any]:
    """Return the numbers of a finished comparison's report, for programs.

    Raises:
        BadInput: the folder is not a comparison's, or has no report yet.
    """
    what, _ = read_place(root, root)
    rows_of = read_json(root / "results.json")
    if rows_of is None:
        raise BadInput(f"{root} is not finished. flatmin compare continues it.")
    return {"folder": str(root), "comparison": what.model_dump(), "rows": rows_of}


def _report(
    what: Comparison, sets: Sets, chosen: list[Chosen], place: Place, console: Console
) -> Path:
    found = [one.row() for one in chosen]
    words: dict[str, Verdict] = {}
    for one, group in zip(what.settings, by_setting(found), strict=True):
        images = sets[one.name]
        _, held = parts(what, one, images)
        words[one.name] = verdict(what, group, held, shared(images))
    with console.status("measuring the landscapes"):
        written = page.write_report(what, sets, found, words, place)
    for setting, group in zip(what.settings, by_setting(found), strict=True):
        console.print(table(group))
        _say(words[setting.name], console)
    return written


def preview(what: Comparison, data: Path, processes: int, console: Console) -> None:
    """Say what a comparison would do and how long it would take; write nothing.

    Raises:
        BadInput: as `compare`.
    """
    fabric = _launched(what)
    with share_of_threads(processes):
        _prepared(fabric, what, data, processes, console)


def _launched(what: Comparison) -> Fabric:
    """Launch Fabric for this process; refuse torchrun."""
    if world_size() > 1:
        raise BadInput(
            "flatmin compare starts its own processes: give --workers N, not torchrun."
        )
    return launched(what.experiment)


def _prepared(
    fabric: Fabric, what: Comparison, data: Path, processes: int, console: Console
) -> Sets:
    """Read the images, try every arm for a few steps, and say what will be done."""
    with console.status("reading the images"):
        sets = read(what, data)
    # As an estimate of the start of other processes, which import and read the same.
    start = time.process_time()
    with console.status("timing a few steps"):
        times = [estimate.timed(fabric, what, x, sets[x.name]) for x in what.settings]
    works = [
        estimate.work(what, one, sets[one.name], found)
        for one, found in zip(what.settings, times, strict=True)
    ]
    total = estimate.seconds(what, works, processes, start)
    for line in introduction(what, sets, total, processes):
        console.print(line, highlight=False, markup=False)
    for one, found in zip(what.settings, times, strict=True):
        for line in preflight.warnings(found.base, what, one, sets[one.name]):
            console.print(f"Note: {line}", highlight=False, markup=False)
    return sets


def introduction(
    what: Comparison, sets: Sets, seconds: float, processes: int
) -> list[str]:
    """Say what a comparison will do, and how long it will take."""
    lines = []
    for one in what.settings:
        images = sets[one.name]
        lines.append(
            f"{one.label}: {len(images.train.y):,} training and "
            f"{len(images.test.y):,} test images, {len(images.classes)} classes "
            f"({shortened(', '.join(images.classes))}); {images.split}."
        )
    for images in {id(one): one for one in sets.values()}.values():
        lines += findings(images)
    one = what.experiment
    tries = ", ".join(_tries(what))
    seeds = counted(what.seeds, "seed")
    where = _validation(what, next(iter(sets.values())))
    lines.append(
        f"{one.model}, {seeds}. Each method chooses its settings on {where}: {tries}."
    )
    words = "1 process" if processes == 1 else f"{processes} processes"
    lines.append(
        f"This takes about {duration(seconds)} with {words}, and less where shorter "
        "schedules are chosen, or the same settings with and without an average."
    )
    return lines


def _tries(what: Comparison) -> list[str]:
    optimizer = what.experiment.optimizer
    return [f"{arm.label(optimizer)} of {what.tries(arm)}" for arm in ARMS]


def _validation(what: Comparison, images: DataSet) -> str:
    """Name the images on which settings are chosen."""
    if images.validation is not None:
        return f"the {len(images.validation.y):,} validation images"
    return f"{100 * what.validation:g} % of the training images"


def _say(words: Verdict, console: Console) -> None:
    for sentence in words.sentences:
        console.print(sentence, highlight=False, markup=False)
    for warning in words.warnings:
        console.print(f"Note: {warning}", highlight=False, markup=False)
