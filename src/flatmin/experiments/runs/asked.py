"""``recipe-NAME.json``: what ``flatmin train`` was asked for in a folder of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs.files import REMOVE, check, read_json, write_json
from flatmin.experiments.runs.lock import in_turn
from flatmin.experiments.runs.names import COMPARISON
from flatmin.experiments.runs.record import Run

#: Most runs per arm; a larger number is a mistake.
_MOST = 10_000

Seeds = Annotated[int, Field(ge=1, le=_MOST)]


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
        asked = [n for part, n in self.parts.items() if path.startswith(f"{part}/")]
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
    """Whether ``flatmin train`` or ``flatmin compare`` has written runs here."""
    if (folder / COMPARISON).is_file():
        return True
    return next(folder.glob("recipe-*.json"), None) is not None


def recipes_of(folder: Path) -> dict[Path, Asked]:
    """Read what was asked for in a folder, by file, in order of names.

    Raises:
        BadInput: it is no folder of runs, or a file is damaged.
    """
    found = {path: _read(path) for path in sorted(folder.glob("recipe-*.json"))}
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


def _read(path: Path) -> Asked | None:
    stored = read_json(path)
    return None if stored is None else check(Asked, stored, path, REMOVE)
