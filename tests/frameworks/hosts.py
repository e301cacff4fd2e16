"""The rows of the matrix, from one module per framework."""

from __future__ import annotations

import warnings
from importlib import import_module

from tests.frameworks.judge import Host

#: Modules whose frameworks are installed with the development extra.
MODULES = [
    "loop",
    "lightning_host",
    "transformers_host",
    "accelerate_host",
    "fabric_host",
    "skorch_host",
    "ignite_host",
    "timm_host",
]

#: Modules whose frameworks are not: they run in a process that finds the framework in
#: a folder of its own (`tests.frameworks.versions`).
APART = ["fastai_host", "composer_host"]


def hosts_of(module: str) -> list[Host]:
    """The rows of one module, whose framework is imported now."""
    with warnings.catch_warnings():
        # Of packages that frameworks import.
        warnings.simplefilter("ignore")
        return import_module(f"tests.frameworks.{module}").HOSTS
