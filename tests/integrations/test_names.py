"""What errors and pages tell to import from `flatmin.integrations` is there.

Hosts may be missing, so that modules are parsed and not imported.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import flatmin
from flatmin.optim._elsewhere import FRAMEWORKS

PACKAGE = Path(flatmin.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
#: "from flatmin.integrations.X import Y", and "...skorch: class Net(Y, ...)".
NAMED = re.compile(r"flatmin\.integrations\.(\w+)(?: import |: class Net\()(\w+)")
#: How often the package is named in prose or code.
MENTIONED = re.compile(r"flatmin\.integrations\.[a-z]")


def strings_of(module: Path) -> list[str]:
    """The literals of a module, those that span lines as one."""
    nodes = ast.walk(ast.parse(module.read_text()))
    values = [n.value for n in nodes if isinstance(n, ast.Constant)]
    return [value for value in values if isinstance(value, str)]


def public_names(module: str) -> set[str]:
    """The classes and functions that a module of the integrations defines."""
    path = PACKAGE / "integrations" / f"{module}.py"
    kinds = (ast.ClassDef, ast.FunctionDef)
    tree = ast.parse(path.read_text())
    return {n.name for n in tree.body if isinstance(n, kinds) if n.name[0] != "_"}


def check(text: str) -> None:
    """Every mention of the integrations is understood, and what it names is there."""
    named = NAMED.findall(text)
    assert len(named) == len(MENTIONED.findall(text)) > 0
    assert [(m, name) for m, name in named if name not in public_names(m)] == []


# timm's lines need no module of the integrations.
@pytest.mark.parametrize("package", sorted(FRAMEWORKS.keys() - {"timm"}))
def test_what_a_refused_class_tells_to_import_is_there(package: str) -> None:
    check(FRAMEWORKS[package].write)


def test_what_a_refused_closure_or_step_tells_to_import_is_there() -> None:
    check("\n".join(strings_of(PACKAGE / "optim" / "_trainers.py")))


def test_what_pages_import_is_there_and_one_page_has_every_trainer() -> None:
    pages = {path: NAMED.findall(path.read_text()) for path in DOCS.rglob("*.md")}
    for page, named in pages.items():
        missing = [(m, name) for m, name in named if name not in public_names(m)]
        assert missing == [], page
    modules = {path.stem for path in (PACKAGE / "integrations").glob("[a-z]*.py")}
    assert {module for module, _ in pages[DOCS / "frameworks.md"]} == modules
