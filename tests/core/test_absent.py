"""Programs by hand, where a gradient is missing or nothing may move."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flatmin.core import Ask, Gradients, Program, Step
from flatmin.core.nested import Lookbehind
from flatmin.core.programs import MultiStep
from flatmin.core.sparse import FisherMasked


def step_of(w: list[Tensor], index: int = 0) -> Step:
    groups = [{"sam_rho": 0.5}]
    return Step(index, nn.Module(), w, groups, group_of=[0 for _ in w])


def answered(program: Program, answers: list[Gradients]) -> tuple[list[Ask], Gradients]:
    """What the program asked for, each request answered in turn, and its result."""
    asked = [next(program)]
    for answer in answers[:-1]:
        asked.append(program.send(answer))
    with pytest.raises(StopIteration) as done:
        program.send(answers[-1])
    return asked, done.value.value


def test_the_fisher_information_of_an_example_outlives_one_without_gradient() -> None:
    step = step_of([torch.zeros(1), torch.zeros(1)])
    one, two, three = (torch.tensor([x]) for x in (1.0, 2.0, 3.0))
    # Summed over both examples it is 9 and 5; of the last one alone 0 and 1.
    examples: list[Gradients] = [[three, two], [None, one]]
    program = FisherMasked(share=0.5, every=1, samples=2)(step)
    answered(program, [[one, one], *examples, [one, one]])
    assert step.memory.recall("mask") == [torch.ones(1), torch.zeros(1)]


def test_a_sparse_step_without_gradients_stays_where_it_is() -> None:
    step = step_of([torch.ones(2)], index=1)
    step.memory.keep("mask", [torch.ones(2)])
    program = FisherMasked(share=0.5, every=2, samples=1)(step)
    asked, found = answered(program, [[None], [None]])
    assert [ask.at for ask in asked] == [None, None]
    assert found == [None]


def test_a_climb_that_goes_on_without_gradients_stays_where_it_is() -> None:
    step = step_of([torch.ones(2)], index=1)
    for name in ("slow", "climbed"):
        step.memory.keep(name, [torch.ones(2)])
    step.memory.keep("uphill", [None])
    step.memory.note("block", 0)
    asked, found = answered(Lookbehind(k=2, alpha=1.0)(step), [[None]])
    assert [ask.at for ask in asked] == [None]
    assert found == [None]


@pytest.mark.parametrize(("first", "second"), [(None, 3.0), (3.0, None), (None, None)])
def test_a_climb_of_two_steps_goes_as_far_as_there_are_gradients(
    first: float | None, second: float | None
) -> None:
    found: list[Gradients] = [
        [None if x is None else torch.tensor([x])] for x in (first, second, 1.0)
    ]
    asked, _ = answered(MultiStep(2)(step_of([torch.zeros(1)])), found)
    ends = [ask.at and tuple(ask.at.eps) for ask in asked]
    up = (torch.tensor([0.5]),)
    assert ends == [None, first and up, (first or second) and up]


def test_the_first_climb_is_as_long_as_asked_for_beside_large_weights() -> None:
    """A perturbation of 0.5 is lost in the difference of two places at 1e8."""
    step = step_of([torch.full((1,), 1e8)])
    asked, _ = answered(Lookbehind(k=2, alpha=1.0)(step), [[torch.ones(1)]] * 2)
    ascent = asked[1].at
    assert ascent is not None
    assert tuple(ascent.eps) == (torch.full((1,), 0.5),)
