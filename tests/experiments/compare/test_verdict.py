"""The verdict: what it recommends, and what it warns of."""

import shlex
from dataclasses import replace
from typing import Any

import pytest

from flatmin.experiments.compare.plan import Comparison
from flatmin.experiments.compare.request import changed, digits
from flatmin.experiments.compare.results import Row
from flatmin.experiments.compare.verdict import Verdict, edge_warning, verdict
from tests.experiments.compare.rows import WHAT, row


def said(rows: list[Row], images: int = 10_000, what: Comparison = WHAT) -> Verdict:
    return verdict(what, rows, images, shared=[])


def test_a_gain_that_seeds_agree_on_is_recommended_with_its_interval_and_cost() -> None:
    rows = [
        row("base", (10.0, 11.0, 12.0), (10.0, 11.0, 12.0)),
        row("sam", (6.0, 7.1, 7.9), (6.0, 6.0, 6.0), cost=2.0, rho=0.2),
    ]
    found = said(rows)
    use, gains, costs = found.sentences
    assert use.startswith("Use SAM with lr 0.1, rho 0.2, 10 epochs: ")
    assert "6.00 %" in use
    assert "4.00 points fewer" in gains
    # Differences 4, 3.9, 4.1: mean 4, half-width 4.303 * 0.1 / sqrt(3).
    assert "95 % interval +3.75 to +4.25" in gains
    assert "3 paired seeds" in gains
    assert "2.00 times the gradients" in costs
    assert found.warnings == ()


def test_where_the_interval_includes_zero_the_base_is_recommended() -> None:
    rows = [
        row("base", (10.0, 8.0, 9.0), (10.0, 10.0, 10.0)),
        row("sam", (9.0, 9.0, 8.8), (6.0, 6.0, 6.0), cost=2.0),
    ]
    use, gains, _ = said(rows).sentences
    assert use.startswith("Use SGD with lr 0.1, 10 epochs: ")
    assert gains.startswith("No difference shown: ")


def test_a_method_that_is_worse_is_not_recommended() -> None:
    rows = [
        row("base", (5.0, 5.1, 5.2), (5.0, 5.0, 5.0)),
        row("sam", (8.0, 8.1, 8.3), (4.0, 4.0, 4.0), cost=2.0),
    ]
    use, gains, _ = said(rows).sentences
    assert use.startswith("Use SGD ")
    assert "points more" in gains


def test_the_longest_schedule_is_neither_the_base_nor_the_winner() -> None:
    rows = [
        row("base", (5.0, 5.1, 5.2), (5.0, 5.0, 5.0)),
        row("base", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), longest=True),
        row("sam", (8.0, 8.1, 8.3), (6.0, 6.0, 6.0), cost=2.0),
    ]
    found = said(rows)
    assert "on 5.10 %" in found.sentences[1]


def test_an_average_of_the_base_is_the_rival_of_sam() -> None:
    rows = [
        row("base", (9.0, 9.1, 9.2), (9.0, 9.0, 9.0)),
        row("base", (5.0, 5.1, 5.2), (5.0, 5.0, 5.0), averaged=True),
        row("sam", (8.0, 8.1, 8.3), (6.0, 6.0, 6.0), cost=2.0),
    ]
    found = said(rows)
    assert found.sentences[0].startswith("Use SGD, averaged with")


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"train_error": 30.0}, "SAM did not fit its training set: it errs on 30.0 %"),
        ({"train_error": 42.0, "noise": 0.4}, ""),
        ({"train_error": 46.0, "noise": 0.4}, "did not fit"),
    ],
)
def test_a_training_set_that_was_not_fitted_is_said(
    change: dict[str, Any], warning: str
) -> None:
    rows = [
        row("base", (10.0, 11.0, 12.0), (10.0, 11.0, 12.0)),
        row("sam", (6.0, 7.1, 7.9), (6.0, 6.0, 6.0), cost=2.0, **change),
    ]
    found = " ".join(said(rows).warnings)
    assert warning in found
    assert bool(found) == bool(warning)


def test_few_validation_images_cannot_tell_and_it_says_so() -> None:
    rows = [
        row("base", (10.0, 11.0, 12.0), (10.0, 11.0, 12.0)),
        row("sam", (6.0, 7.1, 7.9), (9.0, 9.0, 9.0), cost=2.0),
    ]
    [warning] = said(rows, images=90).warnings
    # sqrt((.11 * .89 + .09 * .91) / 270)
    assert "90 validation images with 3 seeds have a standard error of 2.6" in warning


