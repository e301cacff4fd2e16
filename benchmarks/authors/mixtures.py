"""Methods that mix the gradients: gnp, GSAM, WSAM, SAGM."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import torch
from comparison import Load, Row
from extraction import PARALLEL, constant, extract, taken
from jaxes import jax_gradient
from loops import RATE, Batches, Run, base, closures, ours, probe
from torch import nn
from torch.nn.functional import cross_entropy

from flatmin import methods
from flatmin.core import radii


def gnp(normed_too: bool) -> Load:
    options = Record(sync_perturbations=False, norm_perturbations=normed_too)
    config = Record(config=Record(has_true_gradient=False, gnp=options))
    files = "training/training_core.py", "training/utli.py"
    return jax_gradient("get_gnp_gradient", *files, config, 0.0, r=0.1, alpha=0.8)


def surrogate(name: str, path: str, **options: Any) -> Load:
    """Return a run with GSAM, or with SAGM, whose code is derived from it."""
    rho = constant(0.1)
    return taken(
        path,
        name,
        lambda kind, m: kind(m.parameters(), base(m), m, rho_scheduler=rho, **options),
        closures,
        **PARALLEL,
    )


def gsam_with_rate(folder: Path) -> Run:
    kind = extract(folder / "gsam" / "gsam.py", "GSAM", **PARALLEL).GSAM
    rule = extract(folder / "gsam" / "scheduler.py", "ProportionScheduler")

    def run(model: nn.Module, batches: Batches) -> None:
        sgd = base(model)
        rate = decay(sgd)
        rho = rule.ProportionScheduler(rate, RATE, 0.0, 0.1, 0.02)
        optimizer = kind(
            model.parameters(), sgd, model, gsam_alpha=0.4, rho_scheduler=rho
        )
        for x, y in batches:
            optimizer.set_closure(cross_entropy, x, y)
            optimizer.step()
            rate.step()
            optimizer.update_rho_t()

    return run


def decay(sgd: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ExponentialLR:
    return torch.optim.lr_scheduler.ExponentialLR(sgd, 0.8)


def ours_with_rate(model: nn.Module, batches: Batches) -> None:
    sgd = base(model)
    rate, rho = decay(sgd), radii.with_rate(0.02, 0.0, RATE)
    optimizer = methods.gsam(sgd, model, rho=0.1, alpha=0.4, radius=rho)
    for batch in batches:
        probe(optimizer, model, [batch])
        rate.step()


def wsam(decouple: bool) -> Load:
    options = {"rho": 0.1, "gamma": 0.8, "decouple": decouple}
    return taken(
        "atorch/optimizers/wsam.py",
        "WeightedSAM",
        lambda kind, m: kind(m, base(m), **options),
        dist=torch.distributed,
    )


PENALTY, SURROGATE = "zhaoyang-0204/gnp", "juntang-zhuang/GSAM"
ATORCH = "intelligent-machine-learning/atorch"

ROWS = [
    Row(
        "gnp",
        PENALTY,
        gnp(normed_too=True),
        ours(methods.gnp),
        "names that JAX removed; their gradient, our momentum",
        "their default norm_perturbations=True mixes g / length of g; the paper g",
    ),
    Row(
        "gnp",
        PENALTY,
        gnp(normed_too=False),
        ours(methods.gnp),
        "as above; norm_perturbations=False",
    ),
    Row(
        "gsam",
        SURROGATE,
        surrogate("GSAM", "gsam/gsam.py", gsam_alpha=0.4),
        ours(methods.gsam, rho=0.1, alpha=0.4),
        "a constant rho",
    ),
    Row(
        "gsam, radii.with_rate",
        SURROGATE,
        gsam_with_rate,
        ours_with_rate,
        "ProportionScheduler, rho 0.02 to 0.1; the learning rate falls to 0.01",
    ),
    Row(
        "wsam",
        ATORCH,
        wsam(decouple=True),
        ours(methods.wsam, rho=0.1, gamma=0.8),
        "decouple=True",
    ),
    Row(
        "coupled_wsam",
        ATORCH,
        wsam(decouple=False),
        ours(methods.coupled_wsam, rho=0.1, gamma=0.8),
        "decouple=False",
    ),
    Row(
        "sagm",
        "Wang-pengfei/SAGM",
        surrogate("SAGM", "domainbed/sagm/sagm.py", alpha=0.05),
        ours(methods.sagm, rho=0.1, alpha=0.05),
        "a constant rho",
    ),
]
