"""What the table says of each method, and what all of them hand on to SAM."""

import pytest

from flatmin.core import Decayed
from flatmin.methods import METHODS
from tests.methods.table import NAMES, built
from tests.problems import mlp


@pytest.mark.parametrize("name", NAMES)
def test_options_of_sam_reach_it(name: str) -> None:
    optimizer = built(name, mlp(), decay_in_ascent=True, replay_rng=False)
    assert isinstance(optimizer.method, Decayed)
    assert optimizer.options["replay_rng"] is False


def test_the_line_of_a_method_is_the_first_of_its_docstring() -> None:
    line = "Sharpness-aware minimization around any base optimizer."
    assert METHODS["sam"].line == line