def test_one_seed_has_no_interval_and_a_warning() -> None:
    rows = [
        row("base", (10.0,), (10.0,)),
        row("sam", (6.0,), (6.0,), cost=2.0),
    ]
    found = said(rows)
    assert "with one seed, no interval" in found.sentences[1]
    assert any(one.startswith("One seed ran") for one in found.warnings)


def of_seeds(arm: str, errors: float, **fields: Any) -> Row:
    seeds = (errors, errors + 1, errors + 2)
    return row(arm, seeds, seeds, cost=1.0 if arm == "base" else 2.0, **fields)


@pytest.mark.parametrize(
    ("base", "sam", "words", "settings"),
    [
        (
            {"lr": 0.2},
            {},
            "SGD chose lr 0.2, the largest that was tried",
            ["lrs=[0.25,0.5,1.0,2.0,4.0]"],
        ),
        (
            {"lr": 0.025},
            {},
            "SGD chose lr 0.025, the smallest that was tried",
            ["lrs=[0.125,0.25,0.5,1.0,2.0]"],
        ),
        # SAM has twice the gradients of a base with the same lengths.
        (
            {},
            {"rho": 1.0},
            "SAM chose rho 1, the largest that was tried",
            [
                "rhos=[0.01,1.0,2.0]",
                "lrs=[0.25,0.5,1.0,2.0,4.0]",
                "lengths=[0.5,1.0,2.0,4.0]",
            ],
        ),
        (
            {},
            {"rho": 0.01, "epochs": 20},
            "SAM chose rho 0.01, the smallest, and 20 epochs, the longest that was",
            [
                "rhos=[0.005,0.01,1.0]",
                "sam_lengths=[0.5,1.0,2.0,4.0]",
                "lrs=[0.25,0.5,1.0,2.0,4.0,8.0]",
                "lengths=[0.5,1.0,2.0,4.0]",
            ],
        ),
        (
            {"epochs": 5},
            {},
            "SGD chose 5 epochs, the shortest that was tried",
            ["lengths=[0.25,0.5,1.0,2.0]"],
        ),
    ],
)
def test_a_choice_at_the_edge_of_its_grid_names_a_grid_that_is_accepted(
    base: dict[str, Any], sam: dict[str, Any], words: str, settings: list[str]
) -> None:
    [warning] = said([of_seeds("base", 12, **base), of_seeds("sam", 6, **sam)]).warnings
    assert words in warning
    named = shlex.split(warning.partition("Widen the grid: ")[2].partition(", with")[0])
    assert named[::2] == ["--set"] * len(settings)
    assert named[1::2] == settings
    wider = changed(WHAT, settings)
    assert all(len(getattr(wider, one.partition("=")[0])) > 2 for one in settings)


def test_a_grid_of_one_value_has_no_edge_nor_is_the_shortest_of_two_lengths_one() -> (
    None
):
    what = changed(
        WHAT, ["lrs=[1]", "lengths=[1,2,8]", "sam_lengths=[1,2]", "rhos=[1]"]
    )
    rows = [of_seeds("base", 12, epochs=20), of_seeds("sam", 6, epochs=10, rho=1.0)]
    assert said(rows, what=what).warnings == ()


@pytest.mark.parametrize(
    ("settings", "arm", "fields"),
    [
        (["lrs=[1,10,100,1000]"], "base", {"lr": 1000 * WHAT.experiment.lr}),
        (["rhos=[300,600]"], "sam", {"rho": 600.0}),
        (["lrs=[250,500,1000]", "lengths=[500,1000]"], "sam", {"rho": 1.0}),
    ],
    ids=["lrs", "rhos", "no fair one"],
)
def test_where_no_wider_grid_is_possible_none_is_named(
    settings: list[str], arm: str, fields: dict[str, float]
) -> None:
    warning = edge_warning(changed(WHAT, settings), of_seeds(arm, 12, **fields))
    assert "that was tried; what lies beyond may be better." in warning
    assert "Widen the grid" not in warning


def test_digits_choices_lie_at_the_edge() -> None:
    what = digits()
    rows = [
        replace(of_seeds("base", 12, lr=0.2, epochs=8), setting=what.settings[0]),
        replace(of_seeds("sam", 6, rho=0.5, epochs=15), setting=what.settings[0]),
    ]
    found = said(rows, what=what).warnings
    assert [one.split(" that was")[0] for one in found] == [
        "SGD chose lr 0.2, the largest",
        "SAM chose rho 0.5, the largest",
    ]


def test_shared_images_come_first() -> None:
    rows = [of_seeds("base", 12), of_seeds("sam", 6)]
    found = verdict(WHAT, rows, 10_000, ["2 of 9 test images are training images too."])
    assert found.warnings == ("2 of 9 test images are training images too.",)
