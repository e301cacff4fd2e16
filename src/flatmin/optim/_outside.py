"""Modules that a loop runs and SAM was not given."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import Tensor, nn

from flatmin.optim._watch import watching

#: Buffers as they were: each tensor and its version.
_Buffers: TypeAlias = list[tuple[Tensor, int]]


@contextmanager
def nothing_outside(model: nn.Module) -> Generator[None]:
    """Within a pass, refuse a module outside of the model that changes its buffers.

    SAM does not rewind such a module, so its BatchNorm layers would be updated in every
    pass. Examples are the discriminator of a GAN whose generator SAM trains, a head, a
    teacher. The module can only be seen while it runs.

    Raises:
        RuntimeError: there is such a module.
    """
    # By id: the hash of a metric of torchmetrics changes with its state.
    inside = set(map(id, model.modules()))
    before: dict[int, tuple[nn.Module, _Buffers]] = {}
    if any(map(_is_compiled, model.modules())):
        # torch would compile the model twice: with the hooks and without them.
        yield
        return

    def note(module: nn.Module) -> None:
        if id(module) not in inside and id(module) not in before:
            before[id(module)] = module, _buffers(module)

    with watching(note):
        yield
    inside = set(map(id, model.modules()))
    changed = [
        module
        for key, (module, then) in before.items()
        if key not in inside and not _same(then, _buffers(module))
    ]
    if changed:
        raise RuntimeError(
            f"a {type(changed[0]).__name__} outside of the model changed its buffers, "
            "and would do so in every pass. Give SAM all modules that the loop runs: "
            "SAM(base, torch.nn.ModuleList([model, other])), or put the other one into "
            "eval mode."
        )


def _is_compiled(module: nn.Module) -> bool:
    compiled: Any = getattr(module, "_compiled_call_impl", None)
    return compiled is not None or hasattr(module, "_orig_mod")


def _buffers(module: nn.Module) -> _Buffers:
    found = [b for b in module.buffers(recurse=False) if not b.is_inference()]
    return [(b, b._version) for b in found]


def _same(a: _Buffers, b: _Buffers) -> bool:
    return len(a) == len(b) and all(
        x is y and v == u for (x, v), (y, u) in zip(a, b, strict=True)
    )
