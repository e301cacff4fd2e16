"""Every method in the loop: it trains, or is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flatmin.experiments.errors import BadInput
from flatmin.methods import METHODS
from tests.experiments.loop.problems import pictures, small, trained

NEEDED = {
    "sparse_sam": {"every": 2},
    "late_sam": {"steps": 2},
    "ae_sam": {"steps": 2},
    "bsam": {"n": 8},
}
REFUSED = {
    "m=4": {"bsam"},
    "accumulate=2": {"k_sam", "esam"},
    "precision=bf16-mixed": {"k_sam", "esam", "second_order_sam"},
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
        try:
            experiment = small(method=name, steps=2, **fields)
            trained(experiment, tmp_path / name, data)
        except (ValidationError, BadInput) as error:
            refused[name] = str(error)
    assert set(refused) == REFUSED[setting]
    assert all(name in message for name, message in refused.items())


def test_options_that_a_method_does_not_take_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"method sam: .*'decay'"):
        trained(small(method_options={"decay": 1}), tmp_path)
    with pytest.raises(BadInput, match=r"method late_sam: .*steps"):
        trained(small(method="late_sam"), tmp_path)


def test_infinity_can_be_an_option(tmp_path: Path) -> None:
    trained(small(method_options={"p": "inf"}, steps=1), tmp_path)
