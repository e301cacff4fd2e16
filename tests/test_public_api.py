"""What ``import flatmin`` brings, and that its documentation runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import flatmin
import flatmin.averaging
import flatmin.core
import flatmin.methods
import flatmin.optim

CENSUS = """
import random, sys
import torch
before = (
    torch.get_default_dtype(), torch.get_num_threads(), random.getstate(),
    torch.get_rng_state().tolist(), torch.is_grad_enabled(),
    torch.are_deterministic_algorithms_enabled(),
)
loaded = set(sys.modules)
import flatmin
after = (
    torch.get_default_dtype(), torch.get_num_threads(), random.getstate(),
    torch.get_rng_state().tolist(), torch.is_grad_enabled(),
    torch.are_deterministic_algorithms_enabled(),
)
new = {name.partition(".")[0] for name in set(sys.modules) - loaded}
strangers = sorted(new - set(sys.stdlib_module_names) - {"flatmin", "torch"})
assert before == after, "import flatmin changes a setting"
assert not strangers, f"import flatmin loads {strangers}"
assert not any(name.startswith("flatmin.experiments") for name in sys.modules)
"""


def test_the_import_loads_torch_alone_prints_nothing_and_changes_nothing() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", CENSUS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


PACKAGES = [flatmin.averaging, flatmin.core, flatmin.methods, flatmin.optim]
PARTS = [
    importlib.import_module(found.name)
    for package in PACKAGES
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]
MODULES = [flatmin, *PACKAGES, *PARTS]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = {t.name for m in MODULES for t in finder.find(m) if t.examples}
    assert {
        "flatmin.optim._sam.SAM",
        "flatmin.core._metric.LpBall",
        "flatmin.core._two_point.TwoPoint",
    } <= found


@pytest.mark.parametrize("module", [flatmin, *PACKAGES])
def test_public_names_exist_and_are_documented(module: ModuleType) -> None:
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), name
            # A dataclass without docstring is given its signature.
            assert not (value.__doc__ or "").startswith(f"{name}("), name


def test_public_methods_are_documented() -> None:
    for kind in (flatmin.SAM, flatmin.Probe, flatmin.Statistics):
        for name, value in vars(kind).items():
            if not name.startswith("_") and (
                inspect.isfunction(value) or isinstance(value, property)
            ):
                assert (value.__doc__ or "").strip(), f"{kind.__name__}.{name}"


def test_the_version_is_that_of_the_distribution() -> None:
    assert flatmin.__version__.count(".") == 2
