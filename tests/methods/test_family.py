"""What the table says of each method, and what all of them hand on to SAM."""

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import flatmin
from flatmin import methods
from flatmin.core import Decayed
from flatmin.methods import METHODS, RENAMED
from tests.methods.table import NAMES, base_for, built, data_of, loop


def normed() -> nn.Module:
    """A network that every method perturbs."""
    layers = nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)
    return nn.Sequential(*layers).double()


every_method = pytest.mark.parametrize("name", NAMES)


@every_method
def test_options_of_sam_reach_it(name: str) -> None:
    optimizer = built(name, normed(), decay_in_ascent=True, replay_rng=False)
    assert isinstance(optimizer.method, Decayed)
    assert optimizer.options["replay_rng"] is False


@every_method
def test_the_radius_is_the_one_that_was_given(name: str) -> None:
    optimizer = built(name, normed(), rho=0.375)
    assert optimizer.param_groups[0]["sam_rho"] == 0.375


@every_method
def test_without_a_radius_a_step_is_that_of_the_base_at_its_price(name: str) -> None:
    model = normed()
    twin = copy.deepcopy(model)
    optimizer, base = built(name, model, rho=0.0), base_for(name, twin.parameters())
    for step in range(3):
        loop(optimizer, model)
        assert optimizer.statistics.passes == 1
        optimizer.step()
        x, y = data_of(step)
        base.zero_grad()
        F.cross_entropy(twin(x), y, reduction="none").mean().backward()
        base.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_line_of_a_method_is_the_first_of_its_docstring() -> None:
    line = "Sharpness-aware minimization around any base optimizer."
    assert METHODS["sam"].line == line


#: Recommends one of the methods, and is none of its own.
ADVICE = {"fast"}


def written() -> set[str]:
    """Every public function of the package of methods that returns a SAM."""
    found: set[str] = set()
    for part in pkgutil.iter_modules(methods.__path__, f"{methods.__name__}."):
        module = importlib.import_module(part.name)
        for name, value in inspect.getmembers(module, inspect.isfunction):
            returns = value.__annotations__.get("return")
            if value.__module__ == part.name and returns == "SAM" and name[0] != "_":
                found.add(name)
    return found - ADVICE


def documented() -> set[str]:
    """Every method with an entry in the documentation."""
    pages = Path(__file__).parents[2].glob("docs/methods/*.md")
    lines = [line for page in pages for line in page.read_text().splitlines()]
    start = ".. autofunction:: flatmin."
    named = {line.removeprefix(start) for line in lines if line.startswith(start)}
    return named - ADVICE


PLACES = {
    "METHODS": {*METHODS, *RENAMED} - {"sam"},
    "flatmin.methods.__all__": set(methods.__all__) - {"METHODS", "RENAMED", "Entry"},
    "flatmin.__all__": set(flatmin.__all__)
    - {"SAM", "Probe", "Statistics", "__version__", "averaging", "schedules"}
    - ADVICE,
    "docs/methods": {*documented(), *RENAMED},
}


@pytest.mark.parametrize("place", PLACES)
def test_every_method_that_is_written_can_be_found(place: str) -> None:
    names: Collection[str] = PLACES[place]
    missing, unknown = sorted(written() - {*names}), sorted({*names} - written())
    assert not missing, f"{place} lacks {missing}"
    assert not unknown, f"{place} names {unknown}, which is no method"


def test_every_name_is_that_of_the_method() -> None:
    assert len(written()) > 30
    for name in written():
        assert getattr(flatmin, name) is getattr(methods, name)
        assert name in RENAMED or METHODS[name].build is getattr(flatmin, name)
