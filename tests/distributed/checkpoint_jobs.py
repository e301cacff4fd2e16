"""Checkpoints by torch's own functions, which are given the SAM object itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim import Optimizer

from flatmin import SAM
from tests.distributed.jobs import LR, MOMENTUM, RHO
from tests.distributed.shard_jobs import locally, train, whole, wrapped

STEPS = range(5)
MORE = range(5, 10)


def momentum(model: nn.Module) -> Optimizer:
    """Two groups, one of which has a radius of its own."""
    weights = [p for p in model.parameters() if p.dim() == 2]
    biases = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": weights}, {"params": biases, "sam_rho": RHO / 2}]
    return torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM)


def plain(model: nn.Module) -> Optimizer:
    """Without state, so that torch tries a step each time."""
    return torch.optim.SGD(model.parameters(), lr=LR)


def adamw(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def tensor_rate(model: nn.Module) -> Optimizer:
    rate = torch.tensor(0.01, dtype=torch.float64)
    return torch.optim.Adam(model.parameters(), lr=rate, foreach=False)


BASES: dict[str, Callable[[nn.Module], Optimizer]] = {
    f.__name__: f for f in (momentum, plain, adamw, tensor_rate)
}


def save(model: nn.Module, optimizer: Optimizer, folder: str) -> None:
    weights, state = get_state_dict(model, optimizer)
    state_dict_saver.save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def load(model: nn.Module, optimizer: Optimizer, folder: str) -> None:
    weights, state = get_state_dict(model, optimizer)
    state_dict_loader.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)


def sam(model: nn.Module, base: str, rho: float = RHO) -> SAM:
    return SAM(BASES[base](model), model, rho=rho)


def door(optimizer: SAM, name: str) -> Optimizer:
    return optimizer if name == "sam" else optimizer.base


def result(model: nn.Module, optimizer: SAM) -> dict[str, Any]:
    return {
        "weights": [whole(p.detach()) for p in model.parameters()],
        "steps": [group["sam_step"] for group in optimizer.param_groups],
        "radii": [group["sam_rho"] for group in optimizer.param_groups],
    }


def seen_by(rank: int, kind: str) -> int | None:
    """Tensor parallel ranks see the same examples, the others their part."""
    return None if kind == "tensor" else rank


def save_from_two(rank: int, base: str, kind: str, via: str, folder: str) -> None:
    model = wrapped(kind, torch.float64)
    optimizer = sam(model, base)
    train(model, optimizer, STEPS, seen_by(rank, kind))
    save(model, door(optimizer, via), folder)


def continue_on_two(
    rank: int, base: str, kind: str, via: str, folder: str
) -> dict[str, Any]:
    model = wrapped(kind, torch.float64)
    # A radius that the checkpoint has to replace.
    optimizer = sam(model, base, rho=9.0)
    load(model, door(optimizer, via), folder)
    train(model, optimizer, MORE, seen_by(rank, kind))
    return result(model, optimizer)


def looked_at(rank: int, base: str, kind: str) -> list[bool]:
    """Whether asking for a new SAM's state leaves weights and groups as they are."""
    del rank
    model = wrapped(kind, torch.float64)
    optimizer = sam(model, base)
    weights = [locally(p).clone() for p in model.parameters()]
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    get_state_dict(model, optimizer)
    after = [locally(p) for p in model.parameters()]
    return [
        all(torch.equal(a, b) for a, b in zip(weights, after, strict=True)),
        all(p.grad is None for p in model.parameters()),
        rates == [float(group["lr"]) for group in optimizer.param_groups],
        all(group["sam_step"] == 0 for group in optimizer.param_groups),
    ]
