"""DistributedDataParallel with find_unused_parameters against formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from tests.distributed import unused_jobs
from tests.distributed.jobs import LR, MOMENTUM, RHO, batches, part
from tests.distributed.ranks import WORLD_SIZE, Ranks
from tests.distributed.test_ddp import close
from tests.distributed.unused_jobs import USES, Branching

STEPS = 4
RANKS = range(WORLD_SIZE)
SCOPES = ("replica", "world", "group")


def mean(gs: list[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(parts).mean(0) for parts in zip(*gs, strict=True)]


def moved(w: list[Tensor], g: list[Tensor]) -> list[Tensor]:
    length = torch.stack([t.square().sum() for t in g]).sum().sqrt()
    return [p + RHO * t / length for p, t in zip(w, g, strict=True)]


def gradient(w: list[Tensor], x: Tensor, y: Tensor, both: bool) -> list[Tensor]:
    """Zero for what is not used."""
    model, at = Branching(), [p.clone().requires_grad_() for p in w]
    names = [name for name, _ in model.named_parameters()]
    out = functional_call(model, dict(zip(names, at, strict=True)), (x, both))
    loss = cross_entropy(out, y)
    return list(torch.autograd.grad(loss, at, materialize_grads=True))


def reference(scope: str, use: str) -> list[Any]:
    """Each rank climbs along its own gradient or the mean; all descend the mean.

    The base leaves alone what no rank uses in the second pass.
    """
    named = list(Branching().named_parameters())
    w = [p.detach() for _, p in named]
    v = [torch.zeros_like(p) for p in w]
    for k, (x, y) in enumerate(batches(STEPS)):
        data = [(part(rank, x), part(rank, y)) for rank in RANKS]
        both = [[USES[use](rank, k, index) for rank in RANKS] for index in range(2)]
        g = [gradient(w, *data[rank], both[0][rank]) for rank in RANKS]
        if scope != "replica":
            g = [mean(g) for _ in RANKS]
        there = [moved(w, g[rank]) for rank in RANKS]
        g_eps = mean([gradient(there[r], *data[r], both[1][r]) for r in RANKS])
        for i, (name, _) in enumerate(named):
            if name.startswith("a.") or any(both[1]):
                v[i] = MOMENTUM * v[i] + g_eps[i]
                w[i] = w[i] - LR * v[i]
    return [p.tolist() for p in w]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("use", ["every second step", "one rank", "second pass"])
def test_parameters_may_be_left_out(use: str, scope: str, ranks: Ranks) -> None:
    one, two = ranks.run(unused_jobs.trained, scope, use, STEPS)
    assert one == two
    close(one["weights"], reference(scope, use))
    left_out = use == "every second step"
    assert one["there"] == [not left_out or k % 2 == 0 for k in range(STEPS)]


def test_in_the_world_a_parameter_may_be_used_in_the_first_pass_alone(
    ranks: Ranks,
) -> None:
    one, two = ranks.run(unused_jobs.trained, "world", "first pass", STEPS)
    assert one == two
    close(one["weights"], reference("world", "first pass"))
    assert one["there"] == [True, False, True, True]


@pytest.mark.parametrize("scope", ["replica", "group"])
def test_elsewhere_torch_refuses_that_and_the_weights_are_restored(
    scope: str, ranks: Ranks
) -> None:
    for answer in ranks.run(unused_jobs.left_out_in_the_second_pass, scope):
        refused, afterwards = answer["said"]
        assert "Encountered gradient which is undefined" in refused
        assert "Expected to have finished reduction" in afterwards
        assert answer["restored"]
