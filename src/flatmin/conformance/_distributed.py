"""Two ranks: sharded weights, and replicas that climb on their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from flatmin.conformance import _problems as on
from flatmin.conformance._adapter import Adapter, Base
from flatmin.conformance._check import (
    AtLeast,
    AtMost,
    Measured,
    Wrong,
    check,
    needed,
    refusal,
    worst,
)
from flatmin.conformance._ranks import WORLD_SIZE, on_ranks


def _plain(base: Base, model: nn.Module, rho: float) -> Any:
    del rho
    return base.build(model)


def _plain_step(optimizer: Any, model: nn.Module, loss: Any) -> None:
    on.backward(model, loss)
    optimizer.step()


#: The optimizer without SAM, as an adapter.
CONTROL = Adapter(name="the base optimizer", build=_plain, step=_plain_step)


@check(
    "C4",
    "FSDP2 on two ranks is one process",
    "greatest difference of a weight after 3 steps",
    AtMost(1e-6),
)
def sharded(adapter: Adapter) -> Measured:
    """Give each rank half of the weights and half of the batch."""
    _check_control(train_sharded, "FSDP2")
    found = on_ranks(train_sharded, adapter)
    return Measured(_off_one_process(adapter, found))


def _check_control(job: Callable[..., Any], wrapper: str) -> None:
    control = _off_one_process(CONTROL, on_ranks(job, CONTROL))
    if control > 1e-9:
        raise Wrong(f"{CONTROL.name} alone is off by {control:.2g}; blame {wrapper}")


def _off_one_process(adapter: Adapter, found: list[Any]) -> float:
    model = on.network()
    optimizer = adapter.build(on.MOMENTUM, model, on.RHO)
    on.train(adapter, optimizer, model, on.batches(3))
    return worst([on.distance(_tensors(w), on.weights(model)) for w in found])


def train_sharded(rank: int, adapter: Adapter) -> list[Any]:
    """Return the whole weights after 3 steps, as nested lists."""
    model = on.network()
    mesh = init_device_mesh("cpu", (WORLD_SIZE,))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = adapter.build(on.MOMENTUM, model, on.RHO)
    on.train(adapter, optimizer, model, [_part(rank, d) for d in on.batches(3)])
    return [
        (p.full_tensor() if isinstance(p, DTensor) else p).tolist()
        for p in model.parameters()
    ]


@check(
    "C35",
    "FSDP1 on two ranks is one process, or is refused",
    "greatest difference of a weight after 3 steps",
    AtMost(1e-6),
)
def fully_sharded(adapter: Adapter) -> Measured:
    """Let each rank see a flat piece of all weights as one parameter."""
    _check_control(train_flat, "FSDP1")
    found = on_ranks(train_flat, adapter)
    if all(isinstance(answer, str) for answer in found):
        return Measured(0.0, found[0])
    return Measured(_off_one_process(adapter, found))


def train_flat(rank: int, adapter: Adapter) -> list[Any] | str:
    """Return the whole weights after 3 steps, or the note about a refusal."""
    model = FullyShardedDataParallel(on.network(), device_id=torch.device("cpu"))
    before = on.weights(model)
    first, *later = [_part(rank, batch) for batch in on.batches(3)]
    built: list[Any] = []

    def begin() -> None:
        built.append(adapter.build(on.MOMENTUM, model, on.RHO))
        on.train(adapter, built[0], model, [first])

    note = refusal(begin, lambda: on.distance(on.weights(model), before))
    if note:
        return note
    on.train(adapter, built[0], model, later)
    with FullyShardedDataParallel.summon_full_params(model):
        return _lists(on.weights(model))


@check(
    "C5",
    "under DDP, replicas climb on their own where the scope says so",
    "distance of the two ranks' perturbations, in rho",
    AtLeast(0.01),
)
def on_their_own(adapter: Adapter) -> Measured:
    """Check as well that the step descends along the mean of the ranks' gradients."""
    needed(adapter.rank_local, "documented step for it")
    ranks = on_ranks(climb_alone, adapter)
    mine, other = (_tensors(rank["eps"]) for rank in ranks)
    spread = on.length([a - b for a, b in zip(mine, other, strict=True)])
    expected = _mean_of_parts(adapter)
    off = worst([on.distance(_tensors(r["weights"]), expected) for r in ranks])
    if spread > 0 and off > 1e-6:
        raise Wrong(f"the step is off by {off:.2g} (spread {spread / on.RHO:.2g} rho)")
    return Measured(spread / on.RHO)


def climb_alone(rank: int, adapter: Adapter) -> dict[str, Any]:
    """Return perturbation and weights of a step."""
    step = needed(adapter.rank_local, "documented step for it")
    model = DistributedDataParallel(on.network())
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    batch = _part(rank, on.batches(1)[0])
    passes = on.Passes(model, on.classify(model, batch))
    step(optimizer, model, passes)
    return {"eps": _lists(passes.eps()), "weights": _lists(on.weights(model))}


def _mean_of_parts(adapter: Adapter) -> on.Vector:
    """Compute ``w - lr mean_k g_k(w + eps_k)`` in one process."""
    steps: list[on.Vector] = []
    for rank in range(WORLD_SIZE):
        model = on.network()
        loss = on.classify(model, _part(rank, on.batches(1)[0]))
        steps.append(on.reference(adapter, model, on.PLAIN, [loss]))
    return [torch.stack(each).mean(0) for each in zip(*steps, strict=True)]


@check(
    "C6",
    "under DDP, one rank's infinite gradient in pass 1 spoils no weight",
    "greatest difference between the ranks after 2 further steps; inf if one is NaN",
    AtMost(0),
)
def one_rank_overflows(adapter: Adapter) -> Measured:
    """Take the step that the adapter documents for DDP, or else its usual one."""
    first, second = (_tensors(w) for w in on_ranks(overflow, adapter))
    if not all(bool(w.isfinite().all()) for w in [*first, *second]):
        return Measured(torch.inf, "the weights are not finite")
    return Measured(on.distance(first, second))


def overflow(rank: int, adapter: Adapter) -> list[Any]:
    """Return the weights after 3 steps, if rank 1 overflows in the very first pass."""
    model = DistributedDataParallel(on.network())
    optimizer = adapter.build(on.PLAIN, model, on.RHO)
    calls = 0
    for batch in on.batches(3):
        loss = on.classify(model, _part(rank, batch))

        def bad_once(loss: Any = loss) -> Tensor:
            nonlocal calls
            calls += 1
            return loss() * torch.inf if rank == 1 and calls == 1 else loss()

        (adapter.rank_local or adapter.step)(optimizer, model, bad_once)
    return _lists(on.weights(model))


def _part(rank: int, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    half = len(batch[0]) // WORLD_SIZE
    x, y = (t[rank * half : (rank + 1) * half] for t in batch)
    return x, y


def _lists(vector: on.Vector) -> list[Any]:
    return [v.tolist() for v in vector]


def _tensors(lists: list[Any]) -> on.Vector:
    return [torch.tensor(values, dtype=torch.float64) for values in lists]
