"""What a mutant is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``old``, found once in ``file``, becomes ``new``; ``test`` must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str
