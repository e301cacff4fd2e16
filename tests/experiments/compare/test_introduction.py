"""What ``flatmin compare`` says before it trains."""

from dataclasses import replace

import torch

from flatmin.experiments.compare.main import introduction
from flatmin.experiments.compare.request import digits
from flatmin.experiments.datasets import DataSet, Tensors

COMPARISON = digits()


def images(n: int) -> Tensors:
    return Tensors(torch.zeros(n, 1, 8, 8, dtype=torch.uint8), torch.arange(n) % 2)


def data() -> DataSet:
    return DataSet(
        "pets", images(80), images(20), ("cat", "dog"), (0.5,), (0.5,), None, ""
    )


def said(found: DataSet) -> str:
    sets = {one.name: found for one in COMPARISON.settings}
    return "\n".join(introduction(COMPARISON, sets, 60.0, 2))


def test_it_says_that_a_share_of_the_training_images_is_held_out() -> None:
    assert "chooses its settings on 10 % of the training images: SGD of" in said(data())


def test_it_says_that_the_validation_images_of_the_folder_are_used() -> None:
    words = said(replace(data(), validation=images(31)))
    assert "chooses its settings on the 31 validation images: SGD of" in words
    assert "% of the training images" not in words


def test_it_names_the_classes() -> None:
    assert "2 classes (cat, dog); " in said(data())
    many = replace(data(), classes=tuple(f"class-{k}" for k in range(500)))
    [line, *_] = said(many).splitlines()
    assert "500 classes (class-0, " in line
    assert len(line) < 300
