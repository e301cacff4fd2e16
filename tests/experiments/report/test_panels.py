"""What figures show: the points themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from flatmin.experiments.recipes._recipe import Cell, Recipe
from flatmin.experiments.report import figures
from flatmin.experiments.report._panels import curves, trends
from flatmin.experiments.report.figures import COST, Line, Panel
from tests.experiments.report.folders import (
    SAM,
    SGD,
    SGD_2X,
    begin,
    collected,
    complete,
    epoch,
    finish,
    start,
    tablet,
    two_numbers,
)

#: Half the width of the interval around the mean of a, a + 1 and a + 2.
HALF = 2.48413771


def test_a_curve_is_mean_and_range_as_far_as_every_seed_has_come(
    tmp_path: Path,
) -> None:
    recipe = start(tmp_path, tablet())
    cell = recipe.cells[1]
    begin(tmp_path, cell, SAM, 0, [epoch(1, 50.0), epoch(2, 30.0), epoch(3, 20.0)])
    begin(tmp_path, cell, SAM, 1, [epoch(1, 40.0), epoch(2, 35.0)])
    begin(tmp_path, cell, SAM, 2)
    line = Line("SAM", (100, 200), (45.0, 32.5), (40.0, 30.0), (50.0, 35.0))
    expected = Panel("20 %", "gradient examples", "test error (%)", (line,))
    assert curves(collected(tmp_path, recipe)) == [expected]


def test_a_panel_has_the_methods_and_lengths_that_are_compared(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet())
    panels = curves(collected(tmp_path, recipe))
    assert [panel.title for panel in panels] == ["20 %", "40 %"]
    for panel in panels:
        assert [line.name for line in panel.lines] == [
            "SGD, 200 epochs",
            "SGD, 400 epochs",
            "SAM",
        ]


def test_the_heading_method_is_found_wherever_it_stands(tmp_path: Path) -> None:
    cells = tuple(replace(c, labels=c.labels[::-1]) for c in tablet().cells)
    recipe = complete(tmp_path, tablet(headings=("method", "noise"), cells=cells))
    assert [p.title for p in curves(collected(tmp_path, recipe))] == ["20 %", "40 %"]


def test_labels_that_do_not_tell_runs_apart_are_in_no_title(tmp_path: Path) -> None:
    cells = tuple(
        Cell(
            f"tablet/{steps}/{metric[:3]}", ("CIFAR-10", steps, metric), (SAM,), metric,
            folder=f"tablet/{steps}",
        )
        for steps in ("1", "2")
        for metric in ("test_error", "lambda_max")
    )  # fmt: skip
    recipe = start(
        tmp_path, tablet(headings=("data", "steps up", "number"), cells=cells)
    )
    for cell in cells[::2]:
        finish(tmp_path, cell, SAM, [13.0, 13.5, 14.0])
    (panel,) = curves(collected(tmp_path, recipe))
    assert panel.title == "CIFAR-10"
    assert [line.name for line in panel.lines] == ["1", "2"]


def test_cells_that_share_runs_are_drawn_once(tmp_path: Path) -> None:
    recipe = start(tmp_path, two_numbers())
    finish(tmp_path, recipe.cells[0], SAM, [13.0, 13.5, 14.0])
    (panel,) = curves(collected(tmp_path, recipe))
    assert len(panel.lines) == 1


def test_results_are_drawn_against_labels_that_are_numbers(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet(("60", "20", "40")))
    (panel,) = trends(collected(tmp_path, recipe))
    sgd, sam = panel.lines
    assert (panel.title, panel.x, panel.y) == ("", "noise", "test error (%)")
    assert (sgd.name, sgd.x, sgd.y) == ("SGD", (20.0, 40.0, 60.0), (17.0, 19.0, 15.0))
    assert (sam.name, sam.x, sam.y) == ("SAM", (20.0, 40.0, 60.0), (21.0, 23.0, 19.0))
    assert sam.high == pytest.approx((21 + HALF, 23 + HALF, 19 + HALF))
    assert sam.low == pytest.approx((21 - HALF, 23 - HALF, 19 - HALF))
    assert sam.paper == ((20.0, 13.4), (40.0, 13.4), (60.0, 13.4))


def test_pending_cells_are_no_points(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet(("20", "40", "60")))
    for cell in recipe.cells[1::2]:
        finish(tmp_path, cell, SAM, [13.0, 13.5, 14.0])
    for cell in recipe.cells[:3:2]:
        for arm in (SGD, SGD_2X):
            finish(tmp_path, cell, arm, [20.0, 21.0, 22.0])
    finish(tmp_path, recipe.cells[4], SGD, [20.0, 21.0, 22.0])
    (panel,) = trends(collected(tmp_path, recipe))
    assert [line.name for line in panel.lines] == ["SAM"]


@pytest.mark.parametrize("noises", [("20", "40"), ("20", "40", "much")])
def test_two_numbers_or_words_are_no_axis(
    noises: tuple[str, ...], tmp_path: Path
) -> None:
    recipe: Recipe = tablet(noises)
    complete(tmp_path, recipe)
    assert trends(collected(tmp_path, recipe)) == []


def grid(*headings: str, rhos: tuple[str, ...]) -> Recipe:
    cells = tuple(
        Cell(
            f"tablet/{k}/{rho}", (*(str(k) for _ in headings[1:]), rho),
            (SAM.model_copy(update={"rho": float(rho)}),),
        )
        for k in range(1 + 2 * (len(headings) > 1))
        for rho in rhos
    )  # fmt: skip
    return tablet(headings=headings, cells=cells)


def test_with_one_heading_there_is_one_line(tmp_path: Path) -> None:
    recipe = grid("rho", rhos=("0.01", "0.05", "0.1"))
    complete(tmp_path, recipe)
    (panel,) = trends(collected(tmp_path, recipe))
    assert [(one.name, one.x) for one in panel.lines] == [("ours", (0.01, 0.05, 0.1))]
    assert not panel.log


def test_of_two_headings_with_numbers_the_last_is_the_axis(tmp_path: Path) -> None:
    recipe = grid("m", "rho", rhos=("1e-6", "1e-2", "1e3"))
    complete(tmp_path, recipe)
    (panel,) = trends(collected(tmp_path, recipe))
    assert panel.x == "rho"
    assert [one.name for one in panel.lines] == ["0", "1", "2"]
    assert panel.lines[0].x == (1e-6, 1e-2, 1e3)
    assert panel.log
    assert figures.drawn(panel).to_dict()["layout"]["xaxis"]["type"] == "log"
    assert figures.printed([panel]).axes[0].get_xscale() == "log"


def test_twenty_five_lines_look_different() -> None:
    styles = [figures._style(k) for k in range(25)]
    assert len({(colour, dash) for colour, _, dash in styles}) == 25


def test_names_in_files_are_text_and_not_tex() -> None:
    line = Line("$\\rho$ 5 $", (1.0, 2.0), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0))
    figure = figures.printed([Panel("cost $", "x $", "y", (line,))] * 4)
    figure.canvas.draw()
    axes = figure.axes[0]
    assert [axes.get_title(), axes.get_xlabel()] == ["cost $", "x $"]
    assert len(figure.axes) == 4
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["$\\rho$ 5 $"]
    assert not legend.get_texts()[0].get_parse_math()


def test_an_epoch_alone_is_no_curve(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet())
    begin(tmp_path, recipe.cells[1], SAM, 0, [epoch(1, 50.0)])
    assert curves(collected(tmp_path, recipe)) == []


def test_the_papers_numbers_are_not_beside_those_of_a_smoke_run(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet(("20", "40", "60")), smoke=True)
    (panel,) = trends(collected(tmp_path, recipe))
    assert [line.paper for line in panel.lines] == [(), ()]


def test_a_long_legend_covers_neither_lines_nor_axes() -> None:
    lines = tuple(
        Line(f"Mixup, alpha {k}, 400 epochs", (1e6, 2e6), (k, k), (k, k), (k, k))
        for k in range(20)
    )
    figure = figures.printed([Panel("40 %", COST, "test error (%)", lines)])
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    assert box.x0 >= axes.get_window_extent().x1
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert {"1 M", "2 M"} <= set(ticks)
