import math

import pytest
from scipy import stats

from flatmin.experiments.intervals import best, interval, mean, paired


def test_the_interval_is_students() -> None:
    # 12.706 and 4.303 are Student's t of 0.975 with 1 and 2 degrees of freedom.
    assert interval((1.0, 3.0)) == pytest.approx(
        12.706 * math.sqrt(2) / math.sqrt(2), 1e-3
    )
    assert interval((1.0, 2.0, 3.0)) == pytest.approx(4.303 / math.sqrt(3), 1e-3)


def test_one_value_has_no_interval() -> None:
    assert interval((1.0,)) is None
    assert mean((1.0,)) == 1.0
    assert math.isnan(mean(()))


def test_the_paired_interval_is_that_of_students_paired_test() -> None:
    a, b = (12.0, 15.0, 11.0, 18.0), (10.0, 14.5, 11.5, 14.0)
    found = paired(a, b)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.mean, found.n) == (1.5, 4)
    assert found.half == pytest.approx((high - low) / 2)
    assert not found.shown


def test_a_difference_is_shown_when_its_interval_excludes_0() -> None:
    assert paired((20.0, 30.0, 40.0), (19.0, 29.1, 39.0)).shown
    assert paired((19.0, 29.0, 39.0), (20.0, 30.1, 40.0)).shown
    assert not paired((5.0,), (9.0,)).shown
    assert paired((5.0,), (9.0,)).half is None


@pytest.mark.parametrize(("a", "b"), [((1.0,), (1.0, 2.0)), ((), ())])
def test_pairs_without_a_partner_are_refused(
    a: tuple[float, ...], b: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="one value per seed"):
        paired(a, b)


def test_the_best_has_the_lowest_mean_and_of_equals_the_first() -> None:
    found = best([(30.0, 10.0), (18.0, 20.0), (19.0, 19.0), (9.0, 40.0)])
    assert found.index == 1


def test_a_tie_is_what_the_seeds_do_not_tell_from_the_best() -> None:
    # The third is 3 points worse with every seed, the second only in the mean.
    chosen, close, worse = (10.0, 12.0, 14.0), (12.0, 12.0, 13.0), (13.0, 15.1, 17.0)
    found = best([worse, close, chosen])
    assert (found.index, found.tied, found.seeds) == (2, (1,), 3)
    assert found.ties == 1


def test_with_one_seed_only_equal_errors_are_tied() -> None:
    found = best([(10.0,), (10.0,), (10.1,)])
    assert (found.index, found.tied) == (0, (1,))


def test_errors_that_are_not_finite_are_never_the_best() -> None:
    found = best([(math.nan, 1.0), (90.0, 91.0), (math.inf, 1.0)])
    assert (found.index, found.tied) == (1, ())


@pytest.mark.parametrize("errors", [[], [()], [(1.0, 2.0), (1.0,)]])
def test_candidates_without_the_same_seeds_are_refused(
    errors: list[tuple[float, ...]],
) -> None:
    with pytest.raises(ValueError, match="one error per seed"):
        best(errors)
