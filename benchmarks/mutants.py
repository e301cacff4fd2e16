"""Defects by rule: every statement of a module removed, every condition decided.

A mutant is made in the text of the file, so that line numbers stay as they are.
Docstrings, imports, annotations, ``del``, and code that runs at import are not mutated.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

REMOVED = ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr | ast.Raise
REMOVED |= ast.Continue | ast.Break
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Edit:
    """``new`` in place of the text from ``start`` to ``end``, offsets in characters.

    ``then`` are the lines that run only if a condition, which is decided, is true.
    """

    kind: str
    line: int
    last: int
    start: int
    end: int
    new: str
    then: range = range(0)


@dataclass(frozen=True)
class Mutant:
    """An edit of a file; ``key`` stays the same if only other lines change."""

    key: str
    file: str
    function: str
    body: range
    source: str
    edit: Edit

    def applied(self, text: str) -> str:
        """Return the file with the defect, with as many lines as before."""
        old = text[self.edit.start : self.edit.end]
        new = self.edit.new + "\n" * old.count("\n")
        return text[: self.edit.start] + new + text[self.edit.end :]


def mutants(root: Path, file: str) -> Iterator[Mutant]:
    """Yield all mutants of a file below ``root``, from the top."""
    text = (root / file).read_text()
    module = Module(text)
    lines, seen = text.splitlines(), Counter[str]()
    # Compositions set their joints by keywords; elsewhere keywords are not mutated.
    arguments = file.startswith("methods/")
    for name, function in _functions(ast.parse(text), ""):
        edits = module.edits(function, arguments)
        for edit in sorted(edits, key=lambda edit: edit.start):
            source = lines[edit.line - 1].strip()
            place = f"{file}::{name}::{edit.kind}::{source}"
            seen[place] += 1
            key = f"{place}#{seen[place]}"
            yield Mutant(key, file, name, _lines(function), source, edit)


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    """Yield functions and methods with their full names, such as outer.inner."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


@dataclass(frozen=True)
class Module:
    text: str

    @cached_property
    def offsets(self) -> list[int]:
        """Where each line begins, in bytes, as ast counts."""
        offsets, total = [], 0
        for line in self.text.encode().splitlines(keepends=True):
            offsets.append(total)
            total += len(line)
        return offsets

    def edits(self, function: Function, arguments: bool) -> Iterator[Edit]:
        """Yield the edits of a function, except docstrings and a Protocol's dots."""
        for node in ast.walk(function):
            if isinstance(node, ast.If):
                then = range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1)
                yield replace(self.edit(node.test, "if True", "True"), then=then)
                if not _one_statement(node):
                    yield replace(self.edit(node.test, "if False", "False"), then=then)
            elif isinstance(node, ast.Return):
                yield from self.returned(node)
            elif isinstance(node, REMOVED) and not _says_nothing(node):
                yield self.edit(node, "removed", "pass")
            elif isinstance(node, ast.Call) and arguments:
                yield from self.without_arguments(node)

    def returned(self, node: ast.Return) -> Iterator[Edit]:
        if node.value is None or _is_none(node.value):
            yield self.edit(node, "removed", "pass")
            return
        yield self.edit(node, "return None", "return None")
        if isinstance(node.value, ast.Yield):
            value = ast.unparse(node.value)
            yield self.edit(node, "answer dropped", f"{value}; return None")

    def without_arguments(self, node: ast.Call) -> Iterator[Edit]:
        for keyword in node.keywords:
            edit = self.edit(keyword, f"without {keyword.arg or '**'}", "")
            rest = self.text[edit.end :]
            comma = rest.lstrip().startswith(",")
            end = edit.end + rest.index(",") + 1 if comma else edit.end
            yield Edit(edit.kind, edit.line, edit.last, edit.start, end, "")

    def edit(
        self, node: ast.stmt | ast.expr | ast.keyword, kind: str, new: str
    ) -> Edit:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self.offsets[node.lineno - 1] + node.col_offset
        end = self.offsets[node.end_lineno - 1] + node.end_col_offset
        data = self.text.encode()
        characters = [len(data[:byte].decode()) for byte in (start, end)]
        return Edit(kind, node.lineno, node.end_lineno, *characters, new)


def _lines(function: Function) -> range:
    """Return the lines of a function's body."""
    return range(function.body[0].lineno, (function.end_lineno or 0) + 1)


def _one_statement(node: ast.If) -> bool:
    """Whether ``if False`` is the same defect as the removal of the only statement."""
    (first, *more), kinds = node.body, REMOVED
    return not more and not node.orelse and isinstance(first, kinds)


def _says_nothing(node: ast.AST) -> bool:
    """Whether a node is a docstring, dots, or a name that is declared and not set."""
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
