"""The program that CONTRIBUTING tells authors to write runs, and is what it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.problems import Quadratic, descend, gradient

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file of the guide, imported."""
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)
        if "def two_sided_sam" in block
    )
    module = ModuleType("two_sided")
    monkeypatch.setitem(sys.modules, "two_sided", module)
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    return module


def test_the_program_of_the_guide_descends_the_mean_of_both_sides(
    written: ModuleType,
) -> None:
    model = Quadratic()
    w = model.w.detach().clone()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = written.two_sided_sam(base, model, rho=0.3)
    descend(optimizer, model)
    # On a quadratic the two sides cancel.
    torch.testing.assert_close(gradient(model.w), model.a @ w, rtol=1e-13, atol=0)
    g = model.a @ w
    rise = model.loss(w + 0.3 * g / g.norm()) - model.loss(w)
    torch.testing.assert_close(optimizer.sharpness, rise)
