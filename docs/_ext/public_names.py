"""Warn of every public name that no page documents; `make docs` makes that an error."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

log = logging.getLogger(__name__)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Compare the public names of the configured modules with those on the pages."""
    described = set(env.get_domain("py").objects)
    modules = [importlib.import_module(name) for name in app.config.public_modules]
    for name in missing(modules, described):
        log.warning("no page documents %s", name)


def missing(modules: list[ModuleType], described: set[str]) -> Iterator[str]:
    """The public names that no page describes, under any name of the same object."""
    known = {id(thing) for name in described if callable(thing := imported(name))}
    for module in modules:
        for name in public(module):
            full = f"{module.__name__}.{name}"
            if full not in described and id(getattr(module, name)) not in known:
                yield full


def public(module: ModuleType) -> list[str]:
    """``__all__``, or else the functions and classes that the module defines."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", None) == module.__name__ and name[0] != "_"
    ]


def imported(name: str) -> object:
    """The object with a full name; None for what is no attribute of a module."""
    module, _, attribute = name.rpartition(".")
    return getattr(sys.modules.get(module), attribute, None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Check after all pages have been read."""
    app.add_config_value("public_modules", [], "env")
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
