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
from playwright.sync_api import Browser, Page

from flatmin import pictures
from flatmin.diagnostics.landscape import Plane
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
    plane = Plane(a=(0.0, 0.5), b=(1.0,), losses=((0.125, math.nan),))
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
