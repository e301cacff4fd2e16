"""What ranks do where gradients are held, ignored, or averaged in other ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed._composable.replicate import replicate
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim import SGD

from flatmin import SAM, friendly_sam, gsam
from tests.distributed.jobs import RHO, batches, network, part, sgd, weights
from tests.distributed.shard_jobs import locally, whole, wrapped


def step(optimizer: SAM, model: nn.Module, rank: int, x: Tensor, y: Tensor) -> None:
    for _ in optimizer.probes():
        cross_entropy(model(part(rank, x)), part(rank, y)).backward()
    optimizer.step()


@contextmanager
def told(kind: type[Exception]) -> Iterator[list[str]]:
    """Keep what an error of this kind says."""
    said: list[str] = []
    try:
        yield said
    except kind as error:
        said.append(str(error))


def zero(rank: int, through: str) -> list[Any]:
    """Weights with and without a load in between, and how many parameters are left."""
    model = DDP(network())
    base = ZeroRedundancyOptimizer(model.parameters(), SGD, lr=0.1, momentum=0.9)
    optimizer = SAM(base, model, rho=RHO)
    first, *rest = batches(3)
    step(optimizer, model, rank, *first)
    base.consolidate_state_dict(0)
    box: list[Any] = [deepcopy(optimizer.state_dict()) if rank == 0 else None]
    dist.broadcast_object_list(box, 0)
    then = {name: w.clone() for name, w in model.state_dict().items()}
    found = []
    for loads in (False, True):
        if loads:
            model.load_state_dict(then)
            (optimizer if through == "sam" else base).load_state_dict(box[0])
        for x, y in rest:
            step(optimizer, model, rank, x, y)
        found.append(weights(model))
    (group,) = base.param_groups
    return [*found, len(group["params"]), group["sam_step"]]


def overflow_of_the_base(rank: int, kind: str) -> list[tuple[float, int]]:
    """Scale and step while one entry of one shard overflows in the second step."""
    model = wrapped(kind, torch.float32)
    base = sgd(model)
    optimizer = SAM(base, model, rho=RHO)
    scaler = GradScaler("cpu", init_scale=4.0)
    found = []
    for k, (x, y) in enumerate(batches(3, dtype=torch.float32)):
        for probe in optimizer.probes():
            loss = cross_entropy(model(part(rank, x)), part(rank, y))
            scaler.scale(loss).backward()
            if k == 1 and probe.index == 1 and rank == 1:
                gradient = next(model.parameters()).grad
                assert gradient is not None
                locally(gradient)[0, 0] = torch.inf
        scaler.step(base)
        scaler.update()
        found.append((scaler.get_scale(), base.param_groups[0]["sam_step"]))
    return found


def stray(rank: int) -> str:
    """Refuse a gradient that is in the shard of the first rank alone."""
    del rank
    model = nn.Embedding(8, 3)
    fully_shard(model)
    optimizer = SAM(sgd(model), model)
    model(torch.tensor([0, 1, 2])).sum().backward()
    with told(RuntimeError) as said:
        next(optimizer.probes())
    return said[0]


class Expert(nn.Module):
    """A network with a head that each process has for itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = network()
        self.expert = nn.Linear(3, width).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.expert(self.trunk(x))


METHODS: dict[str, Callable[..., SAM]] = {"gsam": gsam, "friendly_sam": friendly_sam}


def ignored(rank: int, name: str, widths: tuple[int, int]) -> list[Any]:
    """Weights of trunk and expert after three steps, and what is remembered of them."""
    model = Expert(widths[rank])
    names = ["expert.weight", "expert.bias"]
    DDP._set_params_and_buffers_to_ignore_for_model(model, names)
    outer = DDP(model)
    optimizer = METHODS[name](sgd(outer), outer, rho=RHO)
    for x, y in batches(3):
        step(optimizer, outer, rank, x, y)
    kept = [
        {key: v.tolist() for key, v in optimizer.state[p].items() if "sam" in key}
        for p in model.expert.parameters()
    ]
    return [weights(model.trunk), weights(model.expert), kept]


