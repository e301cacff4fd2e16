"""Select the highest entries, ranked over all tensors of a model together."""

from __future__ import annotations

import torch

from flatmin.core._program import Gradients, Step
from flatmin.core._shards import Shards


def highest(step: Step, values: Gradients, share: float, method: str) -> Gradients:
    """Return 1 at the highest of all entries, 0 at the others, None where no value is.

    Args:
        step: whose weights the values belong to.
        values: real, an entry per parameter.
        share: of the entries that get a 1; at least one entry does.
        method: the name of the caller in messages.

    Raises:
        ValueError: a parameter is sharded.
    """
    if any(holders for holders, _ in Shards.of(step.w).kinds):
        raise ValueError(
            f"{method} ranks all weights together and needs whole parameters, got "
            "sharded ones (DTensor)."
        )
    there = [x for x in values if x is not None]
    flat = torch.cat([x.reshape(-1).to(there[0].device) for x in there])
    top = flat.topk(max(1, int(share * flat.numel()))).indices
    mask = torch.zeros_like(flat).index_fill_(0, top, 1)
    ones = iter(torch.split(mask, [x.numel() for x in there]))
    return [None if x is None else next(ones).view_as(x).to(x.device) for x in values]
