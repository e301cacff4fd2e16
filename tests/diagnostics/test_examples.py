"""That the documentation of the public names runs, and exists."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

from flatmin import diagnostics

PARTS = [
    found.name
    for found in pkgutil.iter_modules(diagnostics.__path__, "flatmin.diagnostics.")
]


@pytest.mark.parametrize("name", PARTS)
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", diagnostics.__all__)
def test_public_functions_have_an_example_and_classes_say_what_they_are(
    name: str,
) -> None:
    value = getattr(diagnostics, name)
    text = inspect.getdoc(value) or ""
    assert text
    assert not text.startswith(f"{name}(")
    if inspect.isfunction(value):
        assert ">>>" in text


def test_names_are_listed_once_and_in_order() -> None:
    assert list(diagnostics.__all__) == sorted(set(diagnostics.__all__))
