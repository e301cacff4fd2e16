"""How long a comparison takes: arithmetic on times that are given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments.compare.estimate import Times, Work, seconds, timed, work
from flatmin.experiments.compare.request import changed, digits
from flatmin.experiments.cost import Cost
from flatmin.experiments.datasets import images_of
from flatmin.experiments.launch import launched

#: Of digits with a batch of 90: 10 steps an epoch, 9 while 90 images are held out.
SETTINGS = ("noise=[0.4]", "batch_size=90", "epochs=10", "lengths=[1,2]", "lrs=[1]")
SAM = ("rhos=[0.2]", "sam_lengths=[1]", "seeds=5", "search_seeds=2")

#: A gradient of an example takes 1 second, and testing an image 1,000.
COSTS = {
    "base": Cost(1, 1.0, 1.0, 1000.0),
    "sam": Cost(1, 2.0, 1.0, 1000.0),
    "subset-sam": Cost(1, 1.25, 1.0, 1000.0),
}


def of_digits(*settings: str) -> Work:
    what = changed(digits(), [*SETTINGS, *SAM, *settings])
    [setting] = what.settings
    data = images_of(what.common(setting), Path())
    base: Any = None
    return work(what, setting, data, Times(COSTS, 7.0, base))


def test_a_run_that_chooses_tests_held_out_images_with_both_weights() -> None:
    # 91 held out, each tested with both weights; 809 trained, in 8 batches of 90.
    tests = 1000 * (2 * 91 + 809)
    found = of_digits("flatness_rho=null")
    assert found.base == [7 + 10 * 720 + tests, 7 + 20 * 720 + tests]
    assert found.methods == [
        7 + 2 * 10 * 720 + tests,
        7 + 1.25 * 10 * 720 + tests,
    ]


def test_a_final_run_is_as_long_as_the_longest_candidate_and_tests_ten_times() -> None:
    found = of_digits("flatness_rho=null")
    # Tests of each epoch, or of each second one, and the training set.
    once, twice = 1000 * (10 * 897 + 900), 1000 * (2 * 10 * 897 + 900)
    base = [7 + 20 * 900 + once, 7 + 20 * 900 + twice]
    sam = [7 + 2 * 10 * 900 + once, 7 + 2 * 10 * 900 + twice]
    subset = [7 + 1.25 * 10 * 900 + once, 7 + 1.25 * 10 * 900 + twice]
    assert found.final == [*base, *sam, *subset]


def test_sharpness_and_lambda_max_are_counted_for_final_runs_alone() -> None:
    plain, measured = of_digits("flatness_rho=null"), of_digits("flatness_rho=0.1")
    assert (measured.base, measured.methods) == (plain.base, plain.methods)
    # A pass forward and backward is worth three of a test; see `cost.estimate`.
    passes = 3 * (3 + 3 * 20)
    for one, other in zip(measured.final, plain.final, strict=True):
        assert one - other == 1000 * passes * 900


def test_landscapes_are_two_planes_of_tests_of_the_training_images() -> None:
    assert of_digits("landscape_points=5").landscapes == 1000 * 2 * 25 * 900
    assert of_digits("landscape_points=0").landscapes == 0


def test_processes_take_the_next_run_when_they_are_free_and_begin_late() -> None:
    what = changed(digits(), ["seeds=1", "search_seeds=1"])
    final = [5.0, 5.0, 5.0]
    one = Work(base=[10.0, 4.0, 3.0], methods=[7.0], final=final, landscapes=2.0)
    assert seconds(what, [one], 1, start=6.0) == 17 + 7 + 15 + 2
    # The second begins at 6 and is free at 10 and 13; both begin the others at 13.
    assert seconds(what, [one], 2, start=6.0) == 13 + 7 + 10 + 2
    # More processes than runs.
    assert seconds(what, [one], 9, start=1.0) == 10 + 7 + 5 + 2


def test_all_settings_and_seeds_are_counted() -> None:
    what = changed(digits(), ["seeds=5", "search_seeds=2"])
    one = Work(base=[10.0], methods=[3.0], final=[100.0], landscapes=1000.0)
    other = replace(one, base=[20.0])
    assert seconds(what, [one, other], 1, start=0.0) == 2 * 36 + 5 * 200 + 2000


def test_gradients_are_counted_in_steps_of_the_real_network() -> None:
    what = changed(digits(), ['model_options={"width": 2}', *SETTINGS, *SAM])
    [setting] = what.settings
    data = images_of(what.common(setting), Path())
    found = timed(launched(what.experiment), what, setting, data)
    gradients = {name: cost.gradients for name, cost in found.costs.items()}
    assert gradients == pytest.approx({"base": 1, "sam": 2, "subset-sam": 1.25}, 0.01)
    assert found.start > 0
    assert all(cost.seconds > 0 and cost.test > 0 for cost in found.costs.values())
