"""Changes that a forward pass makes in a module besides the values of its buffers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from flatmin.conformance import _layers as layers
from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter
from flatmin.conformance._check import AtMost, Measured, check, worst

STEPS = 3
SIZES = (4, 8, 12)  # Growing batches make tables grow.
WITH_NUMBERS = (layers.Table, layers.Initialised, layers.Averaged)


def _before(layer: nn.Module) -> nn.Module:
    """Put the layer before a network."""
    return nn.Sequential(layer, on.network())


def _below(layer: nn.Module) -> nn.Module:
    """Put a layer that has weights in place of a network's first."""
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(8, 3).double())


def _off(adapter: Adapter, model: nn.Module, twin: nn.Module) -> float:
    """Measure how far ``model`` ends from ``twin``, whose two passes start alike."""
    data = [(x[:n], y[:n]) for n, (x, y) in zip(SIZES, on.batches(STEPS), strict=True)]
    base = on.MOMENTUM.build(twin)
    for batch in data:
        on.rewound_step(adapter, base, twin, lambda m, d=batch: on.classify(m, d)())
    on.train(adapter, adapter.build(on.MOMENTUM, model, on.RHO), model, data)
    return _difference(model, twin)


def _difference(model: nn.Module, twin: nn.Module) -> float:
    """Return the greatest difference of a value; infinite if a shape differs."""
    found: list[float] = []
    for a, b in zip(_tensors(model), _tensors(twin), strict=True):
        same = a.shape == b.shape
        found.append(on.distance([a], [b]) if same else torch.inf)
    pairs = zip(_numbers(model), _numbers(twin), strict=True)
    return worst([*found, *(abs(a - b) for a, b in pairs)])


def _tensors(model: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*model.parameters(), *model.buffers())]


def _numbers(model: nn.Module) -> list[float]:
    own = [m for m in model.modules() if isinstance(m, WITH_NUMBERS)]
    values = [v for module in own for v in vars(module).values()]
    return [float(v) for v in values if isinstance(v, bool | int | float)]


def _worst_of(adapter: Adapter, kinds: list[Callable[[], nn.Module]]) -> Measured:
    found: dict[str, float] = {}
    for layer in kinds:
        model, twin = _before(layer()), _before(layer())
        found[layer.__name__] = _off(adapter, model, twin)
    note = ", ".join(f"{name} {figure:.2g}" for name, figure in found.items())
    return Measured(worst(list(found.values())), note if any(found.values()) else "")


@check(
    "C31",
    "plain attributes of a module start both passes alike and keep one update",
    "greatest difference of a weight, buffer or number from such steps, after 3",
    AtMost(1e-6),
)
def attributes(adapter: Adapter) -> Measured:
    """Test attributes that are no tensors: a table's length, a flag, a running mean."""
    return _worst_of(adapter, list(WITH_NUMBERS))


@check(
    "C32",
    "a buffer that a pass resizes or replaces keeps one update",
    "greatest difference of a weight or buffer from such steps, after 3",
    AtMost(1e-6),
)
def resized(adapter: Adapter) -> Measured:
    """Test layers like the observers of quantization."""
    return _worst_of(adapter, [layers.Observer, layers.Recording])


@check(
    "C33",
    "a model with a TorchScript part is stepped as without",
    "greatest difference of a weight or buffer from the model in Python, after 3 steps",
    AtMost(1e-6),
)
def scripted(adapter: Adapter) -> Measured:
    """Test a part with weights and a buffer that every pass updates."""
    torch.manual_seed(1)
    twin = _below(layers.Centred())
    model = copy.deepcopy(twin)
    model[0] = torch.jit.script(model[0])  # pyright: ignore[reportIndexIssue]
    return Measured(_off(adapter, model, twin))


@check(
    "C34",
    "frozen weights that a pass updates get one update per step, from w",
    "greatest difference of a weight from such steps, after 3",
    AtMost(1e-6),
)
def frozen(adapter: Adapter) -> Measured:
    """Test a layer like a momentum encoder."""
    torch.manual_seed(1)
    twin = _below(layers.Teacher())
    return Measured(_off(adapter, copy.deepcopy(twin), twin))
