"""How runs differ from the paper's, and on which machines they ran."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import PurePath
from typing import Any

from flatmin.experiments.report._numbers import Report
from flatmin.experiments.report._runs import differences
from flatmin.experiments.report._words import setting, shown
from flatmin.experiments.runs.asked import Asked

#: Columns of `environments`.
PLACES = ("hardware", "software", "processes", "runs")

_SMOKE = "A smoke run, a few steps on made-up data: its numbers are no results."

#: Differences that the summary names.
_MOST = 4


def warning(report: Report) -> str:
    """Return the warning that numbers mean nothing, if there are smoke runs."""
    return _SMOKE if any(row.smoke for row in report.rows) else ""


def summary(report: Report) -> str:
    """Say in one line how the runs differ from the paper's."""
    found = scale(report)
    more = f"; and {len(found) - _MOST} more, below" if len(found) > _MOST else ""
    words = f"Differs from the paper: {'; '.join(found[:_MOST])}{more}."
    return warning(report) or (words if found else "At the paper's scale.")


def scale(report: Report) -> list[str]:
    """List how these runs differ from the paper's.

    Stored experiments are compared with the recipe's own, field by field.
    """
    found = []
    if report.recipe.scale != "paper":
        found.append(f"the recipe itself: {report.recipe.scale}")
    return [*found, *_seeds(report), *_changes(report)]


def environments(report: Report) -> list[tuple[str, ...]]:
    """Count the runs that were started in each place; the columns are `PLACES`."""
    places: Counter[tuple[str, str, str]] = Counter()
    for _, run in report.runs:
        world = str(run.config.world)
        here = {(_hardware(at), _software(at), world) for at in run.starts}
        places.update(sorted(here))
    return [(*place, str(count)) for place, count in places.items()]


def commands(report: Report) -> list[str]:
    """List the commands that started runs, each once, or else the one asked for."""
    starts = (start for _, run in report.runs for start in run.starts)
    return list(dict.fromkeys(map(_command, starts))) or [_asked(report.started)]


def _seeds(report: Report) -> list[str]:
    asked = {row.seeds for row in report.rows if row.started}
    part = ", in part" if len(asked) > 1 else ""
    own = report.recipe.seeds
    return [
        f"{setting('seeds', seeds)} instead of {own}{part}"
        for seeds in sorted(asked - {own})
    ]


def _changes(report: Report) -> list[str]:
    changes: Counter[tuple[str, str]] = Counter()
    total = 0
    for arm, run in report.runs:
        total += 1
        mine = run.config.experiment
        for name in differences(mine, arm.own):
            own = shown(getattr(arm.own, name), name)
            changes[setting(name, getattr(mine, name)), own] += 1
    return [
        f"{stored} instead of {own}"
        + (f", in {count} of {total} runs" if count < total else "")
        for (stored, own), count in changes.items()
    ]


def _hardware(start: dict[str, Any]) -> str:
    known = (start.get("gpu"), start.get("machine"))
    cores = f"{start.get('cores', '?')} cores, {start.get('threads', '?')} threads"
    return ", ".join([*(str(one) for one in known if one), cores])


def _software(start: dict[str, Any]) -> str:
    names = {"flatmin": "flatmin", "torch": "torch", "python": "Python"}
    versions = [f"{name} {start.get(key, '?')}" for key, name in names.items()]
    return ", ".join([*versions, str(start.get("platform", "?"))])


def _command(start: dict[str, Any]) -> str:
    """Return a command as typed, without the program's folder."""
    program, *arguments = map(str, start.get("command") or ["?"])
    name = PurePath(program).name
    return shlex.join(["flatmin" if name == "__main__.py" else name, *arguments])


def _asked(started: Asked) -> str:
    settings = (word for one in started.settings for word in ("--set", one))
    smoke = ["--smoke"] if started.smoke else []
    part = started.part or started.recipe
    return shlex.join(["flatmin", "train", part, *settings, *smoke])
