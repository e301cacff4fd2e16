"""What ranks do with sharded models; full weights go back as nested lists."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy

from flatmin import SAM
from tests.distributed.jobs import RHO, batches, network, part, sgd
from tests.distributed.ranks import WORLD_SIZE


def mesh(*names: str, copies: int = 1) -> DeviceMesh:
    shape = {1: (WORLD_SIZE,), 2: (copies, WORLD_SIZE // copies)}[len(names)]
    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def wrapped(kind: str, dtype: torch.dtype) -> nn.Module:
    model = network(dtype)
    if kind == "tensor":
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        return parallelize_module(model, mesh("tp"), plan)
    names = ("replicate", "shard") if kind in ("hybrid", "copied") else ("shard",)
    copies = WORLD_SIZE if kind == "copied" else 1
    options: dict[str, Any] = {"mesh": mesh(*names, copies=copies)}
    if kind == "kept":
        options["reshard_after_forward"] = False
    if kind == "offload":
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
    if kind == "bfloat16":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    if kind in ("layers", "bfloat16"):
        for layer in (model[0], model[2]):
            fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def whole(w: Tensor) -> Any:
    return (w.full_tensor() if isinstance(w, DTensor) else w).tolist()


def trained(
    rank: int, kind: str, steps: int, dtype: torch.dtype, sam: dict[str, Any]
) -> dict[str, Any]:
    """Weights, restored bit for bit or not, and the statistics of the last step."""
    model = wrapped(kind, dtype)
    optimizer = SAM(sgd(model), model, rho=RHO, **sam)
    kept = True
    for x, y in batches(steps, dtype=dtype):
        # Tensor parallel ranks see the same examples, the others their part.
        mine = (x, y) if kind == "tensor" else (part(rank, x), part(rank, y))
        before = [locally(p).clone() for p in model.parameters()]
        places = [locally(p).data_ptr() for p in model.parameters()]
        for probe in optimizer.probes():
            probe.loss = loss = cross_entropy(model(mine[0]), mine[1])
            loss.backward()
        after = [locally(p) for p in model.parameters()]
        kept &= all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        kept &= places == [p.data_ptr() for p in after]
        optimizer.step()
    statistics = optimizer.statistics
    assert statistics.grad_norm is not None
    return {
        "weights": [whole(p) for p in model.parameters()],
        "kept": kept,
        "norm": statistics.grad_norm.item(),
        "cosine": None if statistics.cosine is None else statistics.cosine.item(),
    }


def locally(p: Any) -> Tensor:
    return p.to_local().detach() if isinstance(p, DTensor) else p.detach()


def refused(rank: int, scope: Any) -> str:
    del rank
    model = wrapped("layers", torch.float32)
    try:
        SAM(sgd(model), model, scope=scope)
    except ValueError as error:
        return str(error)
    return ""


def train(model: nn.Module, optimizer: SAM, steps: range, rank: int | None) -> None:
    """Some of the steps of a run; ``rank`` None sees the whole batch."""
    for x, y in batches(steps.stop)[steps.start :]:
        mine = (x, y) if rank is None else (part(rank, x), part(rank, y))
        for _ in optimizer.probes():
            cross_entropy(model(mine[0]), mine[1]).backward()
        optimizer.step()


def save(model: nn.Module, optimizer: SAM, folder: str) -> None:
    weights, state = get_state_dict(model, optimizer.base)
    state_dict_saver.save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def load(model: nn.Module, optimizer: SAM, folder: str) -> None:
    weights, state = get_state_dict(model, optimizer.base)
    state_dict_loader.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    set_state_dict(
        model, optimizer.base, model_state_dict=weights, optim_state_dict=state
    )


def save_from_two(rank: int, folder: str) -> None:
    model = wrapped("layers", torch.float64)
    optimizer = SAM(sgd(model), model, rho=RHO)
    train(model, optimizer, range(5), rank)
    save(model, optimizer, folder)


def continue_on_two(rank: int, folder: str) -> dict[str, Any]:
    model = wrapped("layers", torch.float64)
    # A radius that the checkpoint has to replace.
    optimizer = SAM(sgd(model), model, rho=9.0)
    load(model, optimizer, folder)
    step = optimizer.param_groups[0]["sam_step"]
    train(model, optimizer, range(5, 10), rank)
    return {"weights": [whole(p) for p in model.parameters()], "step": step}
