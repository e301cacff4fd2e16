"""The command line of the suite."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from flatmin.conformance import _table
from flatmin.conformance._adapter import Adapter, load_adapter
from flatmin.conformance._check import Check
from flatmin.conformance._suite import CHECKS, run

STATUS = """\
exit status: 0 if the table was made, whatever it says; with --strict 1 if a check
failed; 2 if an argument is wrong."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the adapters, print the table, write the files.

    Returns:
        The exit status.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        adapters = _distinct([load_adapter(where) for where in chosen.adapters])
        checks = _checks(chosen.only)
        for path in (chosen.markdown, chosen.json):
            _check_writable(path)
    except (TypeError, ValueError) as wrong:
        parser.error(str(wrong))
    torch.set_num_threads(1)  # the problems are tiny
    columns = {adapter.name: run(adapter, checks) for adapter in adapters}
    print(_table.plain(checks, columns))  # noqa: T201 - it is a program
    if chosen.markdown is not None:
        _table.write(
            chosen.markdown, _table.markdown(checks, columns, [_made_by(arguments)])
        )
    if chosen.json is not None:
        records = _table.records(checks, columns)
        _table.write(chosen.json, json.dumps(records, indent=2) + "\n")
    failed = any(r.verdict == "fail" for results in columns.values() for r in results)
    return int(chosen.strict and failed)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m flatmin.conformance",
        description="Measure SAM-like optimizers: one row per check, one column each.",
        epilog=STATUS,
    )
    add = parser.add_argument
    add("adapters", nargs="+", metavar="MODULE:ADAPTER", help="what to measure")
    add("--markdown", type=Path, metavar="PATH", help="write the table as Markdown")
    add("--json", type=Path, metavar="PATH", help="write all figures and notes as JSON")
    add("--only", metavar="ID,ID", help="these checks alone")
    add("--strict", action="store_true", help="status 1 if a check failed")
    return parser


def _distinct(adapters: list[Adapter]) -> list[Adapter]:
    names = [adapter.name for adapter in adapters]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two adapters are named {name!r}; give one another name.")
    return adapters


def _checks(only: str | None) -> list[Check]:
    if only is None:
        return list(CHECKS)
    by_id = {check.id: check for check in CHECKS}
    ids = only.split(",")
    for id in ids:
        if id not in by_id:
            raise ValueError(f"no check {id!r}; there are {', '.join(by_id)}.")
        if ids.count(id) > 1:
            raise ValueError(f"--only names {id!r} twice; once is enough.")
    return [by_id[id] for id in ids]


def _check_writable(path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"cannot write to {path}: it needs an existing folder.")


def _made_by(arguments: Sequence[str] | None) -> str:
    command = " ".join(["python -m flatmin.conformance", *(arguments or sys.argv[1:])])
    return f"Python {platform.python_version()}, torch {torch.__version__}; `{command}`"
