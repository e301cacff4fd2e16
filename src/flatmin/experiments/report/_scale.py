"""What is other than in the paper, and on what machines it ran."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import PurePath
from typing import Any

from flatmin.experiments.report._numbers import Report
from flatmin.experiments.report._stored import differences

#: Columns of `environments`.
PLACES = ("hardware", "software", "processes", "runs")


def scale(report: Report) -> list[str]:
    """What separates these runs from the paper's, one thing per line.

    Stored experiments are compared with the recipe's own, field by field.
    """
    found = []
    if report.started.smoke:
        found.append("a smoke run: it shows that the recipe runs, and nothing else")
    if report.recipe.scale != "paper":
        found.append(f"the recipe itself: {report.recipe.scale}")
    if report.started.seeds != report.recipe.seeds:
        found.append(f"seeds: {report.started.seeds} instead of {report.recipe.seeds}")
    return [*found, *_changes(report)]


def environments(report: Report) -> list[tuple[str, ...]]:
    """Where runs were started, and how many; a line in the order of `PLACES`."""
    places: Counter[tuple[str, str, str]] = Counter()
    for _, run in report.runs:
        world = str(run.config.world)
        here = {(_hardware(at), _software(at), world) for at in run.starts}
        places.update(sorted(here))
    return [(*place, str(count)) for place, count in places.items()]


def commands(report: Report) -> list[str]:
    """The commands that started runs, each once."""
    starts = (start for _, run in report.runs for start in run.starts)
    return list(dict.fromkeys(_command(start) for start in starts))


def _changes(report: Report) -> list[str]:
    changes: Counter[tuple[str, str, str]] = Counter()
    total = 0
    for arm, run in report.runs:
        total += 1
        mine = run.config.experiment
        for name in differences(mine, arm.own):
            stored, own = (_shown(getattr(one, name)) for one in (mine, arm.own))
            changes[name, stored, own] += 1
    return [
        f"{name}: {stored} instead of {own}"
        + (f", in {count} of {total} runs" if count < total else "")
        for (name, stored, own), count in changes.items()
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hardware(start: dict[str, Any]) -> str:
    known = (start.get("gpu"), start.get("machine"))
    cores = f"{start.get('cores', '?')} cores, {start.get('threads', '?')} threads"
    return ", ".join([*(str(one) for one in known if one), cores])


def _software(start: dict[str, Any]) -> str:
    names = {"flatmin": "flatmin", "torch": "torch", "python": "Python"}
    versions = [f"{name} {start.get(key, '?')}" for key, name in names.items()]
    return ", ".join([*versions, str(start.get("platform", "?"))])


def _command(start: dict[str, Any]) -> str:
    """As typed, but for where the program is."""
    program, *arguments = map(str, start.get("command") or ["?"])
    name = PurePath(program).name
    return shlex.join(["flatmin" if name == "__main__.py" else name, *arguments])
