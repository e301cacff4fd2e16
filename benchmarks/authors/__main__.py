"""The authors' own optimizers beside flatmin's methods: do the weights agree?

Both train the same small network in float64, from the same weights on the same batches,
with SGD (momentum 0.9, no weight decay), 10 steps. The table has the largest difference
of a weight at the end. Where the two differ by design there are two rows: as they are,
and with that one thing switched, which has to close the gap.

The authors' code is not here: it is read from a folder of checkouts, OWNER/NAME each,
and a repository that is missing is listed as absent. Most of their files are training
scripts, which load data sets when they are imported; therefore only the optimizer is
taken out of the file and run. Read what you check out before you run it.

    python benchmarks/authors --checkouts DIR > benchmarks/results/authors.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import balls
import directions
import instants
import mixtures
import places
import plain
import selected
import torch
from comparison import EQUAL, Row, compare

sys.path.append(str(Path(__file__).resolve().parents[1]))
from machine import machine

ROWS = [
    *plain.ROWS,
    *balls.ROWS,
    *directions.ROWS,
    *mixtures.ROWS,
    *places.ROWS,
    *instants.ROWS,
    *selected.ROWS,
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkouts", type=Path, required=True, metavar="DIR")
    checkouts = parser.parse_args().checkouts
    torch.set_num_threads(1)
    print(machine() + "\n")
    print("| method | authors' code | set or patched | largest difference | remark |")
    print("| --- " * 5 + "|")
    effects: list[float] = []
    for row in ROWS:
        print(line(row, checkouts / row.repository, effects))
    if effects:
        print(
            f"\nFor scale: the runs of flatmin end {min(effects):.0e} or more away "
            "from where plain SGD ends."
        )


def line(row: Row, folder: Path, effects: list[float]) -> str:
    """Write the row of the table, even if the authors' code is absent."""
    if not folder.is_dir():
        return f"| {row.method} | {row.repository} | | absent | |"
    try:
        gap, effect = compare(row, folder)
    except ImportError as error:
        return f"| {row.method} | {row.repository} | | needs {error.name} | |"
    effects.append(effect)
    verdict = "equal" if gap < EQUAL else "differs"
    return (
        f"| {row.method} | {row.repository}@{commit(folder)} | {row.set_} "
        f"| {gap:.1e}, {verdict} | {row.remark} |"
    )


def commit(folder: Path) -> str:
    """Read the commit from a file COMMIT, or ask git."""
    if (folder / "COMMIT").exists():
        return (folder / "COMMIT").read_text()[:7]
    if not (folder / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.check_output(command, text=True)[:7]


if __name__ == "__main__":
    main()
