"""The page in a real browser: offline, on a phone, with a keyboard; and its text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from playwright.sync_api import Browser, Page

from flatmin import pictures
from flatmin.diagnostics.landscape import Plane
from flatmin.pictures import html
from tests.browser import browser as browser
from tests.browser import drawn_landscapes, opened, wait_for_landscapes, width_of
from tests.pictures.test_static import both, bowl

EVIL = "</script><script>alert('x')</script>\"&"


class Scripts(HTMLParser):
    """What is inside of scripts, by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.open: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self.open:
            self.found[self.open] = self.found.get(self.open, "") + data


def test_the_page_holds_the_records_themselves() -> None:
    planes = {**both(), EVIL: bowl(2.0, 3, settings={"rho": math.inf})}
    text = pictures.page(planes, top=4.0)
    records = json.loads(Scripts(text).found["records"])
    assert list(records) == list(planes)
    assert records == json.loads(
        json.dumps({k: p.to_dict() for k, p in planes.items()})
    )


def test_whatever_has_a_name_is_escaped() -> None:
    marked = bowl(1.0, 3, labels=(EVIL, EVIL), marks=((EVIL, 0.0, 0.0),))
    text = pictures.page({EVIL: marked}, title=EVIL, text=EVIL, loss=EVIL, top=2.0)
    assert "<script>alert" not in text
    assert text.count("</script>") == len(re.findall("<script", text))


def test_the_table_has_every_loss() -> None:
    losses = ((0.125, math.nan), (0.25, 0.5))
    plane = Plane(a=(0.0, 0.5), b=(1.0, 2.0), losses=losses)
    text = pictures.page(plane)
    assert "<td>0.125</td><td>nan</td>" in text


@pytest.fixture(params=[1280, 390])
def shown(request: Any, browser: Browser, tmp_path: Path) -> Iterator[tuple[Page, int]]:
    """The page in a window of a desktop's width and of a phone's; silent, offline."""
    path = tmp_path / "landscape.html"
    path.write_text(pictures.page(both(), top=4.0))
    with opened(browser, path, request.param) as page:
        wait_for_landscapes(page, 2)
        yield page, request.param


def eyes(page: Page) -> list[dict[str, float]]:
    return page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')]"
        ".map(plot => plot.layout.scene.camera.eye)"
    )


def turned(page: Page, before: list[dict[str, float]]) -> list[dict[str, float]]:
    """The cameras, once both have left where they were and are at one place."""
    now = before
    for _ in range(200):
        now = eyes(page)
        if now[0] == now[1] and now[0] != before[0]:
            return now
        page.wait_for_timeout(20)
    raise AssertionError(f"still {now}, before {before}")


@pytest.mark.browser
def test_both_are_drawn_side_by_side_and_fit(shown: tuple[Page, int]) -> None:
    page, width = shown
    assert drawn_landscapes(page) == {"landscape-0": True, "landscape-1": True}
    assert width_of(page) <= width


@pytest.mark.browser
def test_the_keyboard_turns_both_and_puts_them_back(shown: tuple[Page, int]) -> None:
    page, _ = shown
    home = eyes(page)
    page.keyboard.press("Tab")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("Loss landscape of sharp")
    at = home
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "+", "-"):
        page.keyboard.press(key)
        at = turned(page, at)
    page.keyboard.press("ArrowLeft")
    at = turned(page, at)
    page.keyboard.press("Home")
    assert turned(page, at)[0] == home[0]


@pytest.mark.browser
def test_every_button_works_from_the_keyboard(shown: tuple[Page, int]) -> None:
    page, _ = shown
    home = at = eyes(page)
    names = ["left", "up", "right", "down", "closer", "away", "left", "reset"]
    for name in names:
        page.locator(f"[data-turn={name}]").press("Enter")
        at = turned(page, at)
    assert at[0] == home[0]


@pytest.mark.browser
def test_the_losses_can_be_downloaded_and_read(
    shown: tuple[Page, int], tmp_path: Path
) -> None:
    page, _ = shown
    with page.expect_download() as download:
        page.locator(".download").press("Enter")
    assert download.value.suggested_filename == "landscape.json"
    download.value.save_as(tmp_path / "losses.json")
    records = json.loads((tmp_path / "losses.json").read_text())
    assert Plane.from_dict(records["flat"]) == both()["flat"]
    page.locator("summary").press("Enter")
    assert page.locator("details td").first.is_visible()


