"""The two tiers of the suite; what each holds must not change unseen."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from flatmin.methods import METHODS
from tests.registry import BASES
from tests.tiers import KINDS, PRODUCTS, SLOW

ROOT = Path(__file__).parents[1]
BASE, REFERENCE = "tests/optim/test_base.py", "tests/optim/test_reference.py"
PLACES = {"tests/methods", *(s.partition("::")[0] for s in (*PRODUCTS, *SLOW))}

#: Prints for each test its tier, the method it is for, and its name.
COLLECT = """
import sys, pytest

class Tiers:
    def pytest_collection_finish(self, session):
        for item in session.items:
            tier = item.get_closest_marker("everything")
            callspec = getattr(item, "callspec", None)
            method = callspec and callspec.params.get("name")
            print(tier.name if tier else "quick", method, item.nodeid, sep="\t")

flags = ["--collect-only", "-qq", "-p", "no:cacheprovider", "-p", "no:cov"]
sys.exit(pytest.main([*flags, *sys.argv[1:]], plugins=[Tiers()]))
"""


@cache
def collected() -> list[tuple[str, str, str]]:
    """Tier, method and name of tests."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, *sorted(PLACES), BASE, REFERENCE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # pytest prints lines of its own.
    lines = [line.split("\t", 2) for line in done.stdout.splitlines() if "\t" in line]
    return [(tier, method, test) for tier, method, test in lines]


def names(tier: str, beginning: str = "") -> list[str]:
    """The tests of a tier whose names begin so."""
    return [n for t, _, n in collected() if t == tier and n.startswith(beginning)]


def methods(tier: str, file: str) -> set[str]:
    """The methods that a file goes through in a tier."""
    found = {m for t, m, n in collected() if t == tier and n.startswith(file)}
    return found & set(METHODS)


def test_every_line_of_the_table_still_stands_for_tests() -> None:
    for beginning in (*PRODUCTS, *SLOW):
        assert names("everything", beginning), beginning


def test_the_kinds_are_methods() -> None:
    assert set(KINDS.values()) < set(METHODS)


def test_a_product_is_quick_for_one_method_of_each_kind() -> None:
    kinds = set(KINDS.values())
    for file in PRODUCTS:
        assert methods("quick", file) == kinds, file
        assert methods("everything", file) == set(METHODS) - kinds, file


def test_the_formula_of_every_method_is_quick() -> None:
    quick = " ".join(names("quick"))
    files = [*ROOT.glob("tests/methods/test_reference_*.py")]
    files.append(ROOT / REFERENCE)
    bodies = [body for file in files for body in file.read_text().split("\ndef ")[1:]]
    for method in METHODS:
        called = re.compile(rf"\b{'SAM' if method == 'sam' else method}\b")
        tests = [body.partition("(")[0] for body in bodies if called.search(body)]
        assert any(f"::{test}" in quick for test in tests), method


def test_every_base_is_quick() -> None:
    for base in BASES:
        assert any(f"[{base.name}" in test for test in names("quick", BASE)), base.name
