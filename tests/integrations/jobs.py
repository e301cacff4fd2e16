"""What ranks do with a Trainer, in the process group that is there already."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from flatmin import SAM
from flatmin.integrations.transformers import SharedPerturbationTrainer
from tests.frameworks.judge import as_rank, states
from tests.frameworks.scenario import (
    EPOCHS,
    Scenario,
    Trace,
    base_of,
    batches,
    loss_of,
    network,
    start,
    trace,
)
from tests.frameworks.transformers_host import Ordered, Sharp, train

OF = Scenario(processes=2, accumulate=2)


class Shared(Ordered, SharedPerturbationTrainer):
    """One perturbation per step."""


def verdict(rank: int, shared: bool, scope: str) -> str:
    """How a Trainer's weights compare with those of the loop by hand."""
    run = partial(train, kind=Shared if shared else Sharp, scope=scope)
    trained: Any = as_rank(rank, run, OF)
    return states(trained, by_hand(rank, shared, scope)).mark


def by_hand(rank: int, shared: bool, scope: str) -> Trace:
    model = DistributedDataParallel(network(OF), find_unused_parameters=True)
    sam = SAM(base_of(model), model, rho=OF.rho, scope=scope)  # pyright: ignore[reportArgumentType]
    start()
    stream = EPOCHS * batches(rank)
    for step in zip(stream[::2], stream[1::2], strict=True):
        sam.zero_grad()
        for micro_batches in [step] if shared else [[b] for b in step]:
            for _ in sam.probes(accumulate=not shared):
                *first, (x, y) = micro_batches
                with model.no_sync():
                    for early_x, early_y in first:
                        (loss_of(model(early_x), early_y) / 2).backward()
                (loss_of(model(x), y) / 2).backward()
        sam.step()
    return trace(model, [])
