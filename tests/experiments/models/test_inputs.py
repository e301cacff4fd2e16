"""A network that was trained before is given images as it was then."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flatmin.experiments.batches import Batches, Share
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import SETS, DataSet, Files, Tensors, load
from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import input_size, normalisation
from tests.experiments.helpers import image_folder

#: 224 pixels, mean and standard deviation 0.5.
HALF = "tf_efficientnet_lite0.in1k"
#: 160 pixels, those of ImageNet.
OTHER = "timm/test_efficientnet.r160_in1k"


def folder(root: Path, size: int = 20) -> DataSet:
    image_folder(root / "photos", {"a": 5, "b": 5}, size=size)
    return load(str(root / "photos"), root)


def named(data: DataSet, name: str) -> DataSet:
    """The same images as a data set with a name has them."""
    return replace(data, name=name)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": HALF}, 224),
        ({"model": OTHER}, 160),
        ({"model": HALF, "weights": "file.pth"}, 224),
        ({"model": HALF, "weights": "none"}, None),
        ({"model": HALF, "image_size": 64}, 64),
        ({"model": "resnet-20"}, None),
        ({"model": "resnet-20", "weights": "file.pth"}, None),
    ],
)
def test_images_have_the_size_that_the_weights_expect(
    fields: dict[str, Any], expected: int | None
) -> None:
    assert input_size(Experiment(**fields)) == expected


def test_images_of_a_folder_are_scaled_as_the_weights_expect(tmp_path: Path) -> None:
    for data in (folder(tmp_path / "a"), folder(tmp_path / "b", 70)):
        mean, std = normalisation(Experiment(model=HALF), data)
        assert mean == std == (0.5, 0.5, 0.5)
        mean, _ = normalisation(Experiment(model=OTHER), data)
        assert mean == (0.485, 0.456, 0.406)
        fresh = Experiment(model=HALF, weights="none")
        for experiment in (fresh, Experiment(model="resnet-20")):
            found = normalisation(experiment, data)
            assert found == (data.mean, data.std)


def test_small_images_of_a_named_set_keep_their_own_scale(tmp_path: Path) -> None:
    small = named(folder(tmp_path / "a"), "cifar10")
    assert isinstance(small.train, Tensors)
    assert normalisation(Experiment(model=HALF), small) == (small.mean, small.std)
    large = named(folder(tmp_path / "b", 70), "pets")
    assert isinstance(large.train, Files)
    assert normalisation(Experiment(model=HALF), large)[0] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("cell", ["table3/cifar10/b7/sam", "table3/cars/l2/sam"])
def test_the_papers_images_are_scaled_as_before(cell: str, tmp_path: Path) -> None:
    from flatmin.experiments.recipes import recipe

    (arm,) = recipe(cell).cells[0].arms
    size = 20 if SETS[arm.data].size else 70
    data = named(folder(tmp_path, size), arm.data)
    assert normalisation(arm, data) == (data.mean, data.std)


@pytest.mark.parametrize("size", [20, 70])
def test_batches_have_that_size_and_scale(size: int, tmp_path: Path) -> None:
    data = folder(tmp_path, size)
    model = Experiment(model=OTHER, batch_size=4, augment=())
    feed = Batches(data, data.train.y, model, torch.device("cpu"), Share())
    ((x, _),) = list(feed.test())
    assert x.shape == (2, 3, 160, 160)
    raw = Batches(
        replace(data, mean=(0.0,) * 3, std=(1.0,) * 3),
        data.train.y,
        model.model_copy(update={"weights": "none", "image_size": 160}),
        torch.device("cpu"),
        Share(),
    )
    ((plain, _),) = list(raw.test())
    mean, std = (torch.tensor(one)[:, None, None] for one in normalisation(model, data))
    torch.testing.assert_close(x, (plain - mean) / std)


def test_weights_that_timm_does_not_know_are_one_line() -> None:
    with pytest.raises(BadInput, match=r"Invalid pretrained tag \(xyz\)"):
        input_size(Experiment(model="resnet50.xyz"))
    with pytest.raises(BadInput, match=r"called 'resnet5O'. Did you mean"):
        input_size(Experiment(model="resnet5O"))
