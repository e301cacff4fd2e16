"""Write docs/tutorial.md as a notebook: `python docs/notebook.py`.

Blocks of Python become cells, and the text block that follows one becomes what it
prints. Links and pictures are those of the page, seen from examples/tutorial.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGE = DOCS / "tutorial.md"
NOTEBOOK = DOCS.parent / "examples" / "tutorial" / "tutorial.ipynb"

#: A block of Python and, if there is one, what it prints.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
#: A link to a file of the documentation.
LINK = re.compile(r"\]\((?!https?:)([^)]+)\)")

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def blocks(page: str) -> list[tuple[str, str]]:
    """The code of a page from top to bottom, each with what it prints."""
    return BLOCK.findall(page)


def notebook(page: str) -> dict[str, Any]:
    """The page as a notebook, format 4.5."""
    cells: list[dict[str, Any]] = []
    begin = 0
    for match in BLOCK.finditer(page):
        cells += [_prose(page[begin : match.start()]), _code(*match.groups())]
        begin = match.end()
    cells.append(_prose(page[begin:]))
    cells = [cell for cell in cells if cell["source"]]
    for k, cell in enumerate(cells):
        cell["id"] = f"tutorial-{k}"
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def written(page: str) -> str:
    """The content of the file."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


def _prose(text: str) -> dict[str, Any]:
    text = LINK.sub(r"](../../docs/\1)", text.strip())
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(text)}


def _code(code: str, printed: str | None) -> dict[str, Any]:
    output = {"name": "stdout", "output_type": "stream", "text": _lines(printed or "")}
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [output] if printed else [],
        "source": _lines(code.rstrip("\n")),
    }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    NOTEBOOK.write_text(written(PAGE.read_text()))
