"""Every method in the loop: it trains, or is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from torch import Tensor, nn

from flatmin.experiments.errors import BadInput
from flatmin.experiments.launch import launched
from flatmin.experiments.prepare import fewest
from flatmin.experiments.train import Training
from flatmin.methods import METHODS
from tests.experiments.loop.problems import pictures, small, trained

NEEDED = {
    "sparse_sam": {"every": 2},
    "late_sam": {"steps": 2, "share": 0.5},
    "late_subset_sam": {"steps": 2, "late": 0.5},
    "ae_sam": {"steps": 2},
    "split_rwp": {"steps": 2},
    "bsam": {"n": 8},
}
#: An experiment has one loss, and no adapters.
ELSEWHERE = ("part_sam", "flat_lora")
REFUSED = {
    "m=4": {"bsam", "ire", "sampa", *ELSEWHERE},
    "accumulate=2": {"k_sam", "esam", *ELSEWHERE},
    "precision=bf16-mixed": {"k_sam", "esam", "second_order_sam", *ELSEWHERE},
}
#: bsam wants to do these by itself.
BARE: dict[str, Any] = {"model": "resnet-8", "momentum": 0.0, "weight_decay": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "m=4": {"m": 4},
    "accumulate=2": {"accumulate": 2},
    "precision=bf16-mixed": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_method_trains_or_says_why_not(setting: str, tmp_path: Path) -> None:
    data, refused = pictures(8, 4), dict[str, str]()
    for name in METHODS:
        fields = {"method_options": NEEDED.get(name, {}), **BARE, **SETTINGS[setting]}
        if name == "momentum_sam":
            fields["momentum"] = 0.9
        try:
            experiment = small(method=name, steps=2, **fields)
            trained(experiment, tmp_path / name, data)
        except (ValidationError, BadInput) as error:
            refused[name] = str(error)
    assert set(refused) == REFUSED[setting]
    assert all(name in message for name, message in refused.items())


def test_an_experiment_that_names_a_method_as_before_still_trains(
    tmp_path: Path,
) -> None:
    trained(small(method="pnm", method_options={"alpha": 0.5}, steps=1), tmp_path)


def test_options_that_a_method_does_not_take_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"method sam: .*'decay'"):
        trained(small(method_options={"decay": 1}), tmp_path)
    with pytest.raises(BadInput, match=r"method late_sam: .*steps"):
        trained(small(method="late_sam"), tmp_path)


def test_infinity_can_be_an_option(tmp_path: Path) -> None:
    trained(small(method_options={"p": "inf"}, steps=1), tmp_path)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_fewest_examples_of_a_pass_are_known_before(accumulate: int) -> None:
    choosing = ("k_sam", "esam") if accumulate > 1 else ()
    for name in METHODS.keys() - {*ELSEWHERE, *choosing}:
        options = NEEDED.get(name, {})
        experiment = small(method=name, method_options=options, accumulate=accumulate)
        if name == "bsam":
            experiment = experiment.model_copy(update=BARE)
        training = Training(launched(experiment), experiment, pictures(8, 4))
        assert min(passes(training)) == fewest(experiment, 8), name


def passes(training: Training) -> list[int]:
    """How many examples each pass of two epochs has."""
    sizes: list[int] = []

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        sizes.append(len(inputs[0]))

    training.model.register_forward_pre_hook(note)
    training.train_mode()
    for epoch in range(2):
        for groups in training.batches.train(epoch):
            training.step(groups)
    return sizes
