"""``flatmin recipes``: what can be run, in the terminal."""

import pytest

from flatmin.experiments.cli.lists import one_recipe, runs, trained, work
from flatmin.experiments.recipes import RECIPES, Recipe, changed, recipe
from tests.experiments.helpers import Program


def test_every_recipe_has_one_line(program: Program) -> None:
    code, out, err = program("recipes")
    assert (code, err) == (0, "")
    _, *lines = out.splitlines()
    assert len(lines) == len(RECIPES)
    for line, name in zip(lines, RECIPES, strict=True):
        one = recipe(name)
        assert line.split(maxsplit=3) == [
            name,
            str(len(one.cells)),
            str(runs(one)),
            one.title,
        ]
        assert len(line) <= 80


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_every_cell_and_note_in_80_columns(name: str) -> None:
    one = recipe(name)
    shown = one_recipe(one)
    assert all(len(line) <= 80 for line in shown.splitlines())
    flowing = " ".join(shown.split())
    for cell in one.cells:
        above, _, last = cell.name.rpartition("/")
        paper = [cell.paper.text] if cell.paper else []
        row = " ".join([last, cell.labels[-1], *paper, trained(cell)])
        where = " ".join([above, ", ".join(cell.labels[:-1])]).strip()
        assert row in flowing
        assert where in flowing
    for note in one.notes:
        assert f"- {note}" in flowing


def test_a_part_of_a_recipe_is_shown(program: Program) -> None:
    code, out, err = program("recipes", "table4/noise-80/sam")
    assert (code, err) == (0, "")
    assert out.splitlines()[:6] == [
        "table4: CIFAR-10 with label noise, test accuracy in %",
        "5 runs with 5 seeds; 1,000 epochs.",
        "",
        "table4/noise-80",
        "80 %",
        "  sam  SAM  77.9  rho 0.05, 200 epochs",
    ]


def test_an_unknown_recipe_is_one_line_on_stderr(program: Program) -> None:
    code, out, err = program("recipes", "table4/noise-30")
    assert (code, out) == (2, "")
    assert err.startswith("flatmin: unknown cell 'table4/noise-30'; did you mean")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("table1/cifar10/wrn-28-10-200/aa/sgd", "200 or 400 epochs"),
        ("table3/cars/b7/sgd", "5000 or 10000 steps"),
        ("table3/cars/b7/before", "quoted"),
        ("table4/noise-20/mixup", "alpha 1, 8, 16 or 32, 200 or 400 epochs"),
        ("table11/cifar10/steps-3/error", "multi_step_sam, k 3, rho 0.05, 200 epochs"),
        ("c5/linf/rho-1e-2", "p inf, rho 0.01, 200 epochs"),
    ],
)
def test_arms_in_a_few_words(cell: str, words: str) -> None:
    (one,) = recipe(cell).cells
    assert trained(one) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        # Bootstrap trains twice; four alphas, two lengths, five seeds.
        ("table4/noise-20/bootstrap-mixup", "40 runs with 5 seeds; 24,000 epochs."),
        # Top-1 and top-5 are of the same runs.
        (
            "table2/resnet-50/100-epochs/sam",
            "5 runs with 5 seeds; 500 epochs; ± is the paper's 95 % confidence "
            "interval.",
        ),
        ("table10/cars", "5 runs with 5 seeds; 25,000 steps."),
        ("table4/noise-20/lee", "0 runs with 5 seeds."),
    ],
)
def test_the_work_of_a_recipe_is_counted(name: str, words: str) -> None:
    assert work(recipe(name)) == words


def test_one_seed_is_not_one_seeds() -> None:
    one: Recipe = changed(recipe("figure1"), ["seeds=1"])
    assert work(one) == "3 runs with 1 seed; 800 epochs."
