"""The suite is tested too: for each named defect, the named test turns red."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "flatmin"

#: How pytest's summary reports a test whose assertion failed; an ImportError is none.
ASSERTION = re.compile(r"^FAILED .* - (AssertionError|assert |Failed: DID NOT)", re.M)

#: Runs tests against the package in a folder; gives exit code and output.
Run = Callable[[Path, list[str]], tuple[int, str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    # On CI, pytest shows the whole difference of what was compared: minutes, at times.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"CI", "BUILD_NUMBER"} and not name.startswith("COV")
    }
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.mutants.server"],
        cwd=ROOT,
        env={**inherited, **alone},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        requests, answers = server.stdin, server.stdout
        assert requests is not None
        assert answers is not None

        def ask(folder: Path, tests: list[str]) -> tuple[int, str]:
            requests.write(json.dumps([str(folder), tests]) + "\n")
            requests.flush()
            code, output = json.loads(answers.readline())
            return code, output

        yield ask


def copied(folder: Path) -> Path:
    package = folder / "flatmin"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE, package, ignore=ignored)
    return package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all defects, so that only the file with the defect is compiled."""
    return copied(tmp_path_factory.mktemp("copy"))


def write(path: Path, text: str) -> None:
    """The bytecode goes as well: it is told from the text by size and second."""
    path.write_text(text)
    for old in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        old.unlink()


@contextmanager
def applied(mutant: Mutant, package: Path) -> Iterator[None]:
    path = package / mutant.file
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: {mutant.file} has changed"
    write(path, text.replace(mutant.old, mutant.new))
    try:
        yield
    finally:
        write(path, text)


def folder_of(test: str) -> str:
    """The folder of a test, whose tests share what takes long to start."""
    return test.partition("::")[0].rpartition("/")[0]


@pytest.mark.parametrize("folder", sorted({folder_of(m.test) for m in MUTANTS}))
def test_without_a_defect_every_named_test_is_green(
    folder: str, run: Run, package: Path
) -> None:
    tests = sorted({m.test for m in MUTANTS if folder_of(m.test) == folder})
    code, output = run(package.parent, tests)
    assert code == 0, output
    assert f"{len(tests)} passed" in output


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_defect_turns_its_test_red(mutant: Mutant, run: Run, package: Path) -> None:
    with applied(mutant, package):
        code, output = run(package.parent, [mutant.test])
    assert code == 1, output
    assert ASSERTION.search(output), output


def test_a_run_that_imports_another_copy_is_an_error(run: Run, tmp_path: Path) -> None:
    code, output = run(tmp_path, [MUTANTS[0].test])
    assert code == 4
    assert "is imported, not" in output


def test_names_of_mutants_are_unique() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)


def once(mutant: Mutant) -> bool:
    """Whether the text that the defect replaces is there, once."""
    return (SOURCE / mutant.file).read_text().count(mutant.old) == 1


def collected(tests: set[str]) -> set[str]:
    """The tests that pytest finds in the files of these, by their whole names."""
    files = sorted({test.partition("::")[0] for test in tests})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", *files]
    found = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(found.stdout.splitlines())


def test_every_defect_can_be_made_and_has_its_test() -> None:
    assert [mutant.name for mutant in MUTANTS if not once(mutant)] == []
    tests = {mutant.test for mutant in MUTANTS}
    # With its parameters: a case that is added before it gives a test another number.
    assert tests - collected(tests) == set()
