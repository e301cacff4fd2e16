"""What a measurement says of itself."""

import dataclasses
import json
import math
import pickle

import pytest
import torch

from flatmin.diagnostics import GroupMean, Maximum, Measurement
from flatmin.diagnostics._record import plain


def measured(**fields: object) -> Measurement:
    values = {"name": "sharpness", "value": 0.42531, "n": 900}
    return Measurement(**{**values, **fields})  # pyright: ignore[reportArgumentType]


def test_it_reads_as_one_line() -> None:
    settings = {"rho": 0.05, "p": 2.0}
    assert repr(measured(settings=settings, how="one step")) == (
        "sharpness 0.4253 (rho 0.05, p 2, one step; n = 900)"
    )
    assert repr(measured(settings={"p": math.inf}, error=0.0123)) == (
        "sharpness 0.4253 ± 0.012 (p inf; n = 900)"
    )
    assert repr(measured()) == "sharpness 0.4253 (n = 900)"


def test_it_is_a_number_and_cannot_be_changed() -> None:
    record = measured()
    assert float(record) == 0.42531
    assert f"{float(record):.2f}" == "0.43"
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.value = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_it_survives_json_and_pickle() -> None:
    record = Maximum(
        name="worst",
        value=1.0,
        n=3,
        settings={"p": math.inf},
        history=(0.5, 1.0),
        starts=(1.0, 0.7),
    )
    assert json.loads(json.dumps(record.to_dict(), allow_nan=False)) == {
        "name": "worst",
        "value": 1.0,
        "n": 3,
        "error": None,
        "settings": {"p": "inf"},
        "how": "",
        "history": [0.5, 1.0],
        "starts": [1.0, 0.7],
    }
    assert pickle.loads(pickle.dumps(record)) == record
    groups = GroupMean(name="m", value=1.0, n=3, groups=3)
    assert groups.to_dict()["groups"] == 3


def test_tensors_and_records_inside_become_plain() -> None:
    assert plain(torch.tensor([1.0, math.nan])) == [1.0, "nan"]
    assert plain({"a": measured()})["a"]["name"] == "sharpness"
