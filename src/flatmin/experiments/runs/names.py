"""Names of the folders of runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes._recipe import Cell

#: The file by which the folder of a comparison is known.
COMPARISON = "comparison.json"


def run_folder(root: Path, cell: Cell, arm: Experiment, seed: int) -> Path:
    """Return the folder of one run: ``runs/table4/noise-40/sam/x1/seed-0``.

    Args:
        root: the folder of all runs.
        cell: the recipe's cell.
        arm: one of the cell's arms, as the cell has it: seed and settings are not in
            the name.
        seed: of the run.

    Raises:
        ValueError: as `arm_name`.
    """
    return root / cell.folder / arm_name(cell, arm) / f"seed-{seed}"


def sweep_folder(root: Path, cell: Cell) -> Path:
    """Return the folder of a sweep: ``runs/sweep/table4/noise-40/sam``."""
    return root / "sweep" / cell.name


def point_folder(sweep: Path, point: Mapping[str, float]) -> Path:
    """Return the folder of a sweep's point, which holds one for each seed.

    Args:
        sweep: the folder of the sweep.
        point: the value of each of its fields, as in ``rho-0.05-lr-0.1``.
    """
    return sweep / "-".join(f"{field}-{value}" for field, value in point.items())


def arm_name(cell: Cell, arm: Experiment) -> str:
    """Name an arm by its length and what differs in the cell: ``x2``, ``x1-mixup-8``.

    After the length comes every other field in which the arms differ, in the order of
    `Experiment`. Names are safe in paths.

    Raises:
        ValueError: the cell has no such arm, or another one of the same name.
    """
    if arm not in cell.arms:
        raise ValueError(f"{cell.name} has no such arm: give it as the cell has it.")
    told = [field for field in Experiment.model_fields if _differs(cell, field)]
    names = [_name(one, told) for one in cell.arms]
    name = _name(arm, told)
    if names.count(name) > 1:
        raise ValueError(f"{cell.name} has {names.count(name)} arms named {name}.")
    return name


def _differs(cell: Cell, field: str) -> bool:
    first = getattr(cell.arms[0], field)
    return field != "length" and any(getattr(arm, field) != first for arm in cell.arms)


def _name(arm: Experiment, fields: list[str]) -> str:
    told = (f"-{field}-{_safe(getattr(arm, field))}" for field in fields)
    return f"x{arm.length}{''.join(told)}"


def _safe(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "none"
