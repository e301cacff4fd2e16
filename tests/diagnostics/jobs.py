"""What every rank does: its part of the data, measured together with the others."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.nn import CrossEntropyLoss
from torch.nn import functional as F

from flatmin.core import TwoPoint, scales
from flatmin.diagnostics import (
    Objective,
    average_sharpness,
    eigenvalues,
    landscape,
    m_sharpness,
    sharpness,
    spectral_density,
    trace,
    worst_sharpness,
)
from tests.diagnostics.problems import batches
from tests.problems import mlp

ADAPTIVE = TwoPoint(scale=scales.Adaptive(0.01))


def model_and_data(rank: int) -> tuple[Any, list[Any]]:
    """The same network everywhere; unequal parts of the batches."""
    torch.manual_seed(5)
    parts = batches(24, 4)
    return mlp(), parts[:4] if rank == 0 else parts[4:]


def objective_of(rank: int) -> Objective:
    model, data = model_and_data(rank)
    return Objective(model, F.cross_entropy, data, group=dist.group.WORLD)


def alone() -> Objective:
    """All of the data in one process."""
    model, first = model_and_data(0)
    return Objective(model, F.cross_entropy, first + model_and_data(1)[1])


def numbers(objective: Objective) -> list[dict[str, Any]]:
    """Everything that there is to measure."""
    records = [
        sharpness(objective, 0.3),
        sharpness(objective, 0.3, p=1.5),
        worst_sharpness(objective, 0.3, steps=5),
        worst_sharpness(objective, 0.3, steps=3, restarts=2),
        worst_sharpness(objective, 0.3, steps=5, within=ADAPTIVE),
        average_sharpness(objective, 0.3, draws=5),
        m_sharpness(objective, 0.3, 1),
        m_sharpness(objective, 0.3, 4, within=ADAPTIVE),
        eigenvalues(objective, 3, tol=1e-6),
        eigenvalues(objective, 1, matrix="ggn", tol=1e-6),
        trace(objective, draws=5),
        spectral_density(objective, steps=5, draws=2),
    ]
    return [record.to_dict() for record in records]


def measure(rank: int) -> list[dict[str, Any]]:
    return numbers(objective_of(rank))


def weighted(data: list[Any], group: Any = None) -> list[Any]:
    """With class weights, targets that are ignored, and batches without any other."""
    torch.manual_seed(5)
    weight = torch.tensor([1.0, 7.0, 0.5]).double()
    objective = Objective(mlp(), CrossEntropyLoss(weight), data, group=group)
    line = landscape.line(objective, [*objective.w], a=[-0.5, 0.5])
    return [*numbers(objective), objective.divisor, *line.losses]


def partly_ignored() -> list[Any]:
    """Six batches of four; the first two hold nothing but ignored targets."""
    data = [(x, y.clone()) for x, y in batches(24, 4)]
    for k, (_, y) in enumerate(data):
        y[: 4 if k < 2 else k % 3] = -100
    return data


def measure_weighted(rank: int) -> list[Any]:
    """The first rank's targets are all ignored."""
    data = partly_ignored()
    return weighted(data[:2] if rank == 0 else data[2:], dist.group.WORLD)


def refuse_all_ignored(rank: int) -> str:
    """Neither rank has a target that counts."""
    data = [(x, torch.full_like(y, -100)) for x, y in batches(8 * (rank + 1), 4)]
    try:
        Objective(mlp(), F.cross_entropy, data, group=dist.group.WORLD)
    except ValueError as error:
        return str(error)
    return "no error"


def measure_where_one_has_nothing(rank: int) -> float:
    model, _ = model_and_data(0)
    data = batches(24, 4) if rank == 0 else []
    objective = Objective(model, F.cross_entropy, data, group=dist.group.WORLD)
    return m_sharpness(objective, 0.3, 2).value


def refuse_on_one(rank: int) -> str:
    """One rank has a NaN in its data."""
    model, data = model_and_data(rank)
    if rank == 1:
        data[0] = (data[0][0] * torch.nan, data[0][1])
    try:
        Objective(model, F.cross_entropy, data, group=dist.group.WORLD)
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def fail_on_one_later(rank: int) -> list[str]:
    """One rank's model fails in the middle of each measure."""
    objective = objective_of(rank)
    before = [p.detach().clone() for p in objective.w]
    answers = []
    for measure_one in (
        lambda: sharpness(objective),
        lambda: m_sharpness(objective, m=4),
        lambda: average_sharpness(objective, draws=2),
    ):
        calls = [0]

        def explode(*_: object, calls: list[int] = calls) -> None:
            calls[0] += 1
            if rank == 0 and calls[0] > 3:
                raise OSError("disk full")

        hook = objective.model.register_forward_pre_hook(explode)
        try:
            measure_one()
        except (OSError, RuntimeError) as error:
            answers.append(f"{type(error).__name__}: {error}")
        hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, objective.w, strict=True))
    return answers
