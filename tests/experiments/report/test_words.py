"""Arms, settings and costs in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments.recipes._recipe import Cell
from flatmin.experiments.report import _words
from tests.experiments.report.folders import SGD, begin, collected, start, tablet


def named(root: Path, *arms: dict[str, Any], **changes: Any) -> list[str]:
    """What the arms of a cell are called, with runs of the first one."""
    cell = Cell("tablet/one", ("a", "b"), tuple(SGD.model_copy(update=a) for a in arms))
    recipe = start(root, tablet(cells=(cell,)))
    begin(root, cell, cell.arms[0], 0, changes=changes)
    return [_words.arm(arm) for arm in collected(root, recipe).rows[0].arms]


def test_an_arm_is_named_by_settings_and_the_epochs_in_all(tmp_path: Path) -> None:
    arms = {"mixup": 8.0}, {"mixup": 1.5, "length": 2}
    assert named(tmp_path, *arms) == ["alpha 8, 200 epochs", "alpha 1.5, 400 epochs"]


def test_the_length_of_an_arm_is_that_of_its_runs(tmp_path: Path) -> None:
    assert named(tmp_path, {}, {"length": 2}, epochs=1) == ["1 epoch", "400 epochs"]


def test_an_arm_that_is_counted_in_steps_says_steps(tmp_path: Path) -> None:
    assert named(tmp_path, {"steps": 20_000, "length": 2}) == ["40,000 steps"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (16, "16"),
        (999.96, "1 k"),
        (1_234, "1.2 k"),
        (20_000_000, "20 M"),
        (1_250_000_000, "1.2 B"),
    ],
)
def test_counts_are_compact(count: float, text: str) -> None:
    assert _words.compact(count) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("seeds", 1, "1 seed"),
        ("epochs", 30, "30 epochs"),
        ("train_examples", None, "all training images"),
        ("m", None, "m unset"),
        ("bootstrap", True, "bootstrap True"),
        ("rho", 0.05, "rho 0.05"),
    ],
)
def test_settings_are_plain_words(name: str, value: Any, text: str) -> None:
    assert _words.setting(name, value) == text
