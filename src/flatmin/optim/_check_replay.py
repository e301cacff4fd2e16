"""Checks whether a pass, run again at the same point, gives the same results.

State that a forward pass changes and SAM does not see (globals, closures, iterators)
makes the second pass a different function from the first. Two runs of the first pass
reveal such state, and hooks show where the difference begins.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from flatmin.core._shards import local
from flatmin.optim._lazy import is_unmade
from flatmin.optim._probe import Probe

_PROJECTIONS = 3

#: For each tensor: its shape, the tolerance, and its norm and projections.
Marks: TypeAlias = list[tuple[torch.Size, float, Tensor]]

_ADVICE = (
    "Hold the state in a buffer or an attribute of the module, or change it after "
    "optimizer.step(), outside of the probes() loop. If nothing is wrong but a kernel "
    'that rounds by chance, leave check="replay" out. See "How to find out" on the '
    "page about BatchNorm, dropout and other state."
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a module: what went in, and what came out."""

    name: str
    kind: str
    given: Marks
    result: Marks


@dataclass(slots=True)
class Run:
    """One run of the first pass."""

    calls: list[Call] = field(default_factory=list[Call])
    losses: Marks = field(default_factory=list)
    gradients: dict[str, Marks] = field(default_factory=dict[str, Marks])


class ReplayCheck:
    """Compares two runs of the first pass.

    Args:
        model: the module that the passes run.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._calls: list[Call] = []
        self._first = Run()
        self._unmade: set[str] = set()

    @contextmanager
    def watch(self) -> Generator[None]:
        """Within, note the inputs and outputs of every module.

        Not those of a module that makes its parameters within: its hooks of that moment
        are a part of the state that later passes start from.
        """
        self._calls = []
        hooks = [
            module.register_forward_hook(self._hook(name), with_kwargs=True)
            for name, module in _visible(self._model)
            if name not in self._unmade
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def begin(self) -> None:
        """Before the first run: find the modules that have no parameters yet."""
        self._unmade = {name for name, m in _visible(self._model) if is_unmade(m)}

    def note(self, probe: Probe, w: list[Tensor]) -> None:
        """Remember the results of the run that was watched last."""
        self._first = self._run(probe, w)

    def compare(self, probe: Probe, w: list[Tensor]) -> None:
        """Refuse a run that differs from the one that was noted.

        Raises:
            RuntimeError: it differs; the message says where this begins.
        """
        first, second = self._first, self._run(probe, w)
        self._first, self._calls = Run(), []
        place = _first_call(first.calls, second.calls)
        if place is None and not _alike(first.losses, second.losses):
            place = "the loss, while every module gives the same"
        for name, g in first.gradients.items():
            if place is None and not _alike(g, second.gradients[name]):
                place = f"the gradient of {name!r}, while the loss is the same"
        if place is not None:
            raise RuntimeError(
                'check="replay": the first pass, run again at the same point, differs. '
                f"The first to differ is {place}. {_ADVICE}"
            )

    def _run(self, probe: Probe, w: list[Tensor]) -> Run:
        names = {id(p): name for name, p in self._model.named_parameters()}
        losses = [x for x in (probe.loss, probe.losses) if x is not None]
        named = [(names.get(id(p), f"parameter {k}"), p) for k, p in enumerate(w)]
        gradients = {name: marks(p.grad) for name, p in named}
        return Run(self._calls, marks(losses), gradients)

    def _hook(self, name: str) -> Any:
        def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            kind = type(module).__name__
            self._calls.append(Call(name, kind, marks((args, kwargs)), marks(output)))

        return note


def marks(values: Any) -> Marks:
    """Return a few numbers for each tensor in a structure: norm and projections.

    A difference of relative length ``d`` moves them by about ``d``, whatever its
    direction.
    """
    tensors = [x for x in tree_leaves(values) if isinstance(x, Tensor)]
    return [_mark(t) for t in local(tensors)]


@torch.no_grad()
def _mark(t: Tensor) -> tuple[torch.Size, float, Tensor]:
    x = t.detach().to_dense() if t.layout != torch.strided else t.detach()
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    flat = x.reshape(-1).to(wide).nan_to_num(nan=1.0)
    draw = torch.Generator(x.device).manual_seed(0)
    like: dict[str, Any] = {"generator": draw, "device": x.device, "dtype": wide}
    rays = [torch.randn(flat.shape, **like) for _ in range(_PROJECTIONS)]
    size: Tensor = flat.square().sum().sqrt()
    numbers = torch.stack([size, *(flat @ ray for ray in rays)])
    return t.shape, _precision(x.dtype), numbers


def _precision(dtype: torch.dtype) -> float:
    """How far results of the same computation may be apart."""
    return torch.finfo(dtype).eps ** 0.5 if dtype.is_floating_point else 0.0


def _first_call(first: list[Call], second: list[Call]) -> str | None:
    """Describe the first call that differs; None if none does."""
    for a, b in zip(first, second, strict=False):
        if a.name != b.name:
            return f"which module is called: {_module(a)}, then {_module(b)}"
        if not _alike(a.result, b.result):
            same = _alike(a.given, b.given)
            return f"the output of {_module(a)}, {_why(same)}"
    if len(first) != len(second):
        return f"how many modules are called: {len(first)}, then {len(second)}"
    return None


def _module(call: Call) -> str:
    return f"module {call.name!r} ({call.kind})"


def _why(same: bool) -> str:
    if same:
        return "of the same input: this module depends on something that SAM cannot see"
    return "and its input does already: look at what comes before it"


def _alike(a: Marks, b: Marks) -> bool:
    return len(a) == len(b) and all(map(_close, a, b))


def _close(a: tuple[Any, float, Tensor], b: tuple[Any, float, Tensor]) -> bool:
    (shape, precision, x), (other_shape, _, y) = a, b
    within = 5 * precision * torch.maximum(x[0], y[0])
    return shape == other_shape and bool(((x - y).abs() <= within).all())


def _visible(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that hooks can watch, by name: none inside of compiled ones."""
    inside: tuple[str, ...] = ()
    root: Any = model
    for name, module in root.named_modules():
        scripted = isinstance(module, torch.jit.ScriptModule)
        if not scripted and not (inside and name.startswith(inside)):
            yield name, module
        if scripted or hasattr(module, "_orig_mod"):
            inside = (*inside, f"{name}." if name else "")
