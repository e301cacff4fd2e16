from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from flatmin.experiments import augment, batches
from flatmin.experiments.batches import IGNORED, Batch, Batches, Share
from flatmin.experiments.datasets import DataSet, Files, ImageFiles, Tensors
from flatmin.experiments.errors import BadInput
from tests.experiments.loop.problems import batches_of, pictures, small, standard

AUGMENTS: tuple[tuple[str, ...], ...] = (
    (),
    ("flip", "crop", "cutout"),
    ("auto_augment",),
    ("rand_augment", "flip"),
    ("random_resized_crop",),
)


def marked(n: int = 26) -> DataSet:
    """Images that are told apart by their pixels: image i is i everywhere."""
    x = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    y = torch.arange(n) % 6
    split = Tensors(x.contiguous(), y)
    zero, one = (0.0,) * 3, (1.0,) * 3
    data = pictures()
    return replace(data, train=split, test=split, mean=zero, std=one)


def numbers(x: Tensor) -> list[int]:
    return (x[:, 0, 0, 0] * 255).round().int().tolist()


def drawing(read: Batches, what: str, *place: int) -> torch.Generator:
    return torch.Generator().manual_seed(read._seed(what, *place))


def equal(one: list[list[Batch]], other: list[list[Batch]]) -> bool:
    def flat(steps: list[list[Batch]]) -> list[Tensor]:
        return [t for groups in steps for batch in groups for t in batch]

    pairs = zip(flat(one), flat(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_an_epoch_is_a_permutation_without_the_images_that_fill_no_batch() -> None:
    read = batches_of(small(m=4), marked())
    orders = []
    for epoch in range(3):
        steps = list(read.train(epoch))
        assert [[len(y) for _, y in groups] for groups in steps] == [[4, 4]] * 3
        seen = [i for groups in steps for x, _ in groups for i in numbers(x)]
        assert len(set(seen)) == 24
        orders.append(seen)
        for x, y in (batch for groups in steps for batch in groups):
            assert y.tolist() == [i % 6 for i in numbers(x)]
    assert orders[0] != orders[1] != orders[2] != orders[0]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_orders_differ_between_epochs_and_seeds(seed: int) -> None:
    """torch's CPU generators ignore all but 32 bits of a seed."""
    seen = set()
    for s in range(seed, seed + 3):
        for epoch in range(40):
            ((x, _),) = next(batches_of(small(seed=s), marked()).train(epoch))
            seen.add(tuple(numbers(x)))
    assert len(seen) == 120


def test_a_group_of_a_step_of_an_epoch_has_a_seed_of_its_own() -> None:
    seen = [
        batches_of(small(seed=seed), marked())._seed(what, epoch, step, group) % 2**32
        for seed in range(3)
        for what in ("bytes", "pixels")
        for epoch in (0, 1, 2, 150)
        for step in (0, 1, 2, 1000)
        for group in (*range(8), 1023, 1024, 4095)
    ]
    assert len(set(seen)) == len(seen)


def test_the_same_image_is_augmented_anew_in_every_epoch_and_group() -> None:
    x = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8).expand(8, -1, -1, -1)
    same = Tensors(x.contiguous(), torch.zeros(8).long())
    data = replace(pictures(), train=same)
    read = batches_of(small(augment=("crop",), m=1, batch_size=4), data)
    seen = [
        tuple(x.flatten().tolist())
        for epoch in range(3)
        for groups in read.train(epoch)
        for x, _ in groups
    ]
    # Of 24 draws of 81 windows, some meet by chance; of equal seeds all would.
    assert len(set(seen)) > 18


@pytest.mark.parametrize("augments", AUGMENTS)
@pytest.mark.parametrize("mixup", [None, 1.0])
def test_processes_share_the_groups_of_one(
    augments: tuple[Any, ...], mixup: float | None
) -> None:
    experiment = small(m=2, augment=augments, image_size=8, mixup=mixup)
    one = list(batches_of(experiment, pictures()).train(1))
    many = [
        list(batches_of(experiment, pictures(), share=Share(rank, 2)).train(1))
        for rank in range(2)
    ]
    joined = [
        [batch for pair in zip(a, b, strict=True) for batch in pair]
        for a, b in zip(*many, strict=True)
    ]
    assert equal(joined, one)


@pytest.mark.parametrize("augments", AUGMENTS)
def test_an_epoch_goes_on_where_it_stopped(augments: tuple[Any, ...]) -> None:
    experiment = small(m=4, augment=augments, image_size=8)
    state = torch.get_rng_state()
    whole = list(batches_of(experiment, pictures()).train(2))
    assert equal(list(batches_of(experiment, pictures()).train(2, 1)), whole[1:])
    assert torch.equal(torch.get_rng_state(), state)


def test_sharded_weights_have_groups_that_all_processes_share() -> None:
    one = next(batches_of(small(m=4), marked()).train(0))
    parts = [
        next(
            batches_of(small(m=4, strategy="fsdp"), marked(), share=Share(r, 2)).train(
                0
            )
        )
        for r in range(2)
    ]
    for k, (x, _) in enumerate(one):
        together = [i for part in parts for i in numbers(part[k][0])]
        assert together == numbers(x)


@pytest.mark.parametrize(
    ("fields", "world"),
    [({"m": 8}, 2), ({}, 3), ({"batch_size": 2}, 4), ({"strategy": "fsdp", "m": 1}, 2)],
)
def test_unequal_groups_are_refused(fields: dict[str, Any], world: int) -> None:
    with pytest.raises(BadInput, match="does not make equal groups"):
        batches_of(small(**fields), pictures(), share=Share(0, world))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(BadInput, match="a batch of 32 is more than the 26 training"):
        batches_of(small(batch_size=32), pictures())


def test_a_data_set_without_policy_has_no_auto_augment() -> None:
    data = replace(pictures(), policy=None)
    with pytest.raises(BadInput, match="AutoAugment has no policy"):
        batches_of(small(augment=("auto_augment",)), data)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_image_is_tested_once_and_processes_make_equally_many_passes(
    world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_TEST_BATCH", 4)
    reads = [
        batches_of(small(batch_size=world), marked(), share=Share(rank, world))
        for rank in range(world)
    ]
    for every in ([list(r.test()) for r in reads], [list(r.plain()) for r in reads]):
        assert len({tuple(len(y) for _, y in mine) for mine in every}) == 1
        real = [
            i
            for mine in every
            for x, y in mine
            for i, label in zip(numbers(x), y.tolist(), strict=True)
            if label != IGNORED
        ]
        assert sorted(real) == list(range(26))
    alone = [i for x, _ in reads[-1].alone() for i in numbers(x)]
    assert alone == list(range(26))


@pytest.mark.parametrize(("side", "n"), [(8, 512), (32, 512), (64, 128), (224, 32)])
def test_of_large_images_fewer_are_tested_at_once(side: int, n: int) -> None:
    read = batches_of(small(batch_size=2, image_size=side), pictures(4, test=513))
    assert max(len(y) for _, y in read.test()) == n


def test_the_steps_of_augmentation_are_those_of_the_sam_code() -> None:
    data = pictures()
    experiment = small(augment=("flip", "crop", "cutout"), image_size=16)
    read = batches_of(experiment, data)
    ((x, y),) = next(read.train(0))
    assert isinstance(data.train, Tensors)
    order = torch.randperm(26, generator=drawing(read, "order", 0))
    draw = drawing(read, "pixels", 0, 0, 0)
    z = data.train.x[order[:8]]
    z = augment.crop(augment.flip(z, draw).float(), draw) / 255
    z = torch.nn.functional.interpolate(z, (16, 16), mode="bilinear", antialias=True)
    z = augment.cutout((z - read._mean) / read._std, draw)
    assert torch.equal(x, z)
    assert torch.equal(y, data.train.y[order[:8]])


@pytest.fixture
def files(tmp_path: Path) -> DataSet:
    for i in range(10):
        width = 20 + i
        pixels = torch.randint(256, (24, width, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{i}.png")
    y = torch.arange(10) % 6
    images = ImageFiles(tmp_path, [f"{i}.png" for i in range(10)], y)
    return replace(pictures(), train=Files(images, y), test=Files(images, y))


def opened(data: DataSet, i: int) -> Tensor:
    assert isinstance(data.train, Files)
    return pil_to_tensor(data.train.images[i][0])[None]


@pytest.mark.parametrize("augments", [(), ("random_resized_crop",), ("auto_augment",)])
def test_files_are_read_as_by_hand_whoever_reads_them(
    augments: tuple[Any, ...], files: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small(m=2, batch_size=4, augment=augments, image_size=16)
    found = []
    for readers in (0, 2):
        monkeypatch.setattr("flatmin.experiments.readers._READERS", readers)
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        read = batches_of(experiment, files)
        state, python = torch.get_rng_state(), random.getstate()
        found.append(list(read.train(0)))
        assert torch.equal(torch.get_rng_state(), state)
        assert random.getstate() == python
    assert equal(*found)

    read = batches_of(experiment, files)
    order = torch.randperm(10, generator=drawing(read, "order", 0))
    for k, (x, y) in enumerate(found[0][1]):
        index = order[4 + 2 * k : 6 + 2 * k]
        assert torch.equal(y, files.train.y[index])
        draw = drawing(read, "bytes", 0, 1, k)
        seeds = torch.randint(2**62, (2,), generator=draw).tolist()
        for j, (i, seed) in enumerate(zip(index.tolist(), seeds, strict=True)):
            z, own = opened(files, i), torch.Generator().manual_seed(seed)
            if "random_resized_crop" in augments:
                z = augment.random_resized_crop(z, own, 16)
            if "auto_augment" in augments:
                z = augment.auto_augment(z, own, "cifar10")
            expected = standard(augment.centre(z, 16), files)[0]
            assert torch.equal(x[j], expected)


def test_files_are_tested_as_they_are(
    files: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flatmin.experiments.readers._READERS", 0)
    read = batches_of(small(batch_size=4, image_size=16, augment=("flip",)), files)
    ((x, y),) = read.test()
    assert torch.equal(y, files.test.y)
    for i in range(10):
        expected = standard(augment.centre(opened(files, i), 16), files)[0]
        assert torch.equal(x[i], expected)


def test_a_missing_file_is_named_in_one_line(
    files: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    (tmp_path / "7.png").unlink()
    with pytest.raises(BadInput, match=r"7\.png") as refused:
        list(batches_of(small(batch_size=4, image_size=16), files).test())
    assert "\n" not in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_images_are_trained_at_the_size_at_which_they_are_tested() -> None:
    """Without a size of the experiment, it is that of the images in memory."""
    read = batches_of(small(augment=("random_resized_crop", "flip")), pictures(side=12))
    ((x, _),) = next(read.train(0))
    tested, _ = next(iter(read.test()))
    assert x.shape[2:] == tested.shape[2:] == (12, 12)
