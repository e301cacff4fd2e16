"""What the training loop costs, against one written by hand without any package.

Both train the same network on the same images with the same augmentation, in turns.
The ratio is that of an epoch in the loop to an epoch by hand. Both call the same
operators. Both are built several times, to show how much of the ratio is chance.

    python benchmarks/loop_cost.py > benchmarks/results/loop_cost.md
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from itertools import chain

import torch
from machine import machine
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy
from turns import in_turns

from flatmin.experiments import augment
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, Tensors
from flatmin.experiments.launch import launched
from flatmin.experiments.models import build
from flatmin.experiments.train import Training

MEAN = STD = (0.5, 0.5, 0.5)

#: Takes some steps.
Run = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one turn, small network")
    smoke = parser.parse_args().smoke
    builds, turns, model = (1, 1, "wrn-10-1") if smoke else (5, 10, "wrn-16-8")
    batch, steps = (8, 2) if smoke else (128, 2)
    if not smoke and not torch.cuda.is_available():
        model = "resnet-20"
    print(f"{machine()}; {model}, batches of {batch}, {builds} x {turns} turns\n")
    names = ["method", "by hand (images/s)", "loop (images/s)", "time, loop to hand"]
    print("|", " | ".join([*names, "of each build"]), "|")
    print("| --- " * 5 + "|")
    data = made_up(steps * batch)
    for method in ("sgd", "sam"):
        experiment = Experiment(
            data="made up", model=model, method=method, batch_size=batch, epochs=10_000
        )
        found = [
            in_turns([by_hand(experiment, data), looped(experiment, data)], turns, 2)
            for _ in range(builds)
        ]
        ratios = [[b / a for a, b in zip(*times, strict=True)] for times in found]
        each = [statistics.median(build) for build in ratios]
        speeds = [
            steps * batch / statistics.median(chain.from_iterable(times))
            for times in zip(*found, strict=True)
        ]
        print(
            f"| {method} | {speeds[0]:,.0f} | {speeds[1]:,.0f} "
            f"| x{statistics.median(chain.from_iterable(ratios)):.3f} "
            f"| {', '.join(f'{ratio:.2f}' for ratio in each)} |",
            flush=True,
        )


def made_up(n: int) -> DataSet:
    draw = Generator().manual_seed(0)
    x = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=draw)
    images, names = Tensors(x, torch.arange(n) % 10), tuple("0123456789")
    return DataSet("made up", images, images, names, MEAN, STD, None, "made up")


def looped(experiment: Experiment, data: DataSet) -> Run:
    training = Training(launched(experiment), experiment, data)
    state, batches = training.state, training.batches
    training.train_mode()

    def run() -> None:
        for groups in batches.train(state.step // batches.steps):
            training.step(groups)
        wait()

    return run


def by_hand(experiment: Experiment, data: DataSet) -> Run:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = build(experiment.model, len(data.classes)).to(device).train()
    w = list(net.parameters())
    sgd = torch.optim.SGD(w, 0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 10_000)
    assert isinstance(data.train, Tensors)
    images, labels = data.train.x.to(device), data.train.y.to(device)
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (MEAN, STD))
    draw, size = Generator().manual_seed(0), experiment.batch_size

    def run() -> None:
        for index in torch.randperm(len(labels), generator=draw).split(size):
            here = index.to(device)
            x = augment.crop(augment.flip(images[here], draw).float(), draw)
            x, y = (x / 255 - mean) / std, labels[here]
            # The tensors left by a step decide from where the next one's memory comes:
            # with zero_grad at the end and an unnamed loss, the same steps took longer.
            sgd.zero_grad()
            outputs = net(x)
            loss = cross_entropy(outputs, y)
            loss.backward()
            if experiment.method == "sam":
                at_eps(net, w, x, y, experiment.rho)
            sgd.step()
            schedule.step()
        wait()

    return run


def at_eps(
    net: torch.nn.Module, w: list[torch.nn.Parameter], x: Tensor, y: Tensor, rho: float
) -> None:
    """Replace the gradient by that at ``w + eps``; keep weights and statistics."""
    g = [p.grad for p in w if p.grad is not None]
    buffers = list(net.buffers())
    with torch.no_grad():
        kept = [b.clone() for b in buffers]
        start = [p.detach().clone() for p in w]
        size = torch.stack(torch._foreach_norm(g)).norm()
        torch._foreach_add_(w, torch._foreach_mul(g, rho / size))
    net.zero_grad()
    outputs = net(x)
    loss = cross_entropy(outputs, y)
    loss.backward()
    with torch.no_grad():
        torch._foreach_copy_(w, start)
        torch._foreach_copy_(buffers, kept)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
