import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from flatmin.diagnostics.landscape import Plane, axis
from flatmin.experiments import page, plots
from flatmin.experiments.data import Data, load
from flatmin.experiments.summary import Curve, Row
from flatmin.experiments.train import noise_name
from tests.experiments.helpers import tiny

ARMS = ("sgd", "sgd-2x", "sam")
NOISES = (0.4, 0.0)
EVIL = "<script>alert('x')</script>\"&"


def rows() -> list[Row]:
    return [
        Row(noise, arm, arm, 2, 5.0, 1.0, (4.0, 6.0), 0.0, 0.1, 1800, 1.0)
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
def data() -> Data:
    return load(tiny())


@pytest.fixture(scope="module")
def html(data: Data) -> str:
    return page.render(tiny(), data, rows(), curves(), landscapes())


def test_what_the_user_named_is_escaped(data: Data) -> None:
    named = replace(data, classes=(EVIL, *data.classes[1:]), split=EVIL)
    text = page.render(tiny(data=EVIL), named, rows(), curves(), landscapes())
    assert EVIL not in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_the_pictures_are_png_files() -> None:
    drawn = plots.files(rows(), curves(), landscapes(), top=4.6)
    assert sorted(drawn) == ["curves.png", "landscapes.png"]
    assert all(picture[:8] == b"\x89PNG\r\n\x1a\n" for picture in drawn.values())


def test_without_landscapes_none_is_drawn(data: Data) -> None:
    assert sorted(plots.files(rows(), curves(), {}, top=4.6)) == ["curves.png"]
    text = page.render(tiny(), data, rows(), curves(), {})
    assert 'id="landscape-' not in text


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("CI has to have a browser: apt-get install chromium")
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    flags = [
        "--no-sandbox",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        # Software WebGL: CI machines have no graphics card.
        "--use-gl=angle",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=flags)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


@pytest.mark.browser
def test_the_page_works_in_a_browser_and_offline(
    html: str, browser_page: Page, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    requests: list[str] = []
    problems: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    browser_page.on("request", lambda request: requests.append(request.url))
    browser_page.on("console", listen)
    browser_page.on("pageerror", lambda error: problems.append(str(error)))
    browser_page.goto(path.as_uri())
    browser_page.wait_for_function(
        "document.querySelectorAll('.gl-container canvas').length >= 4"
    )

    assert problems == []
    assert [url for url in requests if not re.match("file:|data:|blob:", url)] == []
    assert _drawn(browser_page) == {
        f"landscape-{noise_name(noise)}-{k}": True for noise in NOISES for k in (0, 1)
    }
    assert _turning_one_turns_its_neighbour(browser_page)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(
    width: int, html: str, browser_page: Page, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    browser_page.set_viewport_size({"width": width, "height": 844})
    browser_page.goto(path.as_uri())
    browser_page.wait_for_function(
        "document.querySelectorAll('.gl-container canvas').length >= 4"
    )
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = browser_page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].map(plot => "
        "plot.querySelector('.svg-container').getBoundingClientRect().right)"
    )
    assert max(boxes) <= width


def _drawn(browser_page: Page) -> dict[str, bool]:
    """For each landscape, whether its canvas shows more than one colour."""
    return browser_page.evaluate(
        """async () => {
          const drawn = {};
          for (const plot of document.querySelectorAll('[id^=landscape]')) {
            const url = await Plotly.toImage(plot, {width: 300, height: 300});
            const image = new Image();
            image.src = url;
            await image.decode();
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 300;
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0);
            const pixels = context.getImageData(75, 75, 150, 150).data;
            const colours = new Set();
            for (let i = 0; i < pixels.length; i += 4)
              colours.add(pixels.slice(i, i + 3).join());
            drawn[plot.id] = colours.size > 100;
          }
          return drawn;
        }"""
    )


def _turning_one_turns_its_neighbour(browser_page: Page) -> bool:
    return browser_page.evaluate(
        """async () => {
          const [one, two] = document.querySelectorAll('.pair')[0]
            .querySelectorAll('.js-plotly-plot');
          await Plotly.relayout(one, {'scene.camera': {eye: {x: 2, y: 1, z: 0.5}}});
          for (let i = 0; i < 100; i++) {
            if (two.layout.scene.camera.eye.x === 2) return true;
            await new Promise(later => setTimeout(later, 20));
          }
          return false;
        }"""
    )
