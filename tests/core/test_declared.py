"""What a method says of itself before it runs: its traits."""

from dataclasses import dataclass, fields, replace

import pytest

from flatmin.core import (
    Ask,
    Decayed,
    Method,
    PerGroup,
    PerLayer,
    Program,
    Step,
    Traits,
    TwoPoint,
    Unnormalised,
    fraction,
    sources,
)
from flatmin.core.combine import Remembered
from flatmin.core.examples import HighestRise
from flatmin.core.programs import Alternating


@dataclass(frozen=True)
class Declaring(Method):
    """A method with traits by hand."""

    own: Traits

    @property
    def traits(self) -> Traits:
        return self.own

    def __call__(self, step: Step) -> Program:
        return (yield Ask())


EVERY = Traits(
    remembers=("sum",),
    notes=("count",),
    needs_unscaled=True,
    adds_up=False,
    needs_take=True,
    needs_losses=True,
    second_order=True,
    needs_parts=True,
    skips_w=True,
)


def test_a_method_is_silent_by_default_and_needs_nothing() -> None:
    assert TwoPoint().traits == Traits()
    for field in fields(Traits):
        assert getattr(EVERY, field.name) != getattr(Traits(), field.name)


def test_a_decayed_method_has_the_traits_of_the_one_within() -> None:
    assert Decayed(Declaring(EVERY)).traits == EVERY


def test_a_decayed_method_needs_gradients_without_their_scale() -> None:
    assert Decayed(TwoPoint()).traits == Traits(needs_unscaled=True)


@pytest.mark.parametrize("field", [field.name for field in fields(Traits)])
def test_two_parts_together_have_each_trait_of_either(field: str) -> None:
    one = replace(Traits(), **{field: getattr(EVERY, field)})
    assert one | Traits() == Traits() | one == one
    assert one | EVERY == EVERY | one or field in ("remembers", "notes")


def test_names_of_two_parts_are_added_up() -> None:
    assert (EVERY | Traits(remembers=("mean",))).remembers == ("sum", "mean")
    assert (EVERY | Traits(notes=("size",))).notes == ("count", "size")


def test_two_points_remember_what_their_joints_do() -> None:
    method = TwoPoint(source=sources.friendly(1.0, 0.9), combine=Remembered())
    assert method.traits.remembers == ("friend", "stale")


def test_a_source_around_a_source_remembers_for_both() -> None:
    source = sources.friendly(1.0, 0.9, sources.smoothed(0.5))
    assert TwoPoint(source=source).traits.remembers == ("smooth", "friend")
    source = sources.smoothed(0.5, sources.friendly(1.0, 0.9))
    assert TwoPoint(source=source).traits.remembers == ("friend", "smooth")


@pytest.mark.parametrize("around", [PerGroup, PerLayer])
def test_a_ball_per_group_has_the_traits_of_the_ball(around: type[PerGroup]) -> None:
    assert TwoPoint(metric=around(Unnormalised())).traits.needs_unscaled


def test_a_part_of_the_batch_has_to_be_taken_and_all_of_it_not() -> None:
    assert TwoPoint(batch=fraction(0.5)).traits.needs_take
    assert not TwoPoint(batch=fraction(1.0)).traits.needs_take
    assert HighestRise(0.5, 0.5).traits.needs_losses
    assert not HighestRise(0.5, 1.0).traits.needs_losses


def test_an_alternating_method_has_the_traits_of_its_climb() -> None:
    method = Alternating(TwoPoint(metric=Unnormalised()))
    assert method.traits.needs_unscaled
    assert method.traits.remembers == ("first",)
