"""The directive ``methods-table``: every method, its price and its line, with links."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from flatmin.methods import METHODS


class MethodsTable(SphinxDirective):
    """A table of ``flatmin.methods.METHODS``, in its order."""

    def run(self) -> list[nodes.Node]:
        """The nodes of the table."""
        head = ["| method | gradients per step | what it does |", "| --- | --- | --- |"]
        rows = [
            f"| {link(name)} | {entry.gradients} | {escaped(entry.line)} |"
            for name, entry in METHODS.items()
        ]
        return self.parse_text_to_nodes("\n".join([*head, *rows]))


def link(name: str) -> str:
    """A link to where a method is documented."""
    role, target = ("class", "SAM") if name == "sam" else ("func", name)
    return f"{{py:{role}}}`{target} <flatmin.{target}>`"


def escaped(line: str) -> str:
    """Markdown of a line of reStructuredText that may hold ``code``."""
    return line.replace("``", "`").replace("|", r"\|")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("methods-table", MethodsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
