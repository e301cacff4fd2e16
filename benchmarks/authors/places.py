"""Methods with more than two points: several ascents, CR-SAM, GAM, Lookbehind, bSAM."""

from __future__ import annotations

import typing
from types import SimpleNamespace as Record
from typing import Any

import torch
from comparison import Load, Row
from extraction import PARALLEL, Numbers, constant, taken
from jaxes import bayesian
from loops import (
    RATE,
    SGD,
    Batches,
    Build,
    Run,
    ascent_descent,
    base,
    closures,
    ours,
    probe,
    three_calls,
)
from plain import understanding
from torch import nn

from flatmin import methods
from flatmin.core import sources

cr_sam = taken(
    "utils/crsam.py",
    "CRSAM",
    lambda kind, m: kind(
        m.parameters(), torch.optim.SGD, rho=0.1, gamma=0.3, beta=0.2, **SGD
    ),
    three_calls,
)


def gam(numbers: Numbers) -> Load:
    """Run GAM; their beta_0 and beta_1 are flatmin's beta and alpha (main_cifar.py)."""
    betas = Record(grad_beta_1=0.6, grad_beta_2=0.5, grad_beta_3=0.4, grad_gamma=0.3)
    near, far = constant(0.02), constant(0.2)
    return taken(
        "gam/gam.py",
        "GAM",
        lambda kind, m: kind(m.parameters(), base(m), m, near, far, args=betas),
        closures,
        numbers=numbers,
        **PARALLEL,
    )


def three_times(build: Build) -> Run:
    run = ascent_descent(build)
    return lambda model, batches: run(model, [b for b in batches for _ in range(3)])


lookbehind = taken(
    "lookbehind.py",
    "LookbehindSAM",
    lambda kind, m: kind(base(m), m, rho=0.1, k_steps=3, alpha=0.5),
    three_times,
    needs=("ASAM", "LookbehindASAM"),
)


def our_lookbehind(model: nn.Module, batches: Batches) -> None:
    optimizer = methods.lookbehind_sam(base(model), model, rho=0.1, k=3, alpha=0.5)
    for batch in batches:
        probe(optimizer, model, [batch] * 3)


def bsam() -> Load:
    """Run bSAM with flatmin's noise."""
    drawn: list[Any] = []

    def draw(t: int, model: nn.Module, jnp: Any) -> None:
        w = list(model.parameters())
        z = returned(sources.at_random(*typing.cast(Any, (Record(index=t, w=w), None))))
        drawn[:] = [jnp.asarray(one.numpy()) for one in z]

    return bayesian(
        "build_bsam_optimizer",
        RATE,
        before=draw,
        space={"normal_like_tree": lambda *_: (drawn, None)},
        wdecay=0.04,
        rho=0.05,
        msharpness=1,
        Ndata=1000,
        beta1=0.9,
        beta2=0.99,
        s_init=1.0,
        damping=0.1,
    )


def returned(program: Any) -> Any:
    """Return the value of a program that requests no gradient."""
    try:
        next(program)
    except StopIteration as done:
        return done.value
    raise AssertionError("this program asks for a gradient")


def our_bsam(model: nn.Module, batches: Batches) -> None:
    sgd = torch.optim.SGD(model.parameters(), lr=RATE)
    options: Any = {"n": 1000, "precision": 40.0, "betas": (0.9, 0.99)}
    probe(methods.bsam(sgd, model, rho=0.05, **options), model, batches)


ROWS = [
    Row(
        "multi_step_sam",
        "tml-epfl/understanding-sam",
        understanding(0.1, 0.1, ascents=3),
        ours(methods.multi_step_sam, rho=0.1, k=3),
        "sam_iters=3; the loop of their train.py rewritten",
    ),
    Row(
        "cr_sam",
        "TrustAIoT/CR-SAM",
        cr_sam,
        ours(methods.cr_sam, gamma=0.3, beta=0.2),
    ),
    Row(
        "gam",
        "xxgege/GAM",
        gam({}),
        ours(methods.gam, gamma=0.3),
        "constant radii",
        "1e-12 in their denominators",
    ),
    Row(
        "gam",
        "xxgege/GAM",
        gam({1e-12: 0.0}),
        ours(methods.gam, gamma=0.3),
        "constant radii; 1e-12 is 0",
    ),
    Row(
        "lookbehind_sam",
        "chandar-lab/Lookbehind-SAM",
        lookbehind,
        our_lookbehind,
        remark="k = 3 steps per batch; theirs takes 2 k gradients, ours k + 1",
    ),
    Row(
        "bsam",
        "team-approx-bayes/bayesian-sam",
        bsam(),
        our_bsam,
        "names that JAX removed; the same noise; batchsplit=1",
    ),
]
