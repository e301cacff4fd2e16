"""The page in a real browser: offline, on a phone, with a keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from flatmin.experiments import recipes
from flatmin.experiments.report import render
from flatmin.experiments.report._numbers import records
from tests.browser import browser as browser
from tests.browser import opened, width_of
from tests.experiments.report.folders import (
    collected,
    complete,
    finish,
    start,
    tablet,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    recipe = complete(
        root,
        tablet(("20", "40", "60"), notes=("A note of many words. " * 20,)),
        settings=["augment=" + "a" * 200],
    )
    path = root / "report.html"
    path.write_text(render([collected(root, recipe)]))
    return path


@pytest.fixture(params=[1280, 390])
def shown(request: Any, browser: Browser, path: Path) -> Iterator[tuple[Page, int]]:
    with opened(browser, path, request.param) as page:
        yield page, request.param


@pytest.mark.browser
def test_every_figure_is_drawn_and_fits(shown: tuple[Page, int]) -> None:
    page, width = shown
    lines = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.js-plotly-plot')].map("
        "plot => [plot.id, plot.querySelectorAll('.scatterlayer .trace').length]))"
    )
    # Bands and lines; the paper's numbers beside those of the trend.
    assert lines == {"trend-0-0": 6, "curves-0-0": 6, "curves-0-1": 6, "curves-0-2": 6}
    assert width_of(page) <= width


@pytest.mark.browser
def test_the_legend_is_not_below_the_toolbar(shown: tuple[Page, int]) -> None:
    page, _ = shown
    gaps = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].map(plot => "
        "plot.querySelector('.legend').getBoundingClientRect().top - "
        "plot.querySelector('.xtitle').getBoundingClientRect().bottom)"
    )
    assert len(gaps) == 4
    assert min(gaps) >= 0
    tops = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].map(plot => "
        "plot.querySelector('.modebar').getBoundingClientRect().bottom - "
        "plot.querySelector('.legend').getBoundingClientRect().top)"
    )
    assert max(tops) < 0


@pytest.mark.browser
def test_tab_leads_to_the_recipes_the_download_and_the_tables(
    shown: tuple[Page, int],
) -> None:
    page, _ = shown
    focused = []
    for _ in range(4):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    assert focused[0].startswith('<a href="#recipe-0"')
    assert focused[1].startswith('<a class="download"')
    assert focused[2].startswith('<div class="wide numbers" tabindex="0"')
    assert focused[3].startswith("<summary>All arms")


@pytest.mark.browser
def test_a_narrow_window_keeps_the_labels_in_sight(
    shown: tuple[Page, int],
) -> None:
    page, width = shown
    table = page.locator(".numbers").first
    table.evaluate("box => { box.scrollLeft = 1000; }")
    label = table.locator("tbody th:visible")
    texts = label.all_inner_texts()
    assert texts[:2] == (["20 %", "SGD"] if width > 640 else ["20 %, SGD", "20 %, SAM"])
    box = label.first.bounding_box()
    assert box is not None
    assert 0 <= box["x"] < width / 2
    scrolled = table.evaluate("box => box.scrollLeft") > 0
    assert scrolled is (width < 640)


@pytest.mark.browser
def test_a_figure_grows_with_its_legend(browser: Browser, tmp_path: Path) -> None:
    recipe = start(tmp_path, recipes.recipe("table4/noise-40"), seeds=2)
    for cell in recipe.cells:
        for arm in cell.arms:
            finish(tmp_path, cell, arm, [20.0, 21.0])
    path = tmp_path / "report.html"
    path.write_text(render([collected(tmp_path, recipe)]))
    with opened(browser, path, 390) as page:
        assert width_of(page) <= 390
        (height,) = page.evaluate(
            "[...document.querySelectorAll('.nsewdrag')]"
            ".map(axes => axes.getBoundingClientRect().height)"
        )
    assert height > 200


@pytest.mark.browser
def test_the_numbers_can_be_downloaded(
    shown: tuple[Page, int], path: Path, tmp_path: Path
) -> None:
    page, _ = shown
    with page.expect_download() as download:
        page.locator(".download").press("Enter")
    assert download.value.suggested_filename == "report.json"
    download.value.save_as(tmp_path / "numbers.json")
    expected = records(collected(path.parent, tablet(("20", "40", "60"))))
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers == {"tablet": expected}
