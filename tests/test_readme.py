"""README.md and README.ja.md: what they show runs, and what they say is true."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement

from flatmin.experiments.cli.app import app
from flatmin.methods import METHODS
from tests.pages import (
    ADDRESS,
    PROJECT,
    ROOT,
    blocks,
    headings,
    links,
    numbers,
    sections,
    table,
)

ENGLISH = (ROOT / "README.md").read_text()
JAPANESE = (ROOT / "README.ja.md").read_text()
COMPARED = (ROOT / "benchmarks" / "results" / "compare.md").read_text()
COMMANDS = [
    line
    for page in (ENGLISH, JAPANESE)
    for block in blocks(page, "")
    for line in block.splitlines()
]
#: Words in English that are digits in Japanese.
WORDS = {"1": ("once",), "2": ("two",), "4": ("four",), "5": ("five",)}

both = pytest.mark.parametrize(
    "page", [ENGLISH, JAPANESE], ids=["README.md", "README.ja.md"]
)


def code(block: str) -> list[str]:
    """The lines of a block without comments, which may be translated."""
    return [line.partition("  #")[0] for line in block.splitlines()]


@both
def test_the_example_runs_and_takes_ten_lines(page: str) -> None:
    names: dict[str, Any] = {}
    (example,) = blocks(page, "python")
    exec(example, names)
    assert names["base"].param_groups[0]["sam_step"] == 10
    assert len([line for line in example.splitlines() if line]) == 10


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command: str) -> None:
    program, *words = shlex.split(command, comments=True)
    if program == "pip":
        wanted = words[-1].removeprefix("git+")
        wanted = f"flatmin @ git+{wanted}" if wanted.startswith("https") else wanted
        required = Requirement(wanted)
        assert required.url == f"git+{ADDRESS}"
        assert required.extras <= PROJECT["optional-dependencies"].keys()
        return
    assert program == "flatmin"
    group: Any = typer.main.get_command(app)
    assert group.commands[words[0]].make_context(words[0], words[1:]) is not None


def test_it_is_short() -> None:
    assert len(ENGLISH.splitlines()) < 120
    assert len(ENGLISH.split()) <= 900


@both
def test_it_reads_on_a_package_index(page: str) -> None:
    assert [link for link in links(page) if not link.startswith("https://")] == []


def test_it_says_which_versions_are_needed() -> None:
    badge = " | ".join(
        name.rpartition(" ")[2]
        for name in PROJECT["classifiers"]
        if re.search(r":: 3\.\d+$", name)
    )
    (torch,) = PROJECT["dependencies"]
    (python,) = re.findall(r"[\d.]+", PROJECT["requires-python"])
    for page in (ENGLISH, JAPANESE):
        assert f"[![Python {badge}]" in page
        assert {python, torch.partition(">=")[2]} <= set(numbers(sections(page)[1]))


def test_it_says_how_many_methods_there_are() -> None:
    assert f"[{len(METHODS)} methods]({ADDRESS}/blob/main/docs/choose.md)" in ENGLISH


def test_the_numbers_of_the_table_are_those_of_the_comparison() -> None:
    rows = table(ENGLISH, "setting |")
    assert 0 < len(rows) <= 6
    for setting, method, error, fewer, gradients in rows:
        found = COMPARED[COMPARED.index(f"{setting}: chosen") :]
        measured = {row[0]: row for row in table(found, "method")}
        own = measured[method.partition(" (")[0]]
        assert [error, fewer] == own[5:7]
        assert gradients == f"{own[8]} x"


def test_the_best_sgd_is_the_one_that_others_are_compared_with() -> None:
    for _, method, _, fewer, _ in table(ENGLISH, "setting |"):
        assert (fewer == "") == method.endswith("(the best SGD)")


def test_machine_and_command_stand_beside_the_table() -> None:
    machine, _, command = COMPARED.splitlines()[0].partition("; `flatmin")
    assert machine in " ".join(ENGLISH.split())
    assert f"Measured with `flatmin{command}" in ENGLISH


# The Japanese page is the English one.


def test_the_japanese_page_has_the_same_headings() -> None:
    levels = [[h.split()[0] for h in headings(page)] for page in (ENGLISH, JAPANESE)]
    assert levels[0] == levels[1]


@pytest.mark.parametrize("language", ["python", ""])
def test_the_japanese_page_has_the_same_code(language: str) -> None:
    english, japanese = blocks(ENGLISH, language), blocks(JAPANESE, language)
    assert [code(block) for block in english] == [code(block) for block in japanese]
    comments = [block.count("  # ") for block in english]
    assert comments == [block.count("  # ") for block in japanese]


def test_the_japanese_page_has_the_same_links() -> None:
    there, back = f"{ADDRESS}/blob/main/README.ja.md", f"{ADDRESS}/blob/main/README.md"
    english = [back if link == there else link for link in links(ENGLISH)]
    assert Counter(english) == Counter(links(JAPANESE))


@pytest.mark.parametrize("k", range(len(headings(ENGLISH))))
def test_the_japanese_page_has_the_same_numbers(k: int) -> None:
    english, japanese = (sections(page)[k] for page in (ENGLISH, JAPANESE))
    ours, theirs = Counter(numbers(english)), Counter(numbers(japanese))
    assert ours - theirs == Counter()
    written = english.split()
    for number in theirs - ours:
        assert any(word in written for word in WORDS.get(number, ())), number


@pytest.mark.parametrize(
    ("english", "japanese"),
    [
        ("setting |", "設定 |"),
        ("your problem |", "課題 |"),
        ("promise |", "約束 |"),
    ],
)
def test_the_japanese_page_has_the_same_tables(english: str, japanese: str) -> None:
    ours, theirs = table(ENGLISH, english), table(JAPANESE, japanese)
    assert len(ours) == len(theirs)
    for row, translated in zip(ours, theirs, strict=True):
        assert links("".join(row)) == links("".join(translated))
        if english == "setting |":
            cells = zip(row, translated, strict=True)
            assert all(numbers(a) == numbers(b) for a, b in cells)
        else:
            assert set(numbers("".join(row))) <= set(numbers("".join(translated)))
