"""Errors by class, and the confusion that changed most."""

from dataclasses import replace
from pathlib import Path

import torch

from flatmin.experiments.compare.results import Row
from flatmin.experiments.compare.tables import errors_by_class, most_changed
from flatmin.experiments.datasets import DataSet, Tensors
from flatmin.experiments.runs.record import Run
from flatmin.experiments.tasks import NO_CLASS
from tests.experiments.compare.rows import row

Y = torch.tensor([0, 0, 0, 0, 1, 1])


def data() -> DataSet:
    images = Tensors(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), Y)
    names = ("<cat>", "dog", "none")
    return DataSet("pets", images, images, names, (0.5,), (0.5,), None, "twice")


def row_with(root: Path, arm: str, *predictions: list[int]) -> Row:
    folders = tuple(root / arm / f"seed-{k}" for k in range(len(predictions)))
    for folder, found in zip(folders, predictions, strict=True):
        Run(folder).keep_predictions({"test": torch.tensor(found)})
    made = row(arm, (0.0,) * len(folders), (0.0,))
    return replace(made, folders=folders)


def test_errors_are_means_of_the_seeds_and_the_largest_change_is_first(
    tmp_path: Path,
) -> None:
    base = row_with(tmp_path, "base", [1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1])
    sam = row_with(tmp_path, "sam", [0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0])
    found = errors_by_class(base, sam, data())
    # Cats: 2 and 4 of 4 wrong, then 0 and 1; dogs: 1 and 0 of 2, then 1 and 1.
    assert found.rows == (("<cat>", 4, "75.0", "12.5"), ("dog", 2, "25.0", "50.0"))
    sentence = most_changed(base, sam, data())
    assert "<cat> taken for dog, 3.0 times with SGD and 0.5 times with SAM" in sentence
    assert "of 4 test images" in sentence


def test_methods_that_agree_have_no_confusion_that_changed(tmp_path: Path) -> None:
    base = row_with(tmp_path, "base", [1, 1, 0, 0, 1, 0])
    sam = row_with(tmp_path, "sam", [1, 1, 0, 0, 1, 0])
    assert most_changed(base, sam, data()) == ""


def test_predictions_of_no_class_are_errors_and_have_a_name(tmp_path: Path) -> None:
    base = row_with(tmp_path, "base", [NO_CLASS] * 6)
    sam = row_with(tmp_path, "sam", [0, 0, 0, 0, 1, 2])
    found = errors_by_class(base, sam, data())
    assert found.rows == (("<cat>", 4, "100.0", "0.0"), ("dog", 2, "100.0", "50.0"))
    sentence = most_changed(base, sam, data())
    assert "<cat> taken for no class, 4.0 times with SGD and 0.0 times" in sentence
