"""One scale for all, nothing invented, and files that papers take."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from mpl_toolkits.mplot3d import proj3d
from PIL import Image

from flatmin import pictures
from flatmin.diagnostics.landscape import Line, Plane, axis
from flatmin.pictures import Scale, static
from flatmin.pictures._scale import cut, finer
from flatmin.pictures._seen import _AZIMUTHS, _ELEVATION


def bowl(height: float, points: int = 9, **more: Any) -> Plane:
    at = axis(points)
    losses = tuple(tuple(height * (a * a + b * b) for a in at) for b in at)
    return Plane(**{"a": at, "b": at, "losses": losses, **more})


def both() -> dict[str, Plane]:
    return {"sharp": bowl(9.0), "flat": bowl(1.0, marks=(("other", 0.5, 0.5),))}


def test_one_scale_holds_all_planes() -> None:
    wide = Plane(
        a=(-2.0, 1.0), b=(0.0, 3.0), losses=((0.5, math.inf), (-1.0, math.nan))
    )
    scale = Scale.of([wide, bowl(1.0)], top=4.0)
    assert (scale.low, scale.top) == (-1.0, 4.0)
    assert (scale.a, scale.b) == ((-2.0, 1.0), (-1.0, 3.0))


def test_by_default_a_quarter_of_the_losses_is_above_the_top() -> None:
    planes = list(both().values())
    top = Scale.of(planes).top
    losses = np.ravel([plane.losses for plane in planes])
    assert np.mean(losses > top) <= 0.25 <= np.mean(losses >= top)


def test_planes_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match="no plane"):
        Scale.of([])
    with pytest.raises(ValueError, match="no loss of these planes"):
        Scale.of([Plane(a=(0.0,), b=(0.0,), losses=((math.nan,),))])
    with pytest.raises(ValueError, match=r"above the lowest loss 0, got -1"):
        Scale.of([bowl(1.0)], top=-1.0)
    with pytest.raises(ValueError, match=r"two points along each direction"):
        Scale.of([Plane(a=(0.0, 1.0), b=(0.0,), losses=((1.0, 2.0),))])


def test_axes_may_fall() -> None:
    falling = Plane(
        a=(1.0, 0.0, -1.0), b=(2.0, 0.0), losses=((5.0, 4.0, 3.0), (1.0, 0.0, 2.0))
    )
    a, b, loss = finer(falling, Scale.of([falling], top=100.0), points=5)
    assert a.tolist() == [1.0, 0.5, 0.0, -0.5, -1.0]
    assert b.tolist() == [2.0, 1.5, 1.0, 0.5, 0.0]
    assert loss[0].tolist() == [5.0, 4.5, 4.0, 3.5, 3.0]
    assert loss[2].tolist() == [3.0, 2.5, 2.0, 2.25, 2.5]


def test_levels_are_round_and_end_at_the_top() -> None:
    levels = Scale.of([bowl(3.0)], top=4.6).levels()
    assert levels.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 4.6]


def test_more_points_are_bilinear() -> None:
    plane = Plane(a=(0.0, 1.0), b=(0.0, 2.0), losses=((0.0, 1.0), (2.0, 5.0)))
    a, b, loss = finer(plane, Scale.of([plane], top=100.0), points=3)
    assert a.tolist() == [0.0, 0.5, 1.0]
    assert b.tolist() == [0.0, 1.0, 2.0]
    assert loss.tolist() == [[0.0, 0.5, 1.0], [1.0, 2.0, 3.0], [2.0, 3.5, 5.0]]


def test_a_surface_ends_where_it_crosses_the_top() -> None:
    steep = Plane(a=axis(5), b=(0.0, 1.0), losses=((0.0, 1.0, 5.0, 9.0, math.inf),) * 2)
    x, y, z = cut(steep, Scale.of([steep], top=2.0), points=2)
    np.testing.assert_array_equal(z[0], [0.0, 1.0, 2.0, np.nan, np.nan])
    np.testing.assert_allclose(x[0], [-1.0, -0.5, -0.375, 0.5, 1.0])
    np.testing.assert_allclose(y[:, 2], [0.25, 0.75], atol=0.26)


def test_the_rim_of_a_surface_is_no_staircase() -> None:
    plane = bowl(9.0, points=41)
    x, y, z = cut(plane, Scale.of([plane], top=4.0), points=81)
    rim = np.isclose(z, 4.0, atol=1e-9)
    assert np.count_nonzero(rim) > 100
    # A cell is 0.025 wide, so far from the circle a step would be.
    np.testing.assert_allclose(np.hypot(x, y)[rim], 2 / 3, atol=0.004)


def test_what_is_no_number_is_a_gap() -> None:
    plane = Plane(a=(0.0, 1.0), b=(0.0, 1.0), losses=((0.0, math.nan), (1.0, 1.0)))
    _, _, loss = cut(plane, Scale.of([plane], top=4.0), points=2)
    assert np.isnan(loss).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("draw", [pictures.contour, pictures.surface])
def test_panels_share_axes_and_colours(draw: Any) -> None:
    figure = draw(both(), top=4.0)
    panels = [panel for panel in figure.axes if panel.get_title() in both()]
    assert [panel.get_title() for panel in panels] == ["sharp", "flat"]
    for panel in panels:
        assert panel.get_xlim() == pytest.approx((-1, 1), abs=0.05)
        assert panel.get_xlabel() == "u"
        assert panel.get_ylabel() == "v"
        drawn = [c for c in panel.collections if c.get_array() is not None]
        assert {c.get_clim() for c in drawn if c.get_cmap().name == "viridis"} == {
            (0.0, 4.0)
        }
    if draw is pictures.surface:
        assert len({panel.get_zlim() for panel in panels}) == 1


@pytest.mark.parametrize("draw", [pictures.contour, pictures.surface])
def test_a_plane_with_gaps_and_without_a_name_is_drawn(draw: Any) -> None:
    losses = ((0.0, math.nan, 1.0), (1.0, math.inf, 1.0), (2.0, 1.0, 3.0))
    figure = draw(Plane(a=axis(3), b=axis(3), losses=losses), top=2.5)
    assert pictures.encoded(figure, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", [pictures.contour, pictures.surface])
def test_vector_files_keep_text_and_do_not_depend_on_the_moment(draw: Any) -> None:
    svg = [pictures.encoded(draw(both(), loss="error <i>"), "svg") for _ in range(2)]
    assert svg[0] == svg[1]
    assert b"sharp" in svg[0]
    assert b"error &lt;i&gt;" in svg[0]
    assert pictures.encoded(draw(both()), "pdf").startswith(b"%PDF")


def test_surfaces_stand_in_columns() -> None:
    figure = pictures.surface({str(k): bowl(1.0, 3) for k in range(4)}, columns=2)
    spans = [panel.get_subplotspec().rowspan.start for panel in figure.axes]  # pyright: ignore
    assert spans == [0, 0, 1, 1]


def test_no_tick_is_in_the_corner_where_two_axes_meet() -> None:
    figure = pictures.surface(both())
    for panel in figure.axes[:2]:
        for ticks in (panel.get_xticks(), panel.get_yticks()):
            assert len(ticks) >= 2
            assert max(abs(ticks)) < 1.0


def test_a_title_is_above_its_surface() -> None:
    figure = pictures.surface({"one": bowl(1.0)})
    figure.canvas.draw()
    panel: Any = figure.axes[0]
    text = panel.title.get_window_extent()
    highest = panel.transData.transform(
        [
            proj3d.proj_transform(x, y, z, panel.get_proj())[:2]
            for x in panel.get_xlim()
            for y in panel.get_ylim()
            for z in panel.get_zlim()
        ]
    )[:, 1].max()
    assert text.y0 > highest


@pytest.mark.parametrize("azimuth", _AZIMUTHS)
def test_nothing_of_a_surface_is_cut_off(azimuth: float) -> None:
    scale = Scale.of(both().values(), 100.0)
    figure = static.relief(bowl(9.0), scale, "training loss", (_ELEVATION, azimuth))
    png = io.BytesIO(pictures.encoded(figure, "png"))
    ink = np.asarray(Image.open(png).convert("L")) < 250
    edges = (ink[:3], ink[-3:], ink[:, :3], ink[:, -3:])
    assert not any(edge.any() for edge in edges)


def test_a_line_is_the_median_and_its_band_the_range() -> None:
    several = [Line(a=(0.0, 1.0), losses=(k, 2 * k)) for k in (1.0, 2.0, 9.0)]
    figure = pictures.line({"many": several, "one": several[0]}, top=12.0)
    panel: Any = figure.axes[0]
    many, one = panel.lines
    assert np.asarray(many.get_ydata()).tolist() == [2.0, 4.0]
    assert np.asarray(one.get_ydata()).tolist() == [1.0, 2.0]
    (band,) = panel.collections
    box = band.get_paths()[0].get_extents()
    assert (box.y0, box.y1) == (1.0, 18.0)
    assert panel.get_ylim()[1] == 12.0
    assert many.get_linestyle() != one.get_linestyle()
    assert pictures.line(several[0]).axes[0].get_legend() is None
    with pytest.raises(ValueError, match="different coordinates"):
        pictures.line({"x": [several[0], Line(a=(0.0, 2.0), losses=(1.0, 1.0))]})


@pytest.mark.filterwarnings("error")
def test_a_name_that_the_font_lacks_is_drawn_without_a_warning() -> None:
    figure = pictures.line({"\u65e5": Line(a=(0.0, 1.0), losses=(1.0, 2.0))})
    assert pictures.encoded(figure, "png")
