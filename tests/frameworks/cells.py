"""Run the cells of one module in this process and write what they say as JSON.

python -m tests.frameworks.cells MODULE OUT [--methods NAME ...] [--columns NAME ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from tests.distributed.ranks import Ranks
from tests.frameworks.hosts import hosts_of
from tests.frameworks.judge import ALL_COLUMNS, REFUSED, Host, judge
from tests.frameworks.scenario import COLUMNS, METHODS, Scenario

#: What tells most in little time, with SAM: where trainers have gone wrong.
QUICK = ["plain loop", "clip norm", "accumulate 2", "resume", *ALL_COLUMNS[-2:]]


@dataclass(frozen=True)
class Cell:
    """One cell, and the versions it was run with."""

    host: str
    method: str
    column: str
    mark: str
    note: str
    expected: str
    versions: dict[str, str]

    @property
    def fine(self) -> bool:
        """Whether it has the mark it must have, and says why if it is a refusal."""
        said = self.mark != REFUSED or self.note.endswith(".")
        return self.mark == self.expected and said


def cells_of(
    module: str, methods: list[str], columns: list[str], ranks: Ranks | None = None
) -> list[Cell]:
    """Run the cells of a module; ``ranks``, if a column needs two processes."""
    return [
        cell(host, method, column, ranks)
        for host in hosts_of(module)
        for method in methods
        for column in columns
    ]


def with_ranks(module: str, methods: list[str], columns: list[str]) -> list[Cell]:
    """Run the cells of a module, with two processes for them."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = Ranks(Path(folder) / "meeting")
        try:
            return cells_of(module, methods, columns, ranks)
        finally:
            ranks.close()


def cell(host: Host, method: str, column: str, ranks: Ranks | None) -> Cell:
    verdict = judge(host, method, column, ranks)
    return Cell(
        host=host.name,
        method=method,
        column=column,
        mark=verdict.mark,
        note=verdict.note,
        expected=host.expects(method, column),
        versions={package: version(package) for package in host.packages},
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=[*METHODS])
    parser.add_argument("--columns", nargs="+", default=ALL_COLUMNS)
    chosen = parser.parse_args()
    # Trainers and old versions warn of what is none of our business.
    warnings.simplefilter("ignore")
    several = any(COLUMNS.get(c, Scenario()).processes > 1 for c in chosen.columns)
    collect = with_ranks if several else cells_of
    found = collect(chosen.module, chosen.methods, chosen.columns)
    chosen.out.write_text(json.dumps([asdict(c) for c in found]))


if __name__ == "__main__":
    main()
