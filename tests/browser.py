"""Pages in a real browser: offline, silent, in a window of a given width."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_FLAGS = [
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

_INNER = re.compile("file:|data:|blob:")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window; modules that import this name can ask for it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, path: Path, width: int = 1280, script: str = "", **options: Any
) -> Iterator[Page]:
    """A file in the browser, which must report no problem and reach for no network.

    ``script`` runs before those of the page; options are Playwright's of a page.
    """
    page = browser.new_page(viewport={"width": width, "height": 844}, **options)
    page.add_init_script(script)
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    # On a busy machine, WebGL in software takes longer than Playwright's 30 seconds.
    page.set_default_timeout(300_000)
    page.goto(path.as_uri())
    yield page
    assert problems == []
    assert [url for url in requests if not _INNER.match(url)] == []
    page.close()


def wait_for_landscapes(page: Page, count: int) -> None:
    """Until so many canvases are there."""
    there = "document.querySelectorAll('.gl-container canvas').length"
    page.wait_for_function(f"{there} >= {count}")


def width_of(page: Page) -> float:
    """How wide the page is, with the plots in it."""
    return page.evaluate(
        "Math.max(document.documentElement.scrollWidth, "
        "...[...document.querySelectorAll('.js-plotly-plot .svg-container')]"
        ".map(plot => plot.getBoundingClientRect().right))"
    )


def drawn_landscapes(page: Page) -> dict[str, bool]:
    """For each landscape, whether its canvas shows more than one colour."""
    return page.evaluate(
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


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("CI has to have a browser: apt-get install chromium")
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    return found
