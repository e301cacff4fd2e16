"""The training that every framework has to equal, as a loop by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from flatmin import SAM
from tests.frameworks.scenario import (
    EPOCHS,
    Scenario,
    Trace,
    autocast,
    batches,
    loss_of,
    network,
    optimizer_of,
    scaler_of,
    schedule_of,
    start,
    trace,
)


def train(of: Scenario, rank: int = 0) -> Trace:
    """Train without a framework; a killed training is one that was never killed."""
    model: nn.Module = network(of)
    if of.processes > 1:
        model = DistributedDataParallel(model)
    # With radius 0 the base alone is the oracle.
    sam = of.method is not None and of.rho > 0
    optimizer = optimizer_of(of if sam else Scenario(method=None), model)
    schedule = schedule_of(optimizer) if of.schedule else None
    scaler, losses = scaler_of(of), []
    start()
    stream = [b for _ in range(EPOCHS) for b in batches(rank)]
    for k, (x, y) in enumerate(stream):
        if k % of.accumulate == 0:
            optimizer.zero_grad()
        losses.append(passes(of, model, optimizer, scaler, x, y))
        if (k + 1) % of.accumulate:
            continue
        scaler.unscale_(optimizer)
        clip(of, model)
        scaler.step(optimizer)
        scaler.update()
        if schedule is not None:
            schedule.step()
    return trace(model, losses)


def passes(
    of: Scenario,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    x: Tensor,
    y: Tensor,
) -> float:
    """The passes over one micro-batch; the loss at w."""
    if not isinstance(optimizer, SAM):
        return one_pass(of, model, scaler, x, y)
    found: list[float] = []
    # The loop of a single micro-batch clears gradients itself.
    more = of.accumulate > 1
    for probe in optimizer.probes(accumulate=more, scaler=scaler):
        found.append(one_pass(of, model, scaler, *probe.take(x, y)))
    return found[0]


def one_pass(
    of: Scenario, model: nn.Module, scaler: torch.amp.GradScaler, x: Tensor, y: Tensor
) -> float:
    with autocast(of):
        loss = loss_of(model(x), y)
    scaler.scale(loss / of.accumulate).backward()
    return loss.item()


def clip(of: Scenario, model: nn.Module) -> None:
    if of.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), of.clip_norm)
    if of.clip_value is not None:
        nn.utils.clip_grad_value_(model.parameters(), of.clip_value)
