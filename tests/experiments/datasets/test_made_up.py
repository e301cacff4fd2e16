"""Images of a smoke test."""

import pytest
import torch

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import SETS, Tensors, made_up_images
from flatmin.experiments.errors import BadInput


@pytest.mark.parametrize("name", [name for name in SETS if SETS[name].kind == "images"])
def test_they_have_the_shape_of_the_data_set(name: str) -> None:
    source, data = SETS[name], made_up_images(Experiment(data=name))
    for split, each in ((data.train, 4), (data.test, 2)):
        assert isinstance(split, Tensors)
        classes, side = (source.classes, source.size) if source.size else (6, 48)
        assert split.x.dtype == torch.uint8
        assert split.x.shape == (each * classes, source.channels, side, side)
        assert split.y.bincount().tolist() == [each] * classes
    assert (data.name, data.policy) == (name, source.policy)
    assert len(data.classes) == classes
    assert "made-up" in data.split


def test_they_are_always_the_same() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        one = made_up_images(Experiment(data="cifar10")).digest()
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(2)
        assert made_up_images(Experiment(data="cifar10")).digest() == one
    assert made_up_images(Experiment(data="cifar100")).digest() != one


def test_training_and_test_images_differ() -> None:
    data = made_up_images(Experiment(data="cifar10"))
    assert isinstance(data.train, Tensors)
    assert isinstance(data.test, Tensors)
    assert not torch.equal(data.train.x[:20], data.test.x)


def test_an_experiment_takes_some_of_them() -> None:
    data = made_up_images(
        Experiment(data="pets", train_examples=20, validation=0.2, noise=0.4)
    )
    assert len(data.train.y) + len(data.test.y) == 20
    with pytest.raises(BadInput, match="25 examples are asked for, of 24"):
        made_up_images(Experiment(data="pets", train_examples=25))
