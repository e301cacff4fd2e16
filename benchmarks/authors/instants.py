"""Methods that climb in some of the steps: an interval, LookSAM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import torch
from comparison import Load, Row, one_matrix
from extraction import Numbers, extract, nothing, taken
from loops import SGD, Batches, Build, Run, base, each, loss, ours
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin import methods


def composer(first: int) -> Load:
    def from_there(build: Build) -> Run:
        def run(model: nn.Module, batches: Batches) -> None:
            optimizer = build(model)
            optimizer.global_step = first
            for x, y in batches:
                optimizer.step(closure(optimizer, model, x, y))

        return run

    return taken(
        "composer/algorithms/sam/sam.py",
        "SAMOptimizer",
        lambda kind, m: kind(base(m), rho=0.4, interval=4),
        from_there,
    )


def closure(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor) -> Any:
    def run(**_: Any) -> Tensor:
        optimizer.zero_grad()
        value = loss(model, x, y)
        value.backward()
        return value

    return run


def becker(numbers: Numbers) -> Load:
    options = {"weight_decay": 0.0, "rho": 0.1, "alpha": 0.75, "k": 4, **SGD}
    return taken(
        "optimizer/looksam.py",
        "LookSAM",
        lambda kind, m: kind(m.parameters(), **options),
        with_the_model,
        needs=("sgd",),
        numbers=numbers,
        smooth_crossentropy=each,
    )


def with_the_model(build: Build) -> Run:
    def run(model: nn.Module, batches: Batches) -> None:
        optimizer = build(model)
        for x, y in batches:
            optimizer.step(Wrapped(model), x, y)

    return run


class Wrapped:
    """In place of DistributedDataParallel."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.module = Record(setBatchNormTracking=nothing)

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)


def rollovd(numbers: Numbers) -> Callable[[Path], Run]:
    def load(folder: Path) -> Run:
        kind = extract(folder / "looksam.py", "LookSAM", numbers=numbers).LookSAM

        def run(model: nn.Module, batches: Batches) -> None:
            sgd = torch.optim.SGD
            optimizer = kind(4, 0.75, model, sgd, cross_entropy, rho=0.1, **SGD)
            for t, (x, y) in enumerate(batches):
                loss(model, x, y).backward()
                optimizer.step(t, x, y)

        return run

    return load


our_interval = ours(methods.interval_sam, rho=0.1, k=4)
our_looksam = ours(methods.looksam, rho=0.1, k=4, alpha=0.75)

ROWS = [
    Row(
        "interval_sam",
        "mosaicml/composer",
        composer(first=0),
        our_interval,
        "rho=0.4, ours: k times 0.1",
        "theirs climbs in the k-th step first, ours in the first",
    ),
    Row(
        "interval_sam",
        "mosaicml/composer",
        composer(first=3),
        our_interval,
        "rho=0.4; global_step starts at 3",
    ),
    Row(
        "looksam",
        "MarlonBecker/MSAM",
        becker({}),
        our_looksam,
        remark="by other authors; 1e-12 in their denominators",
    ),
    Row(
        "looksam", "MarlonBecker/MSAM", becker({1e-12: 0.0}), our_looksam, "1e-12 is 0"
    ),
    Row(
        "looksam",
        "rollovd/LookSAM",
        rollovd({}),
        our_looksam,
        remark="unofficial; projects and scales per tensor, the paper all together",
    ),
    Row(
        "looksam",
        "rollovd/LookSAM",
        rollovd({1e-8: 0.0}),
        our_looksam,
        "a network of one matrix; 1e-8 is 0",
        network=one_matrix,
    ),
]
