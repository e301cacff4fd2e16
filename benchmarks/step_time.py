"""What a step of SAM costs beyond its two gradients.

Three ways to make one step, timed in turn in one run: two plain gradients and one step
of the base optimizer; flatmin.SAM; and SAM as a loop over the parameters. The ratio to
the first is what perturbing, restoring and protecting the model's state cost.

    python benchmarks/step_time.py > benchmarks/results/step_time.md
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from machine import machine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from turns import in_turns

import flatmin
from flatmin.experiments.models import small_convnet

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="three rounds")
    rounds = 3 if parser.parse_args().smoke else 200
    print(machine() + f"; median of {rounds} rounds\n")
    print("| model | tensors | weights | two gradients + SGD (ms) | SAM | naive SAM |")
    print("| --- " * 6 + "|")
    for name, model, x in problems():
        y = torch.randint(10, (len(x),))
        steps = [two_gradients(model, x, y), sam(model, x, y), naive(model, x, y)]
        plain, fast, slow = medians(steps, rounds)
        tensors = list(model.parameters())
        weights = sum(p.numel() for p in tensors)
        print(
            f"| {name} | {len(tensors)} | {weights:,} | {1000 * plain:.2f} "
            f"| x{fast / plain:.3f} | x{slow / plain:.3f} |",
            flush=True,
        )


def problems() -> list[tuple[str, nn.Module, Tensor]]:
    deep = [m for _ in range(60) for m in (nn.Linear(64, 64), nn.ReLU())]
    return [
        ("convnet, batch 64", small_convnet(3, 10, 32), torch.randn(64, 3, 32, 32)),
        ("deep MLP, batch 64", nn.Sequential(*deep), torch.randn(64, 64)),
        ("wide MLP, batch 8", wide_mlp(), torch.randn(8, 1024)),
    ]


def wide_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 10))


def two_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    base = sgd(model)

    def step() -> None:
        for _ in range(2):
            base.zero_grad()
            cross_entropy(model(x), y).backward()
        base.step()

    return step


def sam(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    optimizer = flatmin.SAM(sgd(model), model)

    def step() -> None:
        for _ in optimizer.probes():
            cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def naive(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    base, w = sgd(model), list(model.parameters())

    def step() -> None:
        base.zero_grad()
        cross_entropy(model(x), y).backward()
        old = [p.detach().clone() for p in w]
        g = [p.grad for p in w if p.grad is not None]
        size = torch.stack([part.norm() for part in g]).norm()
        with torch.no_grad():
            for p, part in zip(w, g, strict=True):
                p.add_(part * (0.05 / size))
        base.zero_grad()
        cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for p, q in zip(w, old, strict=True):
                p.copy_(q)
        base.step()

    return step


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)


def medians(steps: list[Step], rounds: int) -> list[float]:
    """Median seconds of each, taken in turn so that all see the same machine."""
    return [statistics.median(seen) for seen in in_turns(steps, rounds, warm=3)]


if __name__ == "__main__":
    main()
