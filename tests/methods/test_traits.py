"""What a method says of itself is what it does: its requests are looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from flatmin.core import Ask, Gradients, Method, Program, Step, all_examples
from flatmin.core._program import translated
from tests.methods.table import NAMES, TRAITS, built, train
from tests.problems import Noisy

every_method = pytest.mark.parametrize("name", NAMES)


def noisy() -> Noisy:
    torch.manual_seed(0)
    return Noisy().double()


@dataclass(frozen=True)
class Recorded(Method):
    """A method whose requests are kept, step by step."""

    method: Method
    steps: list[list[Ask]] = field(default_factory=list[list[Ask]])

    def __call__(self, step: Step) -> Program:
        self.steps.append([])
        return translated(self.method(step), self.note)

    def note(self, ask: Ask, g: Gradients) -> Gradients:
        self.steps[-1].append(ask)
        return g


def requests(name: str) -> list[list[Ask]]:
    """Those of eight steps."""
    model = noisy()
    optimizer = built(name, model)
    optimizer.method = recorded = Recorded(optimizer.method)
    train(optimizer, model, 8)
    return recorded.steps


@every_method
def test_a_method_wants_from_the_loop_what_it_says(name: str) -> None:
    asked = [ask for step in requests(name) for ask in step]
    traits = TRAITS[name]
    assert traits.needs_take == any(ask.batch is not all_examples for ask in asked)
    assert traits.needs_losses == any(ask.each for ask in asked)
    assert traits.needs_parts == any(ask.part is not None for ask in asked)
    assert traits.second_order == any(ask.along is not None for ask in asked)


@every_method
def test_a_method_says_whether_it_skips_w(name: str) -> None:
    at_w = [any(ask.at is None for ask in step) for step in requests(name)]
    assert TRAITS[name].skips_w == (not all(at_w))


@every_method
def test_a_method_is_asked_for_no_program_where_nothing_moves(name: str) -> None:
    model = noisy()
    optimizer = built(name, model, rho=0.0)
    optimizer.method = recorded = Recorded(optimizer.method)
    train(optimizer, model, 2)
    assert recorded.steps == []
    optimizer.param_groups[0]["sam_rho"] = 0.1
    train(optimizer, model, 1)
    assert len(recorded.steps) == 1
