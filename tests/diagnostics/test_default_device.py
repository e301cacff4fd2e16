"""Tensors are made where the weights are, whatever torch's default device is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from flatmin.diagnostics import (
    Objective,
    average_sharpness,
    m_sharpness,
    sharpness,
    trace,
    worst_sharpness,
)
from flatmin.diagnostics import directions as directed
from flatmin.diagnostics import landscape as landscapes
from flatmin.diagnostics._record import Measurement
from tests.diagnostics.small import dense, two

MEASURES: dict[str, Callable[[Objective], Any]] = {
    "sharpness": sharpness,
    "m-sharpness": m_sharpness,
    "worst sharpness": lambda o: worst_sharpness(o, steps=1, restarts=1),
    "average sharpness": lambda o: average_sharpness(o, draws=2),
    "trace": lambda o: trace(o, draws=3),
    "line": lambda o: landscapes.line(o, directed.random(o, 0), a=(0.0, 1.0)),
    "threads": lambda o: landscapes.line(o, two(o)[0], a=(0.0, 1.0), how="threads"),
    "plane of states": lambda o: directed.trajectory_pca(
        o, [[p + k * k * x for p, x in zip(o.w, two(o)[k % 2], strict=True)]
            for k in range(4)]
    ).shares,
    "loss": lambda o: Objective(o.model, o.criterion, o.data).loss(),
}  # fmt: skip


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_numbers_do_not_depend_on_the_default_device(
    measure: Callable[[Objective], Any],
) -> None:
    objective = dense()
    expected = measure(objective)
    before = torch.get_default_device()
    torch.set_default_device("meta")
    try:
        found = measure(objective)
    finally:
        torch.set_default_device(before)
    if isinstance(expected, Measurement):
        assert found.to_dict() == expected.to_dict()
    else:
        assert found == expected
