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
    """Compare ``__all__`` of the configured modules with what the pages describe."""
    described = set(env.get_domain("py").objects)
    modules = [importlib.import_module(name) for name in app.config.public_modules]
    for name in missing(modules, described):
        log.warning("no page documents %s", name)


def missing(modules: list[ModuleType], described: set[str]) -> Iterator[str]:
    """The names in ``__all__`` that no page describes under any of their names."""
    known = {id(thing) for name in described if callable(thing := imported(name))}
    for module in modules:
        for name in module.__all__:
            full = f"{module.__name__}.{name}"
            if full not in described and id(getattr(module, name)) not in known:
                yield full


def imported(name: str) -> object:
    """The object with a full name; None for what is no attribute of a module."""
    module, _, attribute = name.rpartition(".")
    return getattr(sys.modules.get(module), attribute, None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Check after all pages have been read."""
    app.add_config_value("public_modules", [], "env")
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
