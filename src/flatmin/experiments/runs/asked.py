"""The folders of runs: their names, and what commands were asked for there.

``recipe-NAME.json`` holds what ``flatmin train`` was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput
from flatmin.experiments.recipes._recipe import Cell
from flatmin.experiments.runs.files import (
    REMOVE,
    check,
    in_turn,
    inside,
    read_json,
    write_json,
)
from flatmin.experiments.runs.record import Run

#: Most runs per arm; a larger number is a mistake.
_MOST = 10_000

Seeds = Annotated[int, Field(ge=1, le=_MOST)]


#: The file by which the folder of a comparison is known.
COMPARISON = "comparison.json"


class Asked(BaseModel):
    """What commands have asked for of a recipe.

    Attributes:
        recipe: its name.
        part: the cells that the last command asked for.
        settings: ``field=value``, as the last command gave them.
        smoke: whether the last command made the recipe as small as possible.
        seeds: runs per arm that the last command asked for.
        parts: for each part, the most runs per arm that any command asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    recipe: str
    part: str | None = None
    settings: tuple[str, ...] = ()
    smoke: bool = False
    seeds: Seeds
    parts: dict[str, Seeds] = Field(default_factory=dict)

    def seeds_of(self, cell: str) -> int:
        """Return the most runs per arm that any command asked for of a cell."""
        path = f"{cell}/"
        # Older versions stored a part as it was typed: "figure1/".
        parts = ((part.rstrip("/"), n) for part, n in self.parts.items())
        asked = [n for part, n in parts if path.startswith(f"{part}/")]
        return max(asked, default=self.seeds)


def sign(root: Path, asked: Asked) -> None:
    """Store what a command asks for, together with earlier commands.

    Args:
        root: the folder of all runs.
        asked: what the command asks for; ``parts`` is filled in.

    Raises:
        BadInput: the file of an earlier command is damaged.
    """
    path, part = root / f"recipe-{asked.recipe}.json", asked.part or asked.recipe
    # Another process may be starting the same recipe.
    with in_turn(root):
        old = _read(path)
        parts = {} if old is None else dict(old.parts)
        parts[part] = max(asked.seeds, parts.get(part, 0))
        new = asked.model_copy(update={"parts": parts})
        write_json(path, new.model_dump(mode="json"))


def has_runs(folder: Path) -> bool:
    """Whether ``flatmin train`` or ``flatmin compare`` has written runs here.

    Raises:
        BadInput: the folder cannot be read.
    """
    return (folder / COMPARISON).is_file() or bool(_recipes(folder))


def recipes_of(folder: Path) -> dict[Path, Asked]:
    """Read what was asked for in a folder, by file, in order of names.

    Raises:
        BadInput: it does not exist, is no folder of runs or cannot be read, or a file
            is damaged.
    """
    if not folder.is_dir():
        raise BadInput(
            f"no such folder: {folder}. Give the folder that flatmin train writes to "
            "(its --out)."
        )
    found = {path: _read(path) for path in _recipes(folder)}
    asked = {path: one for path, one in found.items() if one is not None}
    if not asked and Run(folder).begun:
        _ = Run(folder).config
        raise BadInput(
            f"{folder} is one run. Give the folder of all runs that flatmin train "
            "writes to (its --out)."
        )
    if not asked:
        raise BadInput(
            f"{folder} has no recipe-*.json, so it is no folder of runs. Give the "
            "folder that flatmin train writes to (its --out)."
        )
    return asked


def _recipes(folder: Path) -> list[Path]:
    return [path for path in inside(folder) if path.match("recipe-*.json")]


def _read(path: Path) -> Asked | None:
    stored = read_json(path)
    return None if stored is None else check(Asked, stored, path, REMOVE)


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
