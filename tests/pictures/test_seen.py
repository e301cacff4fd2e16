"""From where landscapes are looked at, and the sentence on what is to be seen."""

from __future__ import annotations

import math

import pytest

from flatmin.diagnostics.landscape import Plane, axis
from flatmin.pictures import Scale
from flatmin.pictures._seen import seen, view
from tests.pictures.test_static import both, bowl

#: The mean of a*a + b*b over the points of a 9 by 9 grid within 0.5 of its middle.
MEAN = sum(
    (a * a + b * b) * (math.hypot(a, b) <= 0.5) for a in axis(9) for b in axis(9)
) / sum(math.hypot(a, b) <= 0.5 for a in axis(9) for b in axis(9))


def test_the_wider_minimum_is_named_with_how_far_the_loss_rises() -> None:
    assert seen(both(), "training loss") == (
        "Within distance 0.5 of the middle, the training loss rises on average by "
        f"{MEAN:.2g} around flat and by {9 * MEAN:.2g} around sharp: in this plane, "
        "the minimum of flat is the wider."
    )


def test_of_three_one_is_the_widest() -> None:
    planes = {str(k): bowl(k) for k in (3.0, 1.0, 2.0)}
    assert seen(planes, "loss").endswith(
        f"by {MEAN:.2g} around 1.0, by {2 * MEAN:.2g} around 2.0 and by "
        f"{3 * MEAN:.2g} around 3.0: in this plane, the minimum of 1.0 is the widest."
    )


def test_numbers_that_look_equal_name_no_winner() -> None:
    assert "wider" not in seen({"a": bowl(1.0), "b": bowl(1.0001)}, "loss")
    assert seen({"": bowl(1.0)}, "loss").endswith(f"by {MEAN:.2g} around the model.")


def test_a_middle_that_is_no_minimum_is_not_called_one() -> None:
    text = seen({"hill": bowl(-1.0), "bowl": bowl(1.0)}, "loss")
    assert f"by {-MEAN:.2g} around hill" in text
    assert "minimum" not in text


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_no_number_is_no_rise_by_a_number(loss: float) -> None:
    losses = ((0.0, 0.0, 0.0), (0.0, 0.0, loss), (0.0, 0.0, 0.0))
    broken = Plane(a=axis(3, 2.0), b=axis(3, 2.0), losses=losses)
    assert "nan" not in seen({"x": broken}, "loss")
    near = Plane(a=(-2.0, -1.0, 0.0, 1.0, 2.0), b=axis(3, 2.0), losses=(
        (0.0,) * 5, (0.0, 0.0, 0.0, loss, 0.0), (0.0,) * 5,
    ))  # fmt: skip
    assert "rises on average without bound around x" in seen({"x": near}, "loss")


def test_planes_that_do_not_surround_their_model_have_no_sentence() -> None:
    plane = Plane(a=(0.0, 1.0), b=(0.0, 1.0), losses=((0.0, 1.0), (1.0, 2.0)))
    assert seen({"x": plane}, "loss") == ""


@pytest.mark.parametrize(
    ("corner", "azimuth"),
    [((1, 1), 33.0), ((-1, 1), 123.0), ((-1, -1), -147.0), ((1, -1), -57.0)],
)
def test_the_camera_looks_in_over_the_lowest_corner(
    corner: tuple[int, int], azimuth: float
) -> None:
    u, v = corner
    slope = Plane(
        a=axis(9),
        b=axis(9),
        losses=tuple(tuple(5.0 - 2 * a * u - b * v for a in axis(9)) for b in axis(9)),
    )
    elevation, found = view([slope], Scale.of([slope], top=8.0))
    assert (elevation, found) == (52.0, azimuth)
