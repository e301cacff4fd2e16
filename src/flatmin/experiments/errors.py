"""The error that the command line turns into one line and exit code 2."""

from __future__ import annotations


class BadInput(ValueError):
    """What the user gave cannot be used; the message says what to do instead."""
