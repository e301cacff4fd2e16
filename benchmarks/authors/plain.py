"""SAM, and SAM with a perturbation for each part of a batch; `understanding-sam`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import torch
from comparison import Load, Row
from extraction import extract, taken
from jaxes import bayesian, jax_gradient
from loops import MOMENTUM, RATE, SGD, Batches, Run, base, loss, ours, probe
from torch import Tensor, nn

from flatmin import SAM


def davda54(**options: Any) -> Load:
    sgd = torch.optim.SGD
    return taken(
        "sam.py", "SAM", lambda kind, m: kind(m.parameters(), sgd, **options, **SGD)
    )


def google(decays: float) -> Load:
    path = "sam_jax/training_utils/flax_training.py"
    config = Record(sync_perturbations=False)
    return jax_gradient("get_sam_gradient", path, path, config, decays, rho=0.1)


def ours_decayed(model: nn.Module, batches: Batches) -> None:
    sgd = base(model, weight_decay=0.05)
    probe(SAM(sgd, model, rho=0.1, decay_in_ascent=True), model, batches)


def understanding(
    rho: float, size: float, *, ascents: int = 1, parts: int = 1, norm: bool = True
) -> Load:
    """Train with their function that perturbs, as their training script does."""

    def load(folder: Path) -> Run:
        nets = folder / "deep_nets"
        utils = extract(nets / "utils.py", "zero_grad", "get_flat_grad")
        names = ("weight_ascent_step", "perturb_weights_sam")
        perturb = extract(nets / "sam.py", *names, utils=utils).perturb_weights_sam
        back = extract(nets / "utils_train.py", "subtract_weight_delta")

        def run(model: nn.Module, batches: Batches) -> None:
            sgd = base(model)
            for x, y in batches:
                total: dict[nn.Parameter, Any] = defaultdict(float)
                for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
                    f = piece(a, b, parts)
                    eps = perturb(model, f, rho, size, ascents, not norm)
                    f(model).backward()
                    back.subtract_weight_delta(model, eps)
                    for p in model.parameters():
                        total[p] = total[p] + p.grad.clone()
                    sgd.zero_grad()
                for p, g in total.items():
                    p.grad = g
                sgd.step()
                sgd.zero_grad()

        return run

    return load


def piece(x: Tensor, y: Tensor, parts: int) -> Callable[[nn.Module], Tensor]:
    return lambda model: loss(model, x, y) / parts


def our_parts(model: nn.Module, batches: Batches) -> None:
    sgd = base(model)
    optimizer = SAM(sgd, model, rho=0.1)
    for x, y in batches:
        sgd.zero_grad()
        for a, b in zip(x.chunk(4), y.chunk(4), strict=True):
            for one in optimizer.probes(accumulate=True):
                one.backward(loss(model, a, b) / 4)
        optimizer.step()


PARTS, REMARK = "sam, probes(accumulate=True)", "m-SAM with 4 parts per batch"
ROWS = [
    Row("sam", "davda54/sam", davda54(rho=0.1), ours(SAM, rho=0.1)),
    Row(
        "sam",
        "google-research/sam",
        google(0.0),
        ours(SAM, rho=0.1),
        "names that JAX removed; their gradient, our momentum",
        "the paper's code",
    ),
    Row(
        "sam, decay_in_ascent",
        "google-research/sam",
        google(0.05),
        ours_decayed,
        "the penalty 0.05 / 2 of w squared in the loss; ours: weight_decay=0.05",
        "the paper's code has the penalty in the loss it climbs",
    ),
    Row(
        PARTS,
        "team-approx-bayes/bayesian-sam",
        bayesian("build_sam_optimizer", RATE, MOMENTUM, 0.0, rho=0.1, msharpness=4),
        our_parts,
        "names that JAX removed",
        REMARK,
    ),
    Row(
        PARTS,
        "tml-epfl/understanding-sam",
        understanding(0.1, 0.1, parts=4),
        our_parts,
        "acc_steps=4; the loop of their train.py rewritten",
        REMARK,
    ),
]
