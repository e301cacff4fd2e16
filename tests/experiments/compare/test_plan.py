"""The plan: who tries what, and that the base has no fewer chances than SAM."""

import math
from typing import get_args

import pytest
from pydantic import ValidationError

from flatmin.experiments.compare.plan import (
    ARMS,
    BASE,
    Comparison,
    decay_over,
    point_name,
)
from flatmin.experiments.compare.request import changed, digits
from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput

SAM = ARMS[1]
OPTIMIZER = Experiment.model_fields["optimizer"].annotation


def with_fields(**fields: object) -> Comparison:
    return Comparison.model_validate({**digits().model_dump(), **fields})


def test_the_base_tries_every_length_with_every_learning_rate() -> None:
    what = digits()
    noise, _ = what.settings
    found = what.candidates(noise, BASE)
    assert {(one.epochs, one.lr) for one in found} == {
        (epochs, lr) for epochs in (4, 8, 15, 30, 60) for lr in (0.1, 0.2)
    }
    assert all(one.method == "sgd" and one.noise == 0.4 for one in found)


def test_sam_tries_every_radius_with_every_length() -> None:
    what = digits()
    found = what.candidates(what.settings[0], SAM)
    assert {(one.epochs, one.rho) for one in found} == {
        (epochs, rho) for epochs in (15, 30) for rho in (0.2, 0.5)
    }
    assert {one.lr for one in found} == {0.1}
    at = what.candidates(what.settings[0], SAM, lr=0.2)
    assert {one.lr for one in at} == {0.2}
    assert [one.rho for one in at] == [one.rho for one in found]


def test_an_average_of_millions_of_steps_still_moves() -> None:
    assert decay_over(1e9) < 1


@pytest.mark.parametrize("optimizer", get_args(OPTIMIZER))
def test_every_optimizer_has_a_name(optimizer: str) -> None:
    assert BASE.label(optimizer).lower() == optimizer


@pytest.mark.parametrize("arm", ARMS[1:])
def test_the_base_has_at_least_as_many_tries_and_gradients(arm: object) -> None:
    what = digits()
    assert what.tries(BASE) >= what.tries(arm)  # pyright: ignore[reportArgumentType]


def test_a_base_with_fewer_gradients_is_refused() -> None:
    with pytest.raises(ValidationError, match="give the base more lengths or lrs"):
        with_fields(lengths=(0.1, 0.2), sam_lengths=(1,))


def test_epochs_are_compared_as_they_are_trained() -> None:
    """A quarter of an epoch is trained as one."""
    with pytest.raises(BadInput, match="give the base more lengths or lrs"):
        changed(
            digits(),
            ["epochs=1", "lengths=[1]", "lrs=[1,2]", "sam_lengths=[0.25]"],
        )


def test_settings_of_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match="two settings have the same name"):
        changed(digits(), ["noise=[0.4, 0.4000000001]"])


def test_a_base_with_fewer_tries_is_refused() -> None:
    with pytest.raises(ValidationError, match="give the base more lengths or lrs"):
        with_fields(lengths=(10,))


@pytest.mark.parametrize("name", ["lengths", "lrs", "rhos", "sam_lengths"])
@pytest.mark.parametrize("values", [(), (0.0, 1.0), (-1.0,), (1.0, 1.0)])
def test_strange_grids_are_refused(name: str, values: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match=name):
        with_fields(**{name: values})


def test_lengths_below_an_epoch_are_one_candidate() -> None:
    what = digits()
    short = what.experiment.model_copy(update={"epochs": 2})
    what = what.model_copy(update={"experiment": short})
    names = [point_name(BASE, one) for one in what.candidates(what.settings[0], BASE)]
    assert len(names) == len(set(names)) == 6


def test_a_candidate_is_tested_on_held_out_images_with_noisy_labels() -> None:
    what = digits()
    one = what.candidates(what.settings[0], SAM)[0]
    run = what.search(one, 900, seed=2)
    assert (run.validation, run.noisy_validation, run.seed) == (0.1, True, 2)
    # A tenth of 15 epochs with 900 / 64 steps.
    assert run.ema == pytest.approx(math.exp(-1 / (1.5 * 900 / 64)), abs=1e-6)
    final = what.final(one, None, seed=2)
    assert (final.validation, final.ema, final.epochs) == (0.0, None, one.epochs)
