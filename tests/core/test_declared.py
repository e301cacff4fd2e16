"""What a method says of itself: what it remembers, and whether its steps add up."""

from flatmin.core import Ask, Decayed, Program, Step, TwoPoint, sources
from flatmin.core.combine import Remembered


class Counting:
    remembers = ("sum",)
    notes = ("count",)
    adds_up = False

    def __call__(self, step: Step) -> Program:
        return (yield Ask())


def test_a_decayed_method_declares_what_the_one_within_declares() -> None:
    method = Decayed(Counting())
    assert method.remembers == ("sum",)
    assert method.notes == ("count",)
    assert method.adds_up is False


def test_a_decayed_method_declares_nothing_where_the_one_within_is_silent() -> None:
    method = Decayed(TwoPoint())
    assert method.remembers == ()
    assert method.notes == ()
    assert method.adds_up is True


def test_two_points_remember_what_their_joints_do() -> None:
    method = TwoPoint(source=sources.friendly(1.0, 0.9), combine=Remembered())
    assert method.remembers == ("friend", "stale")
