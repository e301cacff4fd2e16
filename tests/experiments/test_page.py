from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from flatmin.diagnostics.landscape import Plane, axis
from flatmin.experiments import page, plots
from flatmin.experiments.comparison import noise_name
from flatmin.experiments.data import load
from flatmin.experiments.datasets import DataSet
from flatmin.experiments.summary import Curve, Row
from tests.browser import browser as browser
from tests.browser import drawn_landscapes, opened, wait_for_landscapes, width_of
from tests.experiments.helpers import tiny

ARMS = ("sgd", "sgd-2x", "sam")
NOISES = (0.4, 0.0)
EVIL = "<script>alert('x')</script>\"&"


def rows() -> list[Row]:
    return [
        Row(noise, arm, arm, 2, 5.0, 1.0, (4.0, 6.0), 0.0, 0.1, 9.0, 1800, 1.0)
        for noise in NOISES
        for arm in ARMS
    ]


def curves() -> dict[Any, Curve]:
    one = Curve([100, 200], [30.0, 10.0], [20.0, 5.0], [40.0, 15.0])
    return {(noise, arm): one for noise in NOISES for arm in ARMS}


def landscapes(points: int = 7) -> plots.Planes:
    at = axis(points)

    def bowl(k: float) -> Plane:
        losses = tuple(tuple(k * (a * a + b * b) for a in at) for b in at)
        return Plane(a=at, b=at, losses=losses)

    bowls = {"sgd-2x": bowl(9.0), "sam": bowl(1.0)}
    return {noise_name(noise): bowls for noise in NOISES}


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load(tiny())


@pytest.fixture(scope="module")
def html(data: DataSet) -> str:
    return page.render(tiny(), data, rows(), curves(), landscapes())


def test_what_the_user_named_is_escaped(data: DataSet) -> None:
    named = replace(data, classes=(EVIL, *data.classes[1:]), split=EVIL)
    text = page.render(tiny(data=EVIL), named, rows(), curves(), landscapes())
    assert EVIL not in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_the_pictures_are_png_files() -> None:
    drawn = plots.files(rows(), curves(), landscapes(), top=4.6)
    assert sorted(drawn) == ["curves.png", "landscapes.png"]
    assert all(picture[:8] == b"\x89PNG\r\n\x1a\n" for picture in drawn.values())


def test_without_landscapes_none_is_drawn(data: DataSet) -> None:
    assert sorted(plots.files(rows(), curves(), {}, top=4.6)) == ["curves.png"]
    text = page.render(tiny(), data, rows(), curves(), {})
    assert 'id="landscape-' not in text


@pytest.fixture
def path(html: str, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(html)
    return path


@pytest.mark.browser
def test_the_page_works_in_a_browser_and_offline(path: Path, browser: Browser) -> None:
    with opened(browser, path) as page:
        wait_for_landscapes(page, 4)
        assert drawn_landscapes(page) == {
            f"landscape-{noise_name(noise)}-{k}": True
            for noise in NOISES
            for k in (0, 1)
        }
        assert _turning_one_turns_its_neighbour(page)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(
    width: int, path: Path, browser: Browser
) -> None:
    with opened(browser, path, width) as page:
        wait_for_landscapes(page, 4)
        assert width_of(page) <= width


def _turning_one_turns_its_neighbour(browser_page: Page) -> bool:
    return browser_page.evaluate(
        """async () => {
          const [one, two] = document.querySelectorAll('.pair')[0]
            .querySelectorAll('.js-plotly-plot');
          await Plotly.relayout(one, {'scene.camera': {eye: {x: 2, y: 1, z: 0.5}}});
          for (let i = 0; i < 3000; i++) {
            if (two.layout.scene.camera.eye.x === 2) return true;
            await new Promise(later => setTimeout(later, 20));
          }
          return false;
        }"""
    )