#: A browser that draws no surfaces.
WITHOUT_WEBGL = """
const given = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return /webgl/.test(kind) ? null : given.call(this, kind, ...more);
};
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "landscape.html"
    path.write_text(pictures.page(both(), top=4.0))
    return path


def assert_stills_stand_in(page: Page) -> None:
    stills = page.locator(".still")
    assert stills.count() == 2
    for still in stills.all():
        assert still.is_visible()
        box = still.bounding_box()
        assert box is not None
        assert box["height"] > 100
    assert not any(plot.is_visible() for plot in page.locator(".plot").all())
    assert not page.locator(".turn").is_visible()


@pytest.mark.browser
def test_a_drag_turns_both_all_the_while(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        wait_for_landscapes(page, 2)
        home = at = eyes(page)
        for plot in (0, 1):
            box = page.locator(".plot").nth(plot).bounding_box()
            assert box is not None
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + 60, y + 20, steps=4)
            follower = 1 - plot
            page.wait_for_function(
                "([k, x]) => document.querySelectorAll('.plot')[k]"
                ".layout.scene.camera.eye.x !== x",
                arg=[follower, at[follower]["x"]],
            )
            page.mouse.move(x + 90, y + 30, steps=4)
            page.mouse.up()
            at = turned(page, at)
        page.locator("[data-turn=reset]").click()
        assert turned(page, at) == home


@pytest.mark.browser
def test_the_toolbar_sends_nothing_anywhere(browser: Browser, path: Path) -> None:
    with opened(browser, path) as page:
        wait_for_landscapes(page, 2)
        names = page.evaluate(
            "[...document.querySelectorAll('#landscape-0 .modebar-btn')]"
            ".map(button => button.dataset.title)"
        )
        links = page.locator(".plot a[href]").count()
    assert names == [
        "Download plot as a PNG", "Zoom", "Pan", "Orbital rotation",
        "Reset camera to default",
    ]  # fmt: skip
    assert links == 0


@pytest.mark.browser
def test_the_printed_page_shows_pictures(browser: Browser, path: Path) -> None:
    with opened(browser, path, color_scheme="dark") as page:
        wait_for_landscapes(page, 2)
        page.emulate_media(media="print")
        assert_stills_stand_in(page)
        assert brightness(page, "body", "backgroundColor") > 200


@pytest.mark.browser
def test_without_webgl_or_scripts_pictures_are_shown(
    browser: Browser, path: Path
) -> None:
    with opened(browser, path, 390, WITHOUT_WEBGL) as page:
        assert_stills_stand_in(page)
        assert width_of(page) <= 390
        assert page.locator(".download").is_visible()
    with opened(browser, path, 390, java_script_enabled=False) as page:
        assert_stills_stand_in(page)


def brightness(page: Page, place: str, name: str) -> float:
    """Of a colour, from 0 to 255; what is transparent shows the page below."""
    colour = page.locator(place).first.evaluate(
        "(part, name) => getComputedStyle(part)[name]", name
    )
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


@pytest.mark.browser
def test_a_dark_window_has_a_dark_page(browser: Browser, path: Path) -> None:
    with opened(browser, path, color_scheme="dark") as page:
        wait_for_landscapes(page, 2)
        assert brightness(page, "body", "backgroundColor") < 40
        assert brightness(page, "body", "color") > 200
        assert axis_brightness(page) > 200
        page.emulate_media(color_scheme="light")
        page.wait_for_function(f"{AXIS} === '#1a1a1a'")
        assert brightness(page, "body", "backgroundColor") > 200
        assert axis_brightness(page) < 40


AXIS = "document.querySelector('.plot')._fullLayout.scene.xaxis.color"


def axis_brightness(page: Page) -> float:
    colour = page.evaluate(AXIS)
    return sum(int(colour[k : k + 2], 16) for k in (1, 3, 5)) / 3


@pytest.mark.browser
def test_pages_of_one_folder_share_one_plotly(browser: Browser, tmp_path: Path) -> None:
    text = pictures.page(both(), top=4.0)
    files = pictures.share_plotly({"one.html": text, "two.html": text})
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert sorted(files) == ["one.html", "plotly.min.js", "two.html"]
    assert len(files["one.html"]) < len(text) - 4e6
    with opened(browser, tmp_path / "two.html") as page:
        wait_for_landscapes(page, 2)
        assert drawn_landscapes(page) == {"landscape-0": True, "landscape-1": True}


def test_a_page_says_what_to_see_and_how_large_plotly_is() -> None:
    text = pictures.page(both(), top=4.0)
    assert "the minimum of flat is the wider.</p>" in text
    match = re.search(r"plotly\.js [\d.]+ \(([\d.]+) MB\)", text)
    assert match is not None
    assert float(match[1]) == pytest.approx(len(html.plotly()) / 1e6, abs=0.1)


def test_a_page_has_landmarks_and_one_heading_of_the_first_level() -> None:
    text = pictures.page(both(), top=4.0).replace(html.plotly(), "")
    for tag in ("main", "footer", "h1", "title"):
        assert len(re.findall(f"<{tag}[ >]", text)) == 1
    assert len(re.findall('<figure role="group" tabindex="0"', text)) == 2
    assert len(re.findall('<img class="still" alt="[^"]+"', text)) == 2


def test_a_page_without_figures_has_no_plotly() -> None:
    text = html.render("report.html.j2", sections=[], numbers={})
    assert len(text) < 30_000
    assert "MB" not in text


def test_a_name_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="sections"):
        html.render("report.html.j2", numbers={})
