"""The command line: what it prints and writes, and what it says to bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flatmin.conformance import Adapter, load_adapter
from flatmin.conformance._cli import main

OURS = "flatmin.conformance.ours:sam"
TWO_CALL = "tests.conformance.peers.two_call:sam"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("flatmin", "'module:attribute'"),
        ("no.such.module:sam", "No module named 'no'"),
        ("flatmin.conformance.ours:nothing", "has no attribute 'nothing'"),
        ("flatmin.conformance.ours:build", "is a function, not a"),
        ("tests.conformance.explodes:sam", "boom"),
    ],
)
def test_an_adapter_that_is_none(
    capsys: pytest.CaptureFixture[str], argument: str, why: str
) -> None:
    assert why in refused(capsys, argument)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "MODULE:ADAPTER"),
        ([OURS, OURS], "two adapters are named 'flatmin'"),
        ([OURS, "--only", "T2,X9"], "no check 'X9'; there are C1, C2"),
        ([OURS, "--only", "T2,T2"], "'T2' twice"),
        ([OURS, "--markdown", "/no/such/folder/table.md"], "cannot write to"),
        ([OURS, "--json", "/"], "cannot write to"),
    ],
)
def test_a_bad_argument(
    capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert why in refused(capsys, *arguments)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([OURS, TWO_CALL, "--only", "C2,C12,C19"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["check", "flatmin", "two-call", "pattern"]
    assert lines[1].startswith("C2 ")
    assert lines[1].split()[-4:] == ["pass", "0", "fail", "1"]
    assert lines[3].split()[-3:] == ["0", "fail", "0.25"]
    assert "C12, two-call pattern: step(closure) returned NoneType" in lines


def test_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, figures = tmp_path / "table.md", tmp_path / "figures.json"
    files = ["--markdown", str(table), "--json", str(figures)]
    assert main([OURS, TWO_CALL, "--only", "T2,C14", *files]) == 0
    capsys.readouterr()
    text = table.read_text()
    assert "--only T2,C14" in text.splitlines()[0]
    assert "| check | flatmin | two-call pattern |" in text
    assert (
        "| T2 one step on a quadratic is w - lr A(w + rho g/\\|\\|g\\|\\|) | " in text
    )
    records = json.loads(figures.read_text())
    assert [r["verdict"] for r in records] == ["pass", "pass", "pass", "fail"]
    assert records[-1]["figure"] == "inf"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figures.json",
        "table.md",
    ]


@pytest.mark.parametrize(("only", "status"), [("T2", 0), ("T2,C2", 1)])
def test_strict(only: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([TWO_CALL, "--only", only, "--strict"]) == status
    assert capsys.readouterr().out


@pytest.mark.everything
def test_the_module_runs_as_a_program_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    lines = [
        "from dataclasses import replace",
        "from flatmin.conformance import ours",
        "mine = replace(ours.sam, name='mine')",
    ]
    (tmp_path / "own.py").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "flatmin.conformance", "own:mine", "--only", "T2,C4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[:2] == ["check", "mine"]
    assert done.stdout.count("pass") == 2


def test_an_adapter_is_loaded_by_its_name() -> None:
    assert isinstance(load_adapter(OURS), Adapter)
