import pytest
import torch

from flatmin.experiments.datasets import flip_labels


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.8])
def test_exactly_the_share_of_labels_is_flipped_and_to_other_classes(
    share: float,
) -> None:
    y = torch.arange(1000) % 10
    noisy = flip_labels(y, share, 10, seed=1)
    assert int((noisy != y).sum()) == round(share * 1000)
    assert noisy.min() >= 0
    assert noisy.max() <= 9


def test_every_other_class_is_equally_likely() -> None:
    n = 90_000
    y = torch.full((n,), 3)
    counts = torch.bincount(flip_labels(y, 1 - 1e-9, 10, seed=0), minlength=10)
    assert counts[3] == 0
    others = counts[torch.arange(10) != 3].double()
    # Five standard deviations of a binomial count.
    assert (others - n / 9).abs().max() < 5 * (n / 9 * 8 / 9) ** 0.5


def test_noise_follows_from_its_seed() -> None:
    y = torch.arange(100) % 10
    assert torch.equal(flip_labels(y, 0.4, 10, 5), flip_labels(y, 0.4, 10, 5))
    assert not torch.equal(flip_labels(y, 0.4, 10, 5), flip_labels(y, 0.4, 10, 6))
    assert not torch.equal(
        flip_labels(y, 0.4, 10, 5, true_class=True),
        flip_labels(y, 0.4, 10, 6, true_class=True),
    )


def test_every_class_is_equally_likely_if_the_true_one_counts() -> None:
    n = 90_000
    y = torch.full((n,), 3)
    drawn = flip_labels(y, 1.0, 10, seed=0, true_class=True)
    counts = torch.bincount(drawn, minlength=10).double()
    # Five standard deviations of a binomial count.
    assert (counts - n / 10).abs().max() < 5 * (n / 10 * 9 / 10) ** 0.5


def test_the_share_is_of_drawn_labels_if_the_true_class_counts() -> None:
    y = torch.arange(10_000) % 10
    wrong = flip_labels(y, 0.8, 10, seed=1, true_class=True) != y
    # The same examples are drawn as without the true class; of 8,000, a tenth are right
    # by chance, give or take five standard deviations.
    assert not (wrong & (flip_labels(y, 0.8, 10, seed=1) == y)).any()
    assert abs(int(wrong.sum()) - 7200) < 5 * (8000 * 0.9 * 0.1) ** 0.5


def test_the_labels_of_a_seed_are_what_they_have_been() -> None:
    # Comparisons that are continued or repeated need the same noise for ever.
    noisy = flip_labels(torch.arange(12) % 10, 0.5, 10, seed=3)
    assert noisy.tolist() == [0, 4, 2, 3, 9, 5, 7, 7, 8, 2, 1, 5]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got {share}"):
        flip_labels(torch.zeros(3, dtype=torch.int64), share, 10, seed=0)
