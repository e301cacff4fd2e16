"""The family: every method by name, what it costs, and in one line what it does."""

from flatmin.methods import _family
from flatmin.methods._family import *  # noqa: F403
from flatmin.methods._family import RENAMED, ROWS, Entry
from flatmin.optim import SAM

#: Every method by name; ``SAM`` itself is the first.
METHODS: dict[str, Entry] = {
    "sam": Entry(SAM, "2"),
    **{row.build.__name__: row for row in ROWS},
}

__all__ = ["METHODS", "RENAMED", "Entry"]
__all__ += _family.__all__
