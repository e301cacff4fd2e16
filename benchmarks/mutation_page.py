"""The page of a mutation run: counts, and every survivor with its reason."""

from __future__ import annotations

import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from machine import machine
from mutants import Mutant

REASONS = Path(__file__).with_name("mutation_survivors.toml")
KINDS = ("killed", "survived", "invalid", "not run")


def page(
    mutants: list[Mutant], results: dict[str, dict[str, Any]], known: set[str]
) -> str:
    """Write the page in Markdown; mutants that were not run are counted as such.

    Args:
        mutants: those to count, which may be a sample.
        results: by key.
        known: the keys of all mutants.
    """
    found = {m.key: results.get(m.key, {}).get("outcome", "not run") for m in mutants}
    left = [m for m in mutants if found[m.key] == "survived"]
    broken = [m for m in mutants if found[m.key] == "invalid"]
    why = reasons()
    parts = [machine(), _counts(mutants, found), _without(mutants, found, set(why))]
    _check_reasons(known, {m.key for m in mutants}, {m.key for m in left})
    if left:
        rows = [[*_cells(m), why.get(m.key, "**not explained**")] for m in left]
        head = ["survivor", "defect", "line", "why"]
        parts += ["## Survivors", _table(head, rows)]
    if broken:
        rows = [_cells(m) for m in broken]
        head = ["not importable", "defect", "line"]
        parts += ["## Invalid", _table(head, rows)]
    return "\n\n".join(parts)


def _counts(mutants: list[Mutant], found: dict[str, str]) -> str:
    files = list(dict.fromkeys(m.file for m in mutants))
    rows = [_row(file, [m for m in mutants if m.file == file], found) for file in files]
    head = ["file", "mutants", *KINDS, "score"]
    return _table(head, [*rows, _row("all", mutants, found)])


def _row(name: str, some: list[Mutant], found: dict[str, str]) -> list[str]:
    """Return the cells of a row; the score is over killed and survived mutants."""
    n = Counter(found[m.key] for m in some)
    run = n["killed"] + n["survived"]
    score = f"{100 * n['killed'] / run:.1f} %" if run else "-"
    return [name, str(len(some)), *[str(n[kind]) for kind in KINDS], score]


def _without(mutants: list[Mutant], found: dict[str, str], named: set[str]) -> str:
    """Say how many are killed of those that a test could notice."""
    n = Counter(found[m.key] for m in mutants)
    same = sum(found[m.key] == "survived" and m.key in named for m in mutants)
    run = n["killed"] + n["survived"] - same
    if not run:
        return "None was run."
    return (
        f"{same} of the survivors change the speed or nothing. Of the other {run:,}, "
        f"{100 * n['killed'] / run:.1f} % are killed."
    )


def _cells(mutant: Mutant) -> list[str]:
    source = mutant.source.replace("|", "\\|")
    return [f"{mutant.file}:{mutant.edit.line}", mutant.edit.kind, f"`{source}`"]


def reasons() -> dict[str, str]:
    """Return why a mutant may survive, by its key."""
    table = tomllib.loads(REASONS.read_text())
    return {key: why for why, keys in table.items() for key in keys}


def _check_reasons(known: set[str], shown: set[str], survived: set[str]) -> None:
    """Report reasons of mutants that are killed, or that there are not, on stderr."""
    named = reasons().keys()
    for key in named & shown - survived:
        print(f"{REASONS.name}: {key} is killed", file=sys.stderr)
    for key in named - known:
        print(f"{REASONS.name}: {key} is no mutant", file=sys.stderr)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