def hooked(rank: int, hook: str, scope: Any) -> str:
    """What a method that averages by itself says about a communication hook."""

    def summed(state, bucket):  # DDP refuses annotations other than its own
        del state
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    model = DDP(network())
    model.register_comm_hook(None, {"sum": summed, "few": bf16_compress_hook}[hook])
    optimizer = gsam(sgd(model), model, scope=scope)
    with told(RuntimeError) as said:
        step(optimizer, model, rank, *batches(1)[0])
    return "".join(said)


def held_back(rank: int, ignores: bool) -> list[str]:
    """What SAM says about passes that FSDP2 does not reduce."""
    model: Any = network()
    last = set(model[2].parameters()) if ignores else set[nn.Parameter]()
    fully_shard(model, ignored_params=last)
    optimizer = SAM(sgd(model), model)
    said = []
    for accumulate in (False, True):
        optimizer.zero_grad()
        model.set_requires_gradient_sync(False)
        with told(RuntimeError) as words:
            for _ in optimizer.probes(accumulate=accumulate):
                x, y = batches(1)[0]
                cross_entropy(model(part(rank, x)), part(rank, y)).backward()
        said += words
    model.set_requires_gradient_sync(True)
    return said


def left(rank: int, how: str) -> list[Any]:
    """Weights after a step that follows a loop which was left, and without it."""
    found = []
    for leaves in (True, False):
        model: Any = network()
        fully_shard(model)
        optimizer = SAM(sgd(model), model, rho=RHO)
        (other, its_y), (x, y) = batches(2)
        if leaves:
            model.set_requires_gradient_sync(False)
            backward = cross_entropy(
                model(part(rank, other)), part(rank, its_y)
            ).backward
            if how == "stray":
                backward()
            with told(ValueError):
                for _ in () if how == "stray" else optimizer.probes():
                    if how == "at once":
                        break
                    backward()
                    if how == "break":
                        break
                    raise ValueError
            model.set_requires_gradient_sync(True)
            if how == "stray":
                with told(RuntimeError) as said:
                    next(optimizer.probes())
                assert "has not yet reduced" in said[0]
                optimizer.zero_grad()
        step(optimizer, model, rank, x, y)
        found.append([whole(p) for p in model.parameters()])
    return found


def replicated(rank: int, first: bool) -> str:
    """What SAM says about `replicate`, called before or after SAM was built."""
    del rank
    model = network()
    with told(ValueError) as said:
        if first:
            replicate(model)
        optimizer = SAM(sgd(model), model)
        replicate(model)
        next(optimizer.probes())
    return said[0]


def pipeline(rank: int, stages: int) -> str:
    """What SAM says about a stage of a pipeline."""
    model = network()
    example = torch.zeros(4, 4, dtype=torch.float64)
    group = None if stages > 1 else dist.new_subgroups(1)[0]
    at, device = rank if stages > 1 else 0, torch.device("cpu")
    stage = PipelineStage(model, at, stages, device, input_args=(example,), group=group)
    optimizer = SAM(sgd(model), model)
    with told(RuntimeError) as said:
        next(optimizer.probes())
    assert stage.num_stages == stages
    return "".join(said)


def sharded_too_late(rank: int) -> str:
    """What SAM says if its model is sharded after it was built."""
    model = network()
    optimizer = SAM(sgd(model), model)
    fully_shard(model)
    with told(RuntimeError) as said:
        step(optimizer, model, rank, *batches(1)[0])
    return said[0]


def compilations(rank: int) -> list[int]:
    """How often a loss function was compiled after each step, without DDP."""
    model = network(torch.float32)
    torch.compiler.reset()
    count = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal count
        del inputs
        count += 1
        return graph.forward

    loss = torch.compile(
        lambda x, y: cross_entropy(model(x), y), backend=backend, fullgraph=True
    )
    optimizer = SAM(sgd(model), model)
    found = []
    for x, y in batches(4, dtype=torch.float32):
        for _ in optimizer.probes():
            loss(part(rank, x), part(rank, y)).backward()
        optimizer.step()
        found.append(count)
    return found
