"""What trainers make of flatmin: every cell of the matrix, in one run.

Prints the matrix and writes it, with versions and reasons, as a page of the
documentation. Frameworks that are not installed are fetched into a temporary folder.

    python benchmarks/frameworks.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.frameworks.cells import QUICK, Cell  # noqa: E402
from tests.frameworks.hosts import APART, MODULES  # noqa: E402
from tests.frameworks.judge import ALL_COLUMNS  # noqa: E402
from tests.frameworks.versions import NEWEST, install, run  # noqa: E402

LEGEND = """\
| mark | what it says |
| --- | --- |
| = | the same as in a loop by hand, bit for bit |
| ≈ | the same up to 1e-6 of its size; the note gives the distance |
| R | refused, with a sentence that says what to write instead |
| - | the trainer does not have it |
| **X** | something else, without a word: a defect |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one row, nothing fetched")
    page = ROOT / "docs" / "frameworks-table.md"
    parser.add_argument("--out", type=Path, default=page, metavar="PATH")
    chosen = parser.parse_args()
    began = time.perf_counter()
    cells = smoke() if chosen.smoke else everything()
    head = f"{machine()}; {time.perf_counter() - began:.0f} s."
    text = [*table(cells), "", *notes(cells)]
    print("\n".join([head, "", *text]))
    if not chosen.smoke:
        parts = [
            "# Frameworks table",
            "",
            head,
            *versions(cells),
            "",
            LEGEND,
            "",
            *text,
        ]
        chosen.out.write_text("\n".join(parts) + "\n")
    if wrong := [cell for cell in cells if not cell.fine]:
        sys.exit(f"{len(wrong)} cells are not what the matrix says they are")


def smoke() -> list[Cell]:
    return run("loop", "--methods", "sam", "--columns", *QUICK)


def everything() -> list[Cell]:
    cells: list[Cell] = []
    for module in [*MODULES, *APART]:
        with tempfile.TemporaryDirectory() as name:
            needed = NEWEST.get(module)
            folder = None if needed is None else install(needed, Path(name))
            cells += run(module, folder=folder)
    return cells


def table(cells: list[Cell]) -> list[str]:
    """Write a line for each host and method."""
    found = {(c.host, c.method, c.column): c for c in cells}
    rows = dict.fromkeys((c.host, c.method) for c in cells)
    columns = [
        column for column in ALL_COLUMNS if any(c.column == column for c in cells)
    ]
    numbers = {text: k + 1 for k, text in enumerate(reasons(cells))}
    lines = [["framework", "method", *columns], ["---"] * (2 + len(columns))]
    for host, method in rows:
        marks = [mark(found[host, method, column], numbers) for column in columns]
        lines.append([host, method, *marks])
    return [f"| {' | '.join(line)} |" for line in lines]


def mark(cell: Cell, numbers: dict[str, int]) -> str:
    shown = cell.mark if cell.fine else f"**{cell.mark}**"
    return f"{shown} ({numbers[cell.note]})" if cell.note else shown


def reasons(cells: list[Cell]) -> list[str]:
    """List the notes about marks, each once."""
    return list(dict.fromkeys(cell.note for cell in cells if cell.note))


def notes(cells: list[Cell]) -> list[str]:
    texts = (" ".join(text.split()) for text in reasons(cells))
    return [f"{k}. {escaped(text)}" for k, text in enumerate(texts, 1)]


def escaped(text: str) -> str:
    """Escape a sentence, so that Markdown finds no markup in it."""
    for sign in "\\`*_<>[]|":
        text = text.replace(sign, f"\\{sign}")
    return text


def versions(cells: list[Cell]) -> list[str]:
    found = {name: number for c in cells for name, number in c.versions.items()}
    return [f"{name} {number}." for name, number in sorted(found.items())]


if __name__ == "__main__":
    main()
