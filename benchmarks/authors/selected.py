"""Methods that look at single examples: ESAM, sparse SAM."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace as Record
from typing import Any
from unittest import mock

from comparison import EXAMPLES, STEPS, Load, Row
from extraction import REGISTRY, taken
from loops import Batches, Build, Run, base, each, loss
from torch import Tensor, nn

from flatmin import SAM, methods
from flatmin.core.examples import HighestRise


def esam(folder: Any) -> Run:
    """Run ESAM with flatmin's coins.

    The authors' code tosses them a step ahead, so that the first step has none.
    """

    def loop(build: Build) -> Run:
        def run(model: nn.Module, batches: Batches) -> None:
            optimizer = build(model)
            for x, y in batches:
                optimizer.paras = [x, y, each, model, Tensor.backward]
                optimizer.step()

        return run

    return taken(
        "utils/Esam.py",
        "ESAM",
        lambda kind, m: kind(m.parameters(), base(m), rho=0.1, beta=0.6, gamma=0.5),
        loop,
        numbers={1e-7: 0.0},
        random=Record(random=iter(tosses()).__next__),
    )(folder)


def tosses() -> list[float]:
    """Draw a number for each tensor of `mlp` in each step but the first."""
    draws = [random.Random(f"{seed()} {t}") for t in range(1, STEPS + 1)]
    return [draw.random() for draw in draws for _ in range(4)]


def seed() -> int:
    """Return a seed by which the first step moves all tensors, and each step some."""

    def fits(number: int) -> bool:
        draws = [random.Random(f"{number} {t}") for t in range(STEPS)]
        moves = [[draw.random() < 0.6 for _ in range(4)] for draw in draws]
        return all(moves[0]) and all(any(step) for step in moves)

    return next(number for number in range(1000) if fits(number))


def our_esam(share: float) -> Run:
    method = HighestRise(0.6, share, seed())
    return examples(lambda base, model: SAM(base, model, rho=0.1, method=method))


def examples(build: Callable[..., SAM]) -> Run:
    """Return a loop for methods that choose examples."""

    def run(model: nn.Module, batches: Batches) -> None:
        optimizer = build(base(model), model)
        for x, y in batches:
            for one in optimizer.probes():
                some: Any = one.take(x, y)
                one.backward(each(model(some[0]), some[1]))
            optimizer.step()

    return run


def ssam_f(mask_first: bool) -> Load:
    """Make the mask from each batch, before its step or, as in their code, after it."""

    def loop(build: Build) -> Run:
        def run(model: nn.Module, batches: Batches) -> None:
            optimizer = build(model)
            for x, y in batches:
                data = list(zip(x, y, strict=True))
                if mask_first:
                    masked(optimizer, model, data)
                optimizer.zero_grad()
                loss(model, x, y).backward()
                optimizer.first_step(True)
                loss(model, x, y).backward()
                optimizer.second_step(mask_first)
                if not mask_first:
                    masked(optimizer, model, data)

        return run

    options = {"rho": 0.1, "sparsity": 0.5, "update_freq": 1, "num_samples": EXAMPLES}
    return taken(
        "solver/sam.py",
        "SSAMF",
        lambda kind, m: kind(m.parameters(), base(m), **options),
        loop,
        needs=("SAM",),
        # 4 is the number of a loader's workers.
        numbers={1e-7: 0.0, 4: 0},
        **REGISTRY,
    )


def masked(optimizer: Any, model: nn.Module, data: list[tuple[Tensor, Tensor]]) -> None:
    with mock.patch.object(Tensor, "cuda", lambda tensor: tensor):
        optimizer.update_mask(model, data)


our_sparse = examples(
    partial(methods.sparse_sam, every=1, rho=0.1, samples=EXAMPLES),
)
COINS = "the same coins, not tossed in the first step; 1e-7 is 0"
SPARSE = "Mi-Peng/Sparse-Sharpness-Aware-Minimization"

ROWS = [
    Row(
        "esam",
        "dydjw9/Efficient_SAM",
        esam,
        our_esam(0.5),
        COINS,
        "theirs takes the examples above the one at gamma, so one less",
    ),
    Row(
        "esam",
        "dydjw9/Efficient_SAM",
        esam,
        our_esam(7 / 16),
        f"{COINS}; gamma 8 of 16 examples, ours 7 of 16",
    ),
    Row(
        "sparse_sam",
        SPARSE,
        ssam_f(mask_first=False),
        our_sparse,
        "a mask of each batch; no .cuda(), no workers; 1e-7 is 0",
        "theirs makes it after the step, with the step's gradient in it",
    ),
    Row(
        "sparse_sam",
        SPARSE,
        ssam_f(mask_first=True),
        our_sparse,
        "as above, and before the step, with gradients cleared",
    ),
]
