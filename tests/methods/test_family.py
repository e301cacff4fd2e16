"""What the table says of each method, and what all of them hand on to SAM."""

import copy

import pytest
import torch
from torch.nn import functional as F

from flatmin.core import Decayed
from flatmin.methods import METHODS
from tests.methods.table import NAMES, base_for, built, data_of, loop
from tests.problems import mlp

every_method = pytest.mark.parametrize("name", NAMES)


@every_method
def test_options_of_sam_reach_it(name: str) -> None:
    optimizer = built(name, mlp(), decay_in_ascent=True, replay_rng=False)
    assert isinstance(optimizer.method, Decayed)
    assert optimizer.options["replay_rng"] is False


@every_method
def test_the_radius_is_the_one_that_was_given(name: str) -> None:
    optimizer = built(name, mlp(), rho=0.375)
    assert optimizer.param_groups[0]["sam_rho"] == 0.375


@every_method
def test_without_a_radius_a_step_is_that_of_the_base_at_its_price(name: str) -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    optimizer, base = built(name, model, rho=0.0), base_for(name, twin.parameters())
    for step in range(3):
        loop(optimizer, model)
        assert optimizer.statistics.passes == 1
        optimizer.step()
        x, y = data_of(step)
        base.zero_grad()
        F.cross_entropy(twin(x), y, reduction="none").mean().backward()
        base.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_line_of_a_method_is_the_first_of_its_docstring() -> None:
    line = "Sharpness-aware minimization around any base optimizer."
    assert METHODS["sam"].line == line
