import dataclasses
from pathlib import Path

import pytest
import torch
from torch.utils.data import Subset

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import (
    DataSet,
    Files,
    Split,
    Tensors,
    first_n,
    held_out,
    load,
    prepared,
)
from flatmin.experiments.errors import BadInput
from tests.experiments.datasets.written import write_tiny

pytestmark = pytest.mark.usefixtures("unpublished")

Y = torch.arange(100) % 10


@pytest.fixture
def cifar(tmp_path: Path) -> DataSet:
    write_tiny("cifar10", tmp_path)
    return load("cifar10", tmp_path)


def test_examples_are_drawn_once_and_for_all() -> None:
    few, many = first_n(Y, 10).tolist(), first_n(Y, 60).tolist()
    assert len(set(few)) == 10
    assert few == sorted(few) != list(range(10))
    assert set(few) < set(many)
    assert few == first_n(Y, 10).tolist()
    assert first_n(Y, 100).tolist() == list(range(100))
    with pytest.raises(ValueError, match="101 examples are asked for, of 100"):
        first_n(Y, 101)


@pytest.mark.parametrize(("share", "each"), [(0.1, 1), (0.3, 3), (0.001, 1), (0.99, 9)])
def test_a_share_of_each_class_is_held_out(share: float, each: int) -> None:
    stay, held = held_out(Y, share)
    assert Y[held].bincount().tolist() == [each] * 10
    assert sorted([*stay.tolist(), *held.tolist()]) == list(range(100))
    assert held.tolist() == sorted(held.tolist())
    assert torch.equal(held, held_out(Y, share)[1])


def test_an_only_example_stays() -> None:
    stay, held = held_out(torch.tensor([0, 1, 1, 1]), 0.5)
    assert 0 in stay.tolist()
    assert len(held) == 2


def test_without_wishes_nothing_changes(cifar: DataSet) -> None:
    assert prepared(cifar, Experiment()) is cifar


def test_validation_images_replace_the_test_set(cifar: DataSet) -> None:
    data = prepared(cifar, Experiment(train_examples=30, validation=0.25))
    assert isinstance(cifar.train, Tensors)
    assert isinstance(data.train, Tensors)
    assert isinstance(data.test, Tensors)
    drawn = first_n(cifar.train.y, 30)
    stay, held = held_out(cifar.train.y[drawn], 0.25)
    assert torch.equal(data.train.x, cifar.train.x[drawn[stay]])
    assert torch.equal(data.test.x, cifar.train.x[drawn[held]])
    assert torch.equal(data.test.y, cifar.train.y[drawn[held]])
    assert data.split == "25% of each class of the training images"
    assert data.mean == cifar.mean


def test_the_test_set_stays_when_examples_are_drawn(cifar: DataSet) -> None:
    data = prepared(cifar, Experiment(train_examples=7))
    assert len(data.train.y) == 7
    assert data.test is cifar.test


def test_files_are_selected_without_being_opened(tmp_path: Path) -> None:
    write_tiny("pets", tmp_path)
    whole = load("pets", tmp_path)
    data = prepared(whole, Experiment(train_examples=20, validation=0.2))
    assert isinstance(data.train, Files)
    assert isinstance(data.test, Files)
    assert isinstance(data.train.images, Subset)
    drawn = first_n(whole.train.y, 20)
    held = drawn[held_out(whole.train.y[drawn], 0.2)[1]]
    assert torch.equal(data.test.y, whole.train.y[held])
    for i, index in enumerate(held.tolist()):
        image, label = data.test.images[i]
        assert isinstance(whole.train, Files)
        assert image == whole.train.images[index][0]
        assert label == data.test.y[i]


def test_the_digest_of_a_part_is_its_own(tmp_path: Path) -> None:
    write_tiny("pets", tmp_path)
    whole = load("pets", tmp_path)
    digests = [
        prepared(whole, Experiment(train_examples=n)).digest() for n in (20, 20, 24)
    ]
    assert digests[0] == digests[1] != whole.digest()
    assert digests[2] == whole.digest()


def test_labels_can_be_replaced(tmp_path: Path) -> None:
    write_tiny("pets", tmp_path)
    train = load("pets", tmp_path).train
    noisy = dataclasses.replace(train, y=train.y.roll(1))
    assert torch.equal(noisy.y.roll(-1), train.y)


def test_too_few_images_are_refused(cifar: DataSet) -> None:
    with pytest.raises(BadInput, match="train_examples of cifar10: 41 examples"):
        prepared(cifar, Experiment(train_examples=41))
    with pytest.raises(BadInput, match="too few training images to hold some out"):
        prepared(cifar, Experiment(train_examples=1, validation=0.5))


def small_set(n: int) -> DataSet:
    """Images whose first two pixels are their number."""
    number = torch.arange(n)
    x = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = number % 256, number // 256
    images = Tensors(x, number % 10)
    names = tuple(map(str, range(10)))
    return DataSet("small", images, images, names, (0.5,), (0.5,), None, "all twice")


def numbers(split: Split) -> torch.Tensor:
    assert isinstance(split, Tensors)
    return split.x[:, 0, 0, 0].long() + 256 * split.x[:, 0, 0, 1].long()


def test_noisy_validation_draws_its_own_images_and_wrong_labels_for_each_seed() -> None:
    data = small_set(200)
    one, two = (
        prepared(
            data,
            Experiment(
                data="digits", validation=0.2, noise=0.4, noisy_validation=True, seed=k
            ),
        )
        for k in (1, 2)
    )
    assert len(one.test.y) == 40
    assert not torch.equal(numbers(one.test), numbers(two.test))
    for found in (one, two):
        right = data.train.y[numbers(found.test)]
        assert int((found.test.y != right).sum()) == 16


def test_validation_labels_are_right_and_the_same_for_all_seeds_otherwise() -> None:
    data = small_set(200)
    one, two = (
        prepared(data, Experiment(data="digits", validation=0.2, noise=0.4, seed=k))
        for k in (1, 2)
    )
    assert torch.equal(numbers(one.test), numbers(two.test))
    assert torch.equal(one.test.y, data.train.y[numbers(one.test)])
