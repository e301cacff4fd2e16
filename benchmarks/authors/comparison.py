"""One row of the table: two runs from the same start, and the networks they train."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from loops import Batches, Run, without
from torch import nn

STEPS, EXAMPLES, INPUTS, CLASSES = 10, 16, 6, 3
#: Smaller differences of two runs are rounding alone.
EQUAL = 1e-12

#: Makes a run from the folder of a checkout.
Load = Callable[[Path], Run]


# Networks without BatchNorm and dropout, which are not compared here.


def mlp(bias: bool = True) -> nn.Module:
    first = nn.Linear(INPUTS, 8, bias=bias)
    return nn.Sequential(first, nn.Tanh(), nn.Linear(8, CLASSES, bias=bias))


def without_biases() -> nn.Module:
    return mlp(bias=False)


def one_matrix() -> nn.Module:
    """Build a network of one tensor: a rule per tensor is then one for all weights."""
    return nn.Linear(INPUTS, CLASSES, bias=False)


def convnet() -> nn.Module:
    """Build a network with tensors of one, two and three axes."""
    flat = nn.Sequential(nn.Unflatten(1, (1, INPUTS)), nn.Conv1d(1, 4, 3), nn.Tanh())
    return nn.Sequential(flat, nn.Flatten(), nn.Linear(4 * (INPUTS - 2), CLASSES))


def normed() -> nn.Module:
    """Name the normalisation "norm", by which some authors' code recognises it."""
    first, last = nn.Linear(INPUTS, 8), nn.Linear(8, CLASSES)
    layers = {"first": first, "norm": nn.LayerNorm(8), "bend": nn.Tanh(), "last": last}
    return nn.Sequential(OrderedDict(layers))


@dataclass(frozen=True)
class Row:
    """A comparison: ``set_`` says what of the authors' code was set or patched."""

    method: str
    repository: str
    theirs: Load
    ours: Run
    set_: str = "-"
    remark: str = ""
    network: Callable[[], nn.Module] = mlp
    scale: float = 1.0


def compare(row: Row, folder: Path) -> tuple[float, float]:
    """Return the largest differences of a weight: to their run, and to plain SGD."""
    torch.manual_seed(0)
    shape = STEPS, EXAMPLES, INPUTS
    x = row.scale * torch.randn(shape, dtype=torch.float64)
    batches: Batches = list(zip(x, torch.randint(CLASSES, shape[:2]), strict=True))
    ours = row.network().double()
    theirs, plain = copy.deepcopy(ours), copy.deepcopy(ours)
    row.theirs(folder)(theirs, batches)
    row.ours(ours, batches)
    without(plain, batches)
    return largest(ours, theirs), largest(ours, plain)


@torch.no_grad()
def largest(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).abs().max()) for p, q in pairs)
