"""The main job: train every arm on every setting, measure, and report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from flatmin.diagnostics.landscape import Plane, axis
from flatmin.experiments import page, plots, summary
from flatmin.experiments.comparison import grid, opened
from flatmin.experiments.config import ARMS, Comparison
from flatmin.experiments.data import Data, load
from flatmin.experiments.errors import BadInput
from flatmin.experiments.landscape import around, ceiling
from flatmin.experiments.progress import bars
from flatmin.experiments.store import (
    RunStore,
    claim,
    locked,
    read_json,
    write,
    write_json,
)
from flatmin.experiments.train import Run, noise_name, percent, train

#: The two minima that are drawn side by side: equal gradient cost.
DRAWN = ("sgd-2x", "sam")


def compare(config: Comparison, root: Path, console: Console) -> Path:
    """Run a comparison, or what is left of it, and write its report.

    Returns:
        The path of ``report.html``.

    Raises:
        BadInput: data, device or folder cannot be used; nothing was written then.
    """
    _check_device(config.device)
    with console.status("reading the images"):
        data = load(config)
    digest = data.digest()
    data = data.to(config.device)
    with locked(root):
        settings = config.model_dump(mode="json")
        claim(root, {"config": settings, "data_sha256": digest})
        console.print(_introduction(config, data, root), highlight=False, markup=False)
        runs = list(grid(config))
        with bars(console) as progress:
            work = sum(run.cost for run in runs)
            progress.add_task("all runs, in epochs of SGD", total=work, note="")
            results = [(run, _train(run, data, root, progress)) for run in runs]
        with console.status("measuring the landscapes"):
            planes = _landscapes(config, data, root)
        rows = _write_report(config, data, root, results, planes)
    console.print(summary.terminal_table(rows))
    console.print(summary.headline(rows), highlight=False)
    return root / "report.html"


def _train(run: Run, data: Data, root: Path, progress: Progress) -> dict[str, Any]:
    total = progress.task_ids[0]
    name = f"{percent(run.noise)} noise, {run.arm.label}, seed {run.seed}"
    task = progress.add_task(name, total=run.epochs, note="")
    done = 0

    def watch(epoch: dict[str, Any]) -> None:
        nonlocal done
        note = f"loss {epoch['train_loss']:.3f}  error {epoch['test_error']:.1f} %"
        progress.update(task, completed=epoch["epoch"], note=note)
        progress.advance(total, run.cost * epoch["epoch"] / run.epochs - done)
        done = run.cost * epoch["epoch"] / run.epochs

    result = train(run, data, root, watch)
    progress.remove_task(task)
    progress.advance(total, run.cost - done)
    progress.console.print(
        f"{name}: test error {result['test_error']:.2f} %, {result['seconds']:.1f} s",
        highlight=False,
    )
    return result


def _landscapes(config: Comparison, data: Data, root: Path) -> plots.Planes:
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
            plane = around(opened(run, data, root), axis(config.landscape_points))
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
    data: Data,
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


def _introduction(config: Comparison, data: Data, root: Path) -> str:
    height, width = data.x.shape[-2:]
    return (
        f"{config.data}: {len(data.y)} training and {len(data.test_y)} test "
        f"images of {height} x {width}, {len(data.classes)} classes; {data.split}.\n"
        f"{len(ARMS)} arms x {len(config.noise)} settings x {config.seeds} seeds, "
        f"{config.epochs} epochs, SAM's rho {config.rho}. Everything goes to {root}."
    )


def _check_device(device: str) -> None:
    usable = device == "cpu" or getattr(torch, device).is_available()
    if not usable:
        raise BadInput(f"no {device} device here. Use --set device=cpu.")
