"""Recipes by name, parts of them, and what a recipe refuses to be."""

import re
from dataclasses import replace

import pytest

from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput
from flatmin.experiments.recipes import RECIPES, Cell, Paper, Recipe, recipe

CELL = Cell("t/a", ("A",), (Experiment(),))
ONE = Recipe("t", "title", ("what",), (CELL,))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_name_it_is_found_by(name: str) -> None:
    assert recipe(name) == RECIPES[name]()
    assert recipe(name).name == name


def test_names_of_cells_are_unique_paths() -> None:
    names = [cell.name for name in RECIPES for cell in recipe(name).cells]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9.-]+(/[a-z0-9.-]+)+", name) for name in names)
    assert not any(".." in name for name in names)


@pytest.mark.parametrize(
    ("part", "cells"),
    [
        ("table1/cifar10", 30),
        ("table1/cifar10/", 30),
        ("table4/noise-40", 12),
        ("table4/noise-40/sam", 1),
        ("table2/resnet-50/100-epochs/sam", 2),
    ],
)
def test_a_part_is_the_cells_below_a_path(part: str, cells: int) -> None:
    found = recipe(part)
    assert len(found.cells) == cells
    above = f"{part.rstrip('/')}/"
    assert all(f"{cell.name}/".startswith(above) for cell in found.cells)
    whole = recipe(part.partition("/")[0])
    assert replace(found, cells=whole.cells) == whole


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tabel1", "unknown recipe 'tabel1'; did you mean 'table1'?"),
        ("table4/noise-4", "unknown cell 'table4/noise-4'; did you mean '.*noise-40'"),
        ("table1/cifar", "unknown cell 'table1/cifar'; did you mean 'table1/cifar10"),
        ("", "unknown recipe ''; known: table1, .*c5"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        recipe(name)


@pytest.mark.parametrize(
    "name", ["t", "t/", "/a", "t/../a", "t/A", "t/a b", "t//a", "t/.a", "t/a\n"]
)
def test_a_name_that_is_no_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a cell"):
        replace(CELL, name=name)
    with pytest.raises(ValueError, match="is no name of a cell"):
        replace(CELL, folder=name)


def test_a_folder_is_the_name_if_not_given() -> None:
    assert CELL.folder == "t/a"
    assert replace(CELL, folder="t/b").folder == "t/b"


def test_the_same_arm_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="t/a has the same arm twice"):
        replace(CELL, arms=(Experiment(), Experiment()))


def test_a_spectrum_that_is_not_measured_is_refused() -> None:
    measured = Experiment(spectrum_at=(1, 5))
    assert replace(CELL, arms=(measured,), at=1).epoch == 5
    assert CELL.epoch is None
    with pytest.raises(ValueError, match=r"reports spectrum 3 of spectrum_at \(1, 5\)"):
        replace(CELL, arms=(measured,), at=2)


def test_a_spectrum_after_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 7\) is not within the 6 epochs"):
        Experiment(epochs=3, length=2, spectrum_at=(1, 7))
    assert Experiment(epochs=3, length=2, spectrum_at=(6,)).spectrum_at == (6,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": 0}, "at least 1 seed"),
        ({"cells": ()}, "needs cells"),
        ({"cells": (CELL, CELL)}, "two cells of the same name"),
        ({"cells": (replace(CELL, name="u/a"),)}, "u/a is not in t"),
        ({"headings": ("what", "else")}, "t/a has 1 labels"),
        (
            {
                "cells": (
                    CELL,
                    Cell("t/b", ("B",), (Experiment(rho=0.1),), folder="t/a"),
                )
            },
            "t/a would hold runs of different arms",
        ),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ONE, **fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("text", ["", "x", "1±", "±1", "1±>2", "1 2"])
def test_what_is_no_printed_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a number as the paper prints them"):
        Paper.printed(text)
