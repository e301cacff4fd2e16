"""docs/tutorial.md runs and prints what it says; what is made of it is in step.

The page is run once, in order. The Japanese page and the notebook have the same code,
and the pictures were drawn from the same numbers.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments.recipes import recipe

DOCS = Path(__file__).parents[1] / "docs"
ENGLISH = (DOCS / "tutorial.md").read_text()
JAPANESE = (DOCS / "tutorial.ja.md").read_text()


def script(name: str) -> Any:
    """A program of the documentation as a module."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), DOCS / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebook = script("notebook.py")
pictures = script("pictures/tutorial.py")

FENCED = re.compile(r"^```.*?^```", re.M | re.S)
DISPLAYED = re.compile(r"^\$\$\n(.*?)^\$\$", re.M | re.S)
NUMBER = re.compile(r"\d+\.\d+")


@pytest.fixture(scope="module")
def ran() -> tuple[list[str], dict[str, Any]]:
    """What each block prints, and the names that all of them leave."""
    names: dict[str, Any] = {}
    printed: list[str] = []
    for code, _ in notebook.blocks(ENGLISH):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, names)
        printed.append(out.getvalue())
    return printed, names


def of_training(texts: list[str]) -> str:
    """What the block prints whose numbers depend on the machine."""
    [text] = [text for text in texts if "test error" in text]
    return text


def columns(printed: str) -> list[tuple[float, ...]]:
    """Train error, test error, sharpness and worst sharpness of the runs."""
    rows = [[float(n) for n in NUMBER.findall(row)] for row in printed.splitlines()]
    return list(zip(*rows, strict=True))


def test_the_page_prints_what_it_says(ran: tuple[list[str], Any]) -> None:
    said = [text for _, text in notebook.blocks(ENGLISH)]
    assert sum(map(bool, said)) == 6
    differ = [t for t in zip(said, ran[0], strict=True) if t[0] != t[1]]
    assert [printed for _, printed in differ] in ([], [of_training(ran[0])])


def test_training_prints_about_what_the_page_says(ran: tuple[list[str], Any]) -> None:
    said = of_training([text for _, text in notebook.blocks(ENGLISH)])
    printed = of_training(ran[0])
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", said)
    train, test, *sharpness = columns(printed)
    expected = columns(said)
    assert train == pytest.approx(expected[0], abs=8)
    assert test == pytest.approx(expected[1], abs=8)
    for measured, before in zip(sharpness, expected[2:], strict=True):
        assert measured == pytest.approx(before, rel=0.6)


def test_the_run_shows_what_the_page_says_of_it(ran: tuple[list[str], Any]) -> None:
    train, test, sharp, worst = columns(of_training(ran[0]))
    sgd, twice, sam, short = range(4)
    assert train[twice] < 1
    assert test[sam] < test[sgd] - 5
    assert test[sam] < test[twice] - 5
    assert test[short] < test[sgd] - 5
    assert min(sharp) == sharp[sam]
    assert min(worst) == worst[sam]
    assert max(sharp) == sharp[short]


def test_each_picture_was_drawn_by_the_script_and_from_these_numbers(
    ran: tuple[Any, dict[str, Any]],
) -> None:
    numbers = pictures.numbers(ran[1])
    assert numbers.keys() == pictures.PICTURES.keys()
    for name, expected in numbers.items():
        origin = pictures.origin((DOCS / "images" / name).read_text())
        assert origin["version"] == pictures.version(), (
            f"{name} is not of this docs/pictures/tutorial.py: run it"
        )
        rel, absolute = (0.4, 0.1) if "landscapes" in name else (0, 1e-3)
        close = pytest.approx(expected, rel=rel, abs=absolute)
        assert origin["numbers"] == close, name


def test_the_highest_points_are_on_the_surfaces_that_are_drawn() -> None:
    for p in pictures.BALLS:
        surface = pictures.surface(p)
        size = surface.abs().amax(0) if p > 2 else (surface.abs() ** p).sum(0)
        assert size.tolist() == pytest.approx([1.0] * len(size))


def test_the_notebook_is_that_of_the_page() -> None:
    written = notebook.NOTEBOOK.read_text()
    assert written == notebook.written(ENGLISH), "run python docs/notebook.py"
    cells = json.loads(written)["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    assert code == [code.rstrip("\n") for code, _ in notebook.blocks(ENGLISH)]
    assert len({cell["id"] for cell in cells}) == len(cells)


def test_the_links_of_the_notebook_lead_somewhere() -> None:
    cells = json.loads(notebook.NOTEBOOK.read_text())["cells"]
    prose = "".join("".join(c["source"]) for c in cells if c["cell_type"] != "code")
    links = {link.partition("#")[0] for link in notebook.LINK.findall(prose)}
    assert {"../../docs/compare.md", "../../docs/images/tutorial-balls.svg"} <= links
    folder = notebook.NOTEBOOK.parent
    assert [link for link in links if not (folder / link).exists()] == []


def parsed(page: str) -> list[tuple[str, str]]:
    """Code and output of each block, without comments."""
    return [(ast.dump(ast.parse(c)), out) for c, out in notebook.blocks(page)]


def commands(page: str) -> list[str]:
    """The lines for a shell, without comments."""
    [block] = re.findall(r"^```\n(flatmin.*?)^```", page, re.M | re.S)
    return [line.partition("#")[0].strip() for line in block.splitlines()]


def prose(page: str) -> str:
    """The page without blocks and displayed formulas."""
    return DISPLAYED.sub("", FENCED.sub("", page))


def inline(page: str) -> list[str]:
    """Formulas within sentences, whose order is that of the language."""
    found = re.findall(r"\$(.+?)\$", prose(page), re.S)
    return sorted(" ".join(formula.split()) for formula in found)


def targets(page: str) -> list[str]:
    """Where links and pictures lead, the other language aside."""
    found = re.findall(r"\]\(([^)]+)\)", prose(page))
    return [t for t in found if not t.startswith("tutorial.")]


@pytest.mark.parametrize("part", [parsed, commands, inline, targets, DISPLAYED.findall])
def test_both_languages_have_the_same(part: Any) -> None:
    assert part(ENGLISH)
    assert part(JAPANESE) == part(ENGLISH)


def test_both_languages_have_the_same_headings() -> None:
    levels = [re.findall(r"^(#+) (\d*)", prose(p), re.M) for p in (ENGLISH, JAPANESE)]
    assert len(levels[0]) == 11
    assert levels[0] == levels[1]


def test_every_recipe_that_is_named_is_there() -> None:
    named = re.findall(r"flatmin (?:recipes|train) ([a-z][\w/-]*)", ENGLISH)
    assert {"table4", "table4/noise-40/sam", "table4/noise-40/sgd"} <= set(named)
    for name in named:
        assert recipe(name).cells
