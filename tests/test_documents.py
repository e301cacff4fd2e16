"""Pages of the documentation whose examples are run in order, and what they list."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments.cli.app import COMMANDS

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```\{(testsetup|testcode|testoutput)\}\n(.*?)```", re.DOTALL)


# peft asks transformers for a property that it has renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize(
    "page", ["did-not-help.md", "lora.md", "loop/losses.md", "write-a-method.md"]
)
def test_the_examples_of_a_page_print_what_it_says(page: str) -> None:
    blocks = BLOCK.findall((DOCS / page).read_text())
    code = [text for kind, text in blocks if kind != "testoutput"]
    said = [text for kind, text in blocks if kind == "testoutput"]
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for text in code:
            exec(text, names)
    assert said
    assert printed.getvalue() == "".join(said)


def test_the_front_page_has_the_ten_lines_of_the_readme() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    first = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    assert BLOCK.findall((DOCS / "index.md").read_text()) == [("testcode", first)]


@pytest.mark.parametrize("page", ["index.md", "start.md"])
def test_a_first_page_installs_as_the_readme_does(page: str) -> None:
    readme = (DOCS.parent / "README.md").read_text()
    first, *_ = re.findall(r"^pip install .*$", readme, re.MULTILINE)
    found = re.findall(r"^pip install .*$", (DOCS / page).read_text(), re.MULTILINE)
    assert found == [first]


def test_the_page_of_the_command_line_lists_every_command() -> None:
    page = (DOCS / "api/cli.md").read_text()
    listed = re.findall(r"^\| `flatmin (\w+)` \|", page, re.MULTILINE)
    assert {*listed} == {command.__name__ for command in COMMANDS}
