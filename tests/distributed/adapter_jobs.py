"""What ranks do with peft's adapters and Flat-LoRA."""

from __future__ import annotations

from typing import Any

from torch.nn.parallel import DistributedDataParallel as DDP

from tests.distributed.ranks import WORLD_SIZE
from tests.methods.lora import adapted, data, flat, trainable, weights
from tests.problems import Batch, loss_of

STEPS = 4


def share(rank: int) -> Batch:
    """As many examples for each rank."""
    x, y = data()
    return x[rank::WORLD_SIZE], y[rank::WORLD_SIZE]


def trained(rank: int | None) -> dict[str, Any]:
    """Adapters in the end, frozen weights in every pass, and those in the end."""
    model = adapted(lora_dropout=0.0).eval()
    wrapped = model if rank is None else DDP(model)
    optimizer = flat(wrapped)
    seen: list[Any] = []
    for _ in range(STEPS):
        for _ in optimizer.probes():
            seen.append([w.tolist() for w in weights(model)])
            loss_of(wrapped, data() if rank is None else share(rank)).backward()
        optimizer.step()
    return {
        "adapters": [p.tolist() for p in trainable(model)],
        "seen": seen,
        "frozen": [w.tolist() for w in weights(model)],
    }
