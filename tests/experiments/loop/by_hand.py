"""The training loop in straight lines: formulas, plain torch, float64.

Without flatmin.experiments.train and flatmin.SAM, which it is there to check.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet
from flatmin.experiments.models import true_gradient
from tests.experiments.loop.problems import batches_of, network

Weights = list[Tensor]


def by_hand(e: Experiment, data: DataSet) -> dict[str, Tensor]:
    """The weights that are tested after training in one process."""
    net = network(e).double()
    batches = batches_of(e, data)
    torch.manual_seed(1_000_003 * e.seed + 1)
    w: Weights = [*net.parameters()]
    v = [torch.zeros_like(p) for p in w]
    mean: dict[str, Tensor] = {}
    steps, t = e.epochs * (len(data.train.y) // e.batch_size), 0
    for epoch in range(e.epochs):
        for groups in batches.train(epoch):
            found = [group_gradient(e, net, w, x, y, t) for x, y in groups]
            g = [torch.stack(parts).mean(0) for parts in zip(*found, strict=True)]
            g = clipped(g, e.clip)
            lr = e.lr * rate(
                t, steps, round(e.warmup * len(data.train.y) // e.batch_size)
            )
            with torch.no_grad():
                for i, p in enumerate(w):
                    d = g[i] + e.weight_decay * p
                    v[i] = e.momentum * v[i] + d
                    p.sub_(lr * (d + e.momentum * v[i] if e.nesterov else v[i]))
            mean = averaged(e.ema, mean, net)
            t += 1
    return mean


def group_gradient(
    e: Experiment, net: nn.Module, w: Weights, x: Tensor, y: Tensor, t: int
) -> Weights:
    """SAM's, equation 2 of the paper; the first pass alone leaves a trace."""
    net.train()
    if e.freeze_norm:
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eval()
    k = e.method_options.get("k", 1)  # interval_sam climbs so far, so often
    climbs = e.method != "sgd" and t % k == 0
    stream = torch.get_rng_state()
    before = [b.clone() for b in net.buffers()]
    g = gradient(e, net, w, x, y, true=climbs)
    if not climbs:
        return g
    after, gone = [b.clone() for b in net.buffers()], torch.get_rng_state()
    torch.set_rng_state(stream)
    length = math.sqrt(sum(float(part.square().sum()) for part in g))
    start = [p.detach().clone() for p in w]
    move(w, [p + k * e.rho * part / length for p, part in zip(start, g, strict=True)])
    move(list(net.buffers()), before)
    g = gradient(e, net, w, x, y, true=False)
    move(w, start)
    move(list(net.buffers()), after)
    torch.set_rng_state(gone)
    return g


def gradient(
    e: Experiment, net: nn.Module, w: Weights, x: Tensor, y: Tensor, *, true: bool
) -> Weights:
    with true_gradient(net) if true else nullcontext():
        log_p = net(x.double()).log_softmax(1)
        if y.dim() == 1:
            y = torch.eye(log_p.shape[1])[y]
        s, k = e.label_smoothing, log_p.shape[1]
        target = (1 - s) * y.double() + s / k
        loss = -(target * log_p).sum(1).mean()
        return list(torch.autograd.grad(loss, w))


def clipped(g: Weights, largest: float | None) -> Weights:
    length = math.sqrt(sum(float(part.square().sum()) for part in g))
    if largest is None or length <= largest:
        return g
    # torch adds 1e-6.
    return [part * largest / (length + 1e-6) for part in g]


def rate(t: int, steps: int, warmup: int) -> float:
    """Relative to the highest: up in a straight line, down in a cosine."""
    if t < warmup:
        return (t + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (t - warmup) / (steps - warmup))


def averaged(
    decay: float | None, mean: dict[str, Tensor], net: nn.Module
) -> dict[str, Tensor]:
    now = {name: x.detach().clone() for name, x in net.state_dict().items()}
    if decay is None or not mean:
        return now
    return {
        name: decay * mean[name] + (1 - decay) * x if x.is_floating_point() else x
        for name, x in now.items()
    }


@torch.no_grad()
def move(places: Any, values: Weights) -> None:
    for place, value in zip(places, values, strict=True):
        place.copy_(value)
