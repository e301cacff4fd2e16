"""Augmentations against slicing by hand, at what the generator draws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from flatmin.experiments import augment

Augmentation = Callable[[Tensor, Generator], Tensor]


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 64, channels: int = 3, height: int = 12, width: int = 9) -> Tensor:
    return torch.randn(n, channels, height, width, generator=generator(9))


def pictures(n: int = 32, channels: int = 3) -> Tensor:
    shape = (n, channels, 32, 32)
    return torch.randint(256, shape, generator=generator(9)).to(torch.uint8)


def integers(high: int, n: int, draw: Generator) -> list[int]:
    return torch.randint(high, (n,), generator=draw).tolist()


def auto(x: Tensor, draw: Generator) -> Tensor:
    return augment.auto_augment(x, draw, "cifar10")


def mixed(x: Tensor, draw: Generator) -> Tensor:
    return augment.mixup(x, torch.zeros(len(x), dtype=torch.int64), 2, draw)[0]


EVERY: list[tuple[Augmentation, Tensor]] = [
    (augment.basic, images()),
    (augment.flip, images()),
    (augment.crop, images()),
    (augment.cutout, images()),
    (mixed, images()),
    (auto, pictures()),
    (augment.rand_augment, pictures()),
]
NAMES = ["basic", "flip", "crop", "cutout", "mixup", "auto", "rand"]


@pytest.mark.parametrize(("augmentation", "x"), EVERY, ids=NAMES)
def test_images_follow_from_the_generator_alone(
    augmentation: Augmentation, x: Tensor
) -> None:
    before = x.clone()
    torch.manual_seed(1)
    first = augmentation(x, generator(3))
    torch.manual_seed(2)
    assert torch.equal(augmentation(x, generator(3)), first)
    assert not torch.equal(augmentation(x, generator(4)), first)
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert torch.equal(x, before)


@pytest.mark.parametrize(("augmentation", "x"), EVERY, ids=NAMES)
def test_a_generator_goes_on_from_batch_to_batch(
    augmentation: Augmentation, x: Tensor
) -> None:
    draw = generator(3)
    assert not torch.equal(augmentation(x, draw), augmentation(x, draw))


@pytest.mark.parametrize(("augmentation", "x"), EVERY, ids=NAMES)
def test_the_global_random_state_is_left_alone(
    augmentation: Augmentation, x: Tensor
) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    augmentation(x, generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_flipped_images_are_mirrored_and_the_others_are_not() -> None:
    x = images()
    chosen = integers(2, len(x), generator())
    assert 0 < sum(chosen) < len(x)
    for out, image, flipped in zip(
        augment.flip(x, generator()), x, chosen, strict=True
    ):
        assert torch.equal(out, TF.horizontal_flip(image) if flipped else image)


def test_half_of_the_images_are_flipped() -> None:
    n = 10_000
    x = torch.tensor([0.0, 1.0]).expand(n, 1, 1, 2)
    flipped = augment.flip(x, generator())[:, 0, 0, 0].sum().item()
    # Five standard deviations of a binomial count.
    assert abs(flipped - n / 2) < 5 * (n / 4) ** 0.5


@pytest.mark.parametrize("pad", [1, 4])
@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_a_crop_is_the_slice_of_the_padded_image(mode: str, pad: int) -> None:
    x = images()
    assert mode in ("reflect", "constant")
    out = augment.crop(x, generator(), pad, mode)
    padded = TF.pad(x, [pad], padding_mode=mode)
    draw = generator()
    tops = integers(2 * pad + 1, len(x), draw)
    lefts = integers(2 * pad + 1, len(x), draw)
    for k, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        window = padded[k, :, top : top + x.shape[2], left : left + x.shape[3]]
        assert torch.equal(out[k], window)


def test_every_offset_is_equally_likely() -> None:
    n = 81 * 400
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    out = augment.crop(x.expand(n, 1, 9, 9), generator(), mode="constant")
    seen = out.sum((0, 1))
    # Every offset moves the centre to another pixel. Five standard deviations.
    assert seen.sum() == n
    assert (seen - 400).abs().max() < 5 * 400**0.5


@pytest.mark.parametrize("size", [1, 4, 5, 16])
def test_cutout_zeroes_the_window_and_nothing_else(size: int) -> None:
    x = images()
    out = augment.cutout(x, generator(), size)
    draw = generator()
    rows = integers(x.shape[2], len(x), draw)
    columns = integers(x.shape[3], len(x), draw)
    for k, (row, column) in enumerate(zip(rows, columns, strict=True)):
        expected = x[k].clone()
        top, left = row - size // 2, column - size // 2
        expected[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
        assert torch.equal(out[k], expected)


def test_cutout_is_centred_on_every_pixel_alike() -> None:
    n = 36 * 900
    out = augment.cutout(torch.ones(n, 1, 6, 6), generator(), 1)
    seen = (1 - out).sum((0, 1))
    assert seen.sum() == n
    # Five standard deviations.
    assert (seen - 900).abs().max() < 5 * 900**0.5


def test_a_shared_square_is_the_same_in_all_images() -> None:
    x = torch.ones(8, 3, 32, 32)
    out = augment.cutout(x, generator(), shared=True)
    assert torch.equal(out, out[:1].expand_as(out))
    assert 64 <= int((out[0, 0] == 0).sum()) <= 256
    apart = augment.cutout(x, generator())
    assert not torch.equal(apart, apart[:1].expand_as(apart))


def test_basic_is_flip_then_crop() -> None:
    x, draw = images(), generator()
    expected = augment.crop(augment.flip(x, draw), draw, 4, "reflect")
    assert torch.equal(augment.basic(x, generator()), expected)


def test_mixup_blends_images_and_labels_with_one_weight() -> None:
    x, y = images().double(), torch.arange(64) % 5
    out, target = augment.mixup(x, y, 5, generator())
    draw = generator()
    # Beta(1, 1) is uniform.
    lam = torch.rand((), generator=draw).item()
    order = torch.randperm(64, generator=draw)
    assert 0.01 < lam < 0.99
    torch.testing.assert_close(out, lam * x + (1 - lam) * x[order])
    hot = F.one_hot(y, 5).double()
    torch.testing.assert_close(target, lam * hot + (1 - lam) * hot[order])


@pytest.mark.parametrize("alpha", [0.2, 1, 8, 32])
def test_the_weight_of_mixup_is_beta_distributed(alpha: float) -> None:
    draw, n = generator(), 4000
    x = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    y = torch.tensor([0, 1])
    # Of two images, one weight or its complement is that of the first.
    seen = [augment.mixup(x, y, 2, draw, alpha)[1][0, 0].item() for _ in range(n)]
    weights = torch.tensor(seen).double()
    weights = weights[weights < 1]
    # Where the order is the identity the target is 1; else the weight shows.
    assert abs(len(weights) - n / 2) < 5 * (n / 4) ** 0.5
    n = len(weights)
    var = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean().item() - 0.5) < 5 * (var / n) ** 0.5
    beta = torch.distributions.Beta(alpha, alpha)
    torch.manual_seed(0)
    fourth = (beta.sample((100_000,)) - 0.5).double().pow(4).mean().item()
    # Five standard deviations of a sample variance.
    assert abs(weights.var().item() - var) < 5 * ((fourth - var**2) / n) ** 0.5


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_an_alpha_that_is_not_positive_is_refused(alpha: float) -> None:
    x, y = images(2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"alpha of mixup must be positive, .*{alpha}"):
        augment.mixup(x, y, 2, generator(), alpha)


@pytest.mark.parametrize("augmentation", [auto, augment.rand_augment])
def test_a_policy_treats_every_image_of_a_batch_for_itself(
    augmentation: Augmentation,
) -> None:
    # One picture many times; drawn once for the batch, there would be one result.
    out = augmentation(pictures(1).expand(64, 3, 32, 32), generator())
    assert len({picture.numpy().tobytes() for picture in out}) > 16


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
def test_a_policy_is_torchvisions(policy: augment.Policy) -> None:
    from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

    x = pictures(8)
    seed = torch.randint(2**62, (), generator=generator()).item()
    torch.manual_seed(int(seed))
    transform = AutoAugment(AutoAugmentPolicy(policy), fill=128)
    expected = torch.stack([transform(picture) for picture in x])
    assert torch.equal(augment.auto_augment(x, generator(), policy), expected)


def test_operations_and_magnitude_reach_torchvision() -> None:
    x = pictures(8)
    assert torch.equal(augment.rand_augment(x, generator(), 0), x)
    weak = augment.rand_augment(x, generator(), 1, 1)
    assert not torch.equal(augment.rand_augment(x, generator(), 1, 30), weak)


def test_images_of_one_channel_are_taken() -> None:
    x = pictures(8, channels=1)
    assert auto(x, generator()).shape == x.shape
    assert augment.rand_augment(x, generator()).shape == x.shape


@pytest.mark.parametrize("augmentation", [auto, augment.rand_augment])
def test_standardised_images_are_refused_by_a_policy(
    augmentation: Augmentation,
) -> None:
    with pytest.raises(TypeError, match=r"must be uint8, .* got torch.float32"):
        augmentation(images(), generator())


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="mnist"):
        augment.auto_augment(pictures(), generator(), "mnist")  # pyright: ignore[reportArgumentType]
