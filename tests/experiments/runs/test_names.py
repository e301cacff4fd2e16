"""The folder of a run."""

from pathlib import Path

import pytest

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes._recipe import Cell
from flatmin.experiments.runs.asked import arm_name, run_folder

BASE = Experiment()


def cell(*arms: Experiment, **fields: str) -> Cell:
    return Cell("t/noise-40/sam", ("SAM",), arms, **fields)  # type: ignore[arg-type]


def changed(**fields: object) -> Experiment:
    return BASE.model_copy(update=fields)


def test_cell_arm_and_seed_make_the_path() -> None:
    one = cell(BASE)
    assert run_folder(Path("runs"), one, BASE, 3) == Path(
        "runs/t/noise-40/sam/x1/seed-3"
    )


def test_cells_that_share_runs_name_their_folder() -> None:
    shared = cell(BASE, folder="t/shared")
    assert run_folder(Path(), shared, BASE, 0) == Path("t/shared/x1/seed-0")


def test_arms_are_told_by_length_alone_if_nothing_else_differs() -> None:
    arms = (BASE, changed(length=2))
    assert [arm_name(cell(*arms), arm) for arm in arms] == ["x1", "x2"]


def test_arms_are_told_by_every_field_in_which_they_differ() -> None:
    arms = (
        changed(mixup=8.0, augment=("flip", "crop")),
        changed(mixup=0.2, augment=(), length=2),
        changed(mixup=None, method_options={"a/b": ".."}),
    )
    assert [arm_name(cell(*arms), arm) for arm in arms] == [
        "x1-augment-flip-crop-mixup-8-method_options-none",
        "x2-augment-none-mixup-0.2-method_options-none",
        "x1-augment-flip-crop-mixup-none-method_options-a-b",
    ]


def test_two_arms_never_share_a_folder() -> None:
    arms = (changed(data="a/b"), changed(data="a b"))
    with pytest.raises(ValueError, match="2 arms named x1-data-a-b"):
        arm_name(cell(*arms), arms[0])


def test_an_arm_has_to_be_as_the_cell_has_it() -> None:
    with pytest.raises(ValueError, match="no such arm"):
        run_folder(Path(), cell(BASE), changed(seed=1), 1)
