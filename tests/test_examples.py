"""Pairs of programs under ``examples``: each runs, is short, and SAM adds few lines."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAIRS = sorted(folder for folder in EXAMPLES.iterdir() if (folder / "sam.py").exists())
PROGRAMS = [folder / name for folder in PAIRS for name in ("plain.py", "sam.py")]

#: What `make test` runs; the others start slowly, or are without flatmin.
QUICK = {"bare/sam.py"}
#: How many lines SAM may add to a program.
MOST = 6


def name_of(path: Path) -> str:
    return str(path.relative_to(EXAMPLES))


def code_of(program: Path) -> list[str]:
    """The lines that count: blank ones and indentation do not."""
    lines = (line.strip() for line in program.read_text().splitlines())
    return [line for line in lines if line]


def changes(pair: Path) -> tuple[int, int]:
    """How many lines SAM adds, and how many it removes."""
    plain, sam = code_of(pair / "plain.py"), code_of(pair / "sam.py")
    marks = [line[0] for line in difflib.ndiff(plain, sam)]
    return marks.count("+"), marks.count("-")


def command(program: Path) -> list[str]:
    """As the docstring says: by itself, or in two processes."""
    if "torchrun" not in program.read_text().split('"""')[1]:
        return [sys.executable, str(program)]
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [sys.executable, *run, str(program)]


def run(program: Path, folder: Path) -> str:
    """What it prints on the CPU, in a process of its own and an empty folder."""
    source = str(ROOT / "src")
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    done = subprocess.run(
        command(program),
        cwd=folder,
        env={**os.environ, **alone},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def marked(program: Path) -> object:
    slow = [] if name_of(program) in QUICK else [pytest.mark.everything]
    return pytest.param(program, id=name_of(program), marks=slow)


@pytest.mark.parametrize("program", [*map(marked, PROGRAMS)])
def test_it_runs_and_ends_with_a_small_test_error(
    program: Path, tmp_path: Path
) -> None:
    printed = run(program, tmp_path).strip().splitlines()
    found = re.search(r"test error (\d+\.\d+) %$", printed[-1])
    assert found, printed
    assert float(found[1]) < 10


@pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
def test_it_is_short(program: Path) -> None:
    assert len(program.read_text().splitlines()) < 60


@pytest.mark.parametrize("pair", PAIRS, ids=name_of)
def test_sam_adds_few_lines(pair: Path) -> None:
    added, removed = changes(pair)
    assert 0 < added <= MOST
    assert removed <= added


@pytest.mark.parametrize("pair", PAIRS, ids=name_of)
def test_the_table_has_the_lines_that_change(pair: Path) -> None:
    added, removed = changes(pair)
    row = rf"^\| \[{pair.name}\]\({pair.name}\) \| .+ \| {added} \| {removed} \|$"
    assert re.search(row, (EXAMPLES / "README.md").read_text(), re.M), (
        f"examples/README.md needs the row "
        f"| [{pair.name}]({pair.name}) | what it shows | {added} | {removed} |"
    )


def test_the_page_of_trainers_has_the_same_numbers() -> None:
    page = (ROOT / "docs" / "frameworks.md").read_text()
    rows = re.findall(r"\| (\d+) \| (\d+) \| `examples/(\w+)` \|$", page, re.M)
    assert {"bare", "lightning", "transformers"} <= {name for *_, name in rows}
    for added, removed, name in rows:
        assert (int(added), int(removed)) == changes(EXAMPLES / name), name


def test_every_folder_is_a_pair() -> None:
    folders = {path.parent for path in EXAMPLES.glob("*/*.py")}
    assert {"bare", "amp", "accumulation", "ddp", "fsdp2"} <= {f.name for f in folders}
    assert folders == set(PAIRS)
    assert all(program.exists() for program in PROGRAMS)


def test_indentation_and_blank_lines_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("a = 1\nb = 2\nc = 3\n")
    (tmp_path / "sam.py").write_text("a = 1\n\nfor _ in x:\n    b = 2\n    c = 4\n")
    assert changes(tmp_path) == (2, 1)
