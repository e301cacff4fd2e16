"""Which collectives ranks take part in, as the profiler sees them."""

from __future__ import annotations

from collections import Counter

from torch import nn
from torch.autograd.profiler import record_function
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim import SGD
from torch.profiler import ProfilerActivity, profile

from flatmin import SAM
from tests.distributed.jobs import RHO, batches, part, scope_named, sgd
from tests.distributed.sync_jobs import network

#: Collectives by name and number, for each pass and for what is between and after them.
Collectives = dict[str, dict[str, int]]


def plain_step(rank: int, model: nn.Module, base: SGD) -> None:
    base.zero_grad()
    [(x, y)] = batches(1)
    with record_function("pass 0"):
        cross_entropy(model(part(rank, x)), part(rank, y)).backward()
    base.step()


def sam_step(rank: int, model: nn.Module, optimizer: SAM) -> None:
    [(x, y)] = batches(1)
    for probe in optimizer.probes():
        with record_function(f"pass {probe.index}"):
            cross_entropy(model(part(rank, x)), part(rank, y)).backward()
    optimizer.step()


def counted(profiler: profile) -> Collectives:
    events = profiler.events() or []
    spans = {
        event.name: event.time_range
        for event in events
        if event.name.startswith("pass ")
    }
    counts = {name: Counter[str]() for name in [*spans, "outside"]}
    for event in events:
        if event.name.startswith("c10d::"):
            when = event.time_range.start
            of = [n for n, span in spans.items() if span.start <= when <= span.end]
            counts[of[0] if of else "outside"][event.name] += 1
    return {name: dict(count) for name, count in counts.items()}


def of_a_step(rank: int, scope: str | None, norm: bool) -> Collectives:
    """Those of a step after two others, by then DDP has settled; plain if no scope."""
    model = DDP(network(nn.BatchNorm1d if norm else nn.Identity))
    base, chosen = sgd(model), None if scope is None else scope_named(scope, rank)
    optimizer = None if chosen is None else SAM(base, model, rho=RHO, scope=chosen)

    def step() -> None:
        if optimizer is None:
            plain_step(rank, model, base)
        else:
            sam_step(rank, model, optimizer)

    step()
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    return counted(profiler)
