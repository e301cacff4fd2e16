"""Watches every module that runs, in the model or outside of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def watching(look: Callable[[nn.Module], None]) -> Generator[None]:
    """Within, call ``look`` with each module before it runs; not in compiled code."""

    def hook(module: nn.Module, inputs: Any) -> None:
        if not torch.compiler.is_compiling():
            look(module)

    with warnings.catch_warnings():
        # A compiled module warns that hooks see its wrapper too, which is wanted here.
        warnings.filterwarnings(
            "ignore", r"Using `torch\.compile\(module\)` when there"
        )
        handle = register_module_forward_pre_hook(hook)
        try:
            yield
        finally:
            handle.remove()
