"""Pages of the documentation as a reader gets them, from a small site of its kind."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser, Page
from sphinx.application import Sphinx

from tests.browser import browser, opened

__all__ = ["browser"]

DOCS = Path(__file__).parents[1] / "docs"

WORDS = " | ".join(["a-column-of-one-word"] * 12)
RULE = " | ".join(["---"] * 12)
PAGE = rf"""# A page

Inline $\hat\epsilon = \rho\, g / \lVert g \rVert_2$, and on a line of its own:

$$\min_w \max_{{\|\epsilon\|_p \le \rho}} L(w + \epsilon)$$

| {WORDS} |
| {RULE} |
| {WORDS} |

```{{methods-table}}
```

{{py:class}}`flatmin.SAM`
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of one page, with the settings, styles and extensions of docs/."""
    root = tmp_path_factory.mktemp("site")
    (root / "index.md").write_text(PAGE)
    quiet = {"public_modules": [], "nitpicky": False}
    html = root / "html"
    Sphinx(root, DOCS, html, root / "tree", "html", quiet, status=None).build()
    return html / "index.html"


@pytest.fixture(params=[390, 1280])
def page(
    browser: Browser, site: Path, request: pytest.FixtureRequest
) -> Iterator[Page]:
    with opened(browser, site, request.param) as page:
        yield page


@pytest.mark.browser
def test_a_page_reaches_for_no_network_and_draws_its_formulas(page: Page) -> None:
    page.wait_for_selector("mjx-container[display]")
    sizes = "[...document.querySelectorAll('mjx-math')].map(m => m.clientHeight)"
    inline, displayed = page.evaluate(sizes)
    assert 10 < inline < displayed


@pytest.mark.browser
def test_a_wide_table_scrolls_and_the_page_does_not(page: Page) -> None:
    width = page.viewport_size
    assert width is not None
    whole = page.evaluate("document.documentElement.scrollWidth")
    assert whole <= width["width"]
    inner, outer, place = page.evaluate(
        "(t => [t.scrollWidth, t.clientWidth, t.tabIndex])"
        "(document.querySelector('.table-wrapper'))"
    )
    assert inner > outer
    assert place == 0, "the keyboard does not reach it"


def test_a_public_name_without_a_page_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "_ext")
    missing = importlib.import_module("public_names").missing
    module = ModuleType("somewhere")
    module.__dict__.update(__all__=["one", "two", "SAM"], one=1, two=print)
    module.__dict__["SAM"] = importlib.import_module("flatmin").SAM
    assert [*missing([module], {"flatmin.SAM", "somewhere.one"})] == ["somewhere.two"]


def test_a_module_without_a_list_is_public_but_for_underscores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DOCS / "_ext")
    public = importlib.import_module("public_names").public
    gates = importlib.import_module("flatmin.core.gates")
    assert {"every", "last"} <= {*public(gates)}
    assert not {"Step", "partial", "_within"} & {*public(gates)}
