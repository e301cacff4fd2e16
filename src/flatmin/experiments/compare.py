"""The main job: train every arm on every setting, measure, and report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress

from flatmin.diagnostics.landscape import Plane, axis
from flatmin.experiments import page, plots, summary
from flatmin.experiments.comparison import Run, grid, noise_name
from flatmin.experiments.config import ARMS, Comparison
from flatmin.experiments.data import load, shape
from flatmin.experiments.datasets import DataSet
from flatmin.experiments.errors import BadInput
from flatmin.experiments.finished import percent
from flatmin.experiments.landscape import around, ceiling
from flatmin.experiments.processes import launched, world_size
from flatmin.experiments.progress import bars, note
from flatmin.experiments.run import train
from flatmin.experiments.store import (
    RunStore,
    claim,
    locked,
    read_json,
    write,
    write_json,
)
from flatmin.experiments.trained import opened

#: The two minima that are drawn side by side: equal gradient cost.
DRAWN = ("sgd-2x", "sam")


def compare(config: Comparison, root: Path, console: Console) -> Path:
    """Run a comparison, or what is left of it, and write its report.

    Returns:
        The path of ``report.html``.

    Raises:
        BadInput: data, device or folder cannot be used; nothing was written then.
    """
    if world_size() > 1:
        raise BadInput(
            "flatmin compare runs in one process: start it without torchrun."
        )
    runs = list(grid(config))
    fabric = launched(runs[0].experiment)
    with console.status("reading the images"):
        data = load(config)
    with locked(root):
        settings = config.model_dump(mode="json")
        claim(root, {"config": settings, "data_sha256": data.digest()})
        console.print(_introduction(config, data, root), highlight=False, markup=False)
        with bars(console) as progress:
            work = sum(run.cost for run in runs)
            progress.add_task("all runs, in epochs of SGD", total=work, note="")
            results = [(run, _train(fabric, run, data, root, progress)) for run in runs]
        with console.status("measuring the landscapes"):
            planes = _landscapes(config, data, root)
        rows = _write_report(config, data, root, results, planes)
    console.print(summary.terminal_table(rows))
    console.print(summary.headline(rows), highlight=False)
    return root / "report.html"


def _train(
    fabric: Fabric, run: Run, data: DataSet, root: Path, progress: Progress
) -> dict[str, Any]:
    total = progress.task_ids[0]
    name = f"{percent(run.noise)} noise, {run.arm.label}, seed {run.seed}"
    task = progress.add_task(name, total=run.epochs, note="")
    done = 0

    def watch(epoch: dict[str, Any]) -> None:
        nonlocal done
        progress.update(task, completed=epoch["epoch"], note=note(epoch))
        progress.advance(total, run.cost * epoch["epoch"] / run.epochs - done)
        done = run.cost * epoch["epoch"] / run.epochs

    result = train(fabric, run.experiment, data, run.folder(root), watch)
    progress.remove_task(task)
    progress.advance(total, run.cost - done)
    progress.console.print(
        f"{name}: test error {result['test_error']:.2f} %, {result['seconds']:.1f} s",
        highlight=False,
    )
    return result


def _landscapes(config: Comparison, data: DataSet, root: Path) -> plots.Planes:
    """Losses around the first seed's minima, measured once and then stored."""
    path = root / "landscapes.json"
    stored = read_json(path)
    if stored is not None:
        return _planes(stored, path)
    if config.landscape_points == 0:
        return {}
    planes: plots.Planes = {}
    for noise in config.noise:
        for arm in (arm for arm in ARMS if arm.name in DRAWN):
            run = Run(config, arm, noise, 0)
            trained = opened(run.folder(root).resolve(), run.experiment, lambda: data)
            plane = around(trained, axis(config.landscape_points))
            planes.setdefault(noise_name(noise), {})[arm.name] = plane
    records = {
        noise: {arm: plane.to_dict() for arm, plane in arms.items()}
        for noise, arms in planes.items()
    }
    write_json(path, records)
    return planes


def _planes(stored: Any, path: Path) -> plots.Planes:
    try:
        return {
            noise: {arm: Plane.from_dict(plane) for arm, plane in arms.items()}
            for noise, arms in stored.items()
        }
    except (AttributeError, ValueError):
        raise BadInput(f"{path} is damaged. Remove it and start again.") from None


def _write_report(
    config: Comparison,
    data: DataSet,
    root: Path,
    results: summary.Cell,
    planes: plots.Planes,
) -> list[summary.Row]:
    """Tables, pictures and the page, from results alone."""
    cells = summary.cells(results)
    rows = [summary.row(cell) for cell in cells]
    curves = {
        (row.noise, row.arm): summary.curve(
            [RunStore(run.folder(root)).metrics() for run, _ in cell]
        )
        for row, cell in zip(rows, cells, strict=True)
    }
    write_json(root / "results.json", [asdict(row) for row in rows])
    write(root / "table.md", summary.markdown(rows))
    top = ceiling(len(data.classes))
    for name, picture in plots.files(rows, curves, planes, top).items():
        write(root / name, picture)
    write(root / "report.html", page.render(config, data, rows, curves, planes))
    return rows


def _introduction(config: Comparison, data: DataSet, root: Path) -> str:
    _, height, width = shape(data)
    return (
        f"{config.data}: {len(data.train.y)} training and {len(data.test.y)} test "
        f"images of {height} x {width}, {len(data.classes)} classes; {data.split}.\n"
        f"{len(ARMS)} arms x {len(config.noise)} settings x {config.seeds} seeds, "
        f"{config.epochs} epochs, SAM's rho {config.rho}. Everything goes to {root}."
    )
