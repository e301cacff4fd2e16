"""Pages of the documentation whose examples need more than torch, run in order."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```\{(testsetup|testcode|testoutput)\}\n(.*?)```", re.DOTALL)


# peft asks transformers for a property that it has renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("page", ["lora.md", "loop/losses.md"])
def test_the_examples_of_a_page_print_what_it_says(page: str) -> None:
    blocks = BLOCK.findall((DOCS / page).read_text())
    code = [text for kind, text in blocks if kind != "testoutput"]
    said = [text for kind, text in blocks if kind == "testoutput"]
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for text in code:
            exec(text, names)
    assert said
    assert printed.getvalue() == "".join(said)
