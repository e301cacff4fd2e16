"""What a step of SAM costs beyond its two gradients.

Three ways to make one step are timed in turn in one run: two plain gradients and one
step of the base optimizer; flatmin.SAM; and SAM as a loop over the parameters. The
ratio to the first is the cost of perturbing, restoring and protecting model state.

    python benchmarks/step_time.py > benchmarks/results/step_time.md

With ``--against SRC``, the ``src`` folder of another checkout, a step of SAM here is
timed beside one there: two processes, which take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

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
    parser.add_argument("--against", metavar="SRC", help="another checkout's src")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve()
        return
    rounds = 3 if chosen.smoke else 200
    if chosen.against:
        compare(Path(chosen.against), rounds)
        return
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


def compare(other: Path, rounds: int) -> None:
    """Time a step of this version beside one of another."""
    here = Path(__file__).parent.parent / "src"
    print(machine() + f"; median of {rounds} rounds, in two processes\n")
    print("| model | SAM there (ms) | SAM here |")
    print("| --- | --- | --- |")
    with Server(here) as ours, Server(other) as theirs:
        for k, (name, _, _) in enumerate(problems()):
            new, old = medians([partial(ours.step, k), partial(theirs.step, k)], rounds)
            print(f"| {name} | {1000 * old:.2f} | x{new / old:.3f} |", flush=True)


class Server:
    """A process that makes steps with the package of a folder."""

    def __init__(self, source: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            env={**os.environ, "PYTHONPATH": str(source)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self, problem: int) -> None:
        """Make one step of the problem of this number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{problem}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def serve() -> None:
    """Make a step for each line with the number of a problem."""
    torch.manual_seed(0)
    steps = [sam(m, x, torch.randint(10, (len(x),))) for _, m, x in problems()]
    for line in sys.stdin:
        steps[int(line)]()
        print("done", flush=True)


def problems() -> list[tuple[str, nn.Module, Tensor]]:
    deep = [m for _ in range(60) for m in (nn.Linear(64, 64), nn.ReLU())]
    return [
        ("convnet, batch 64", small_convnet(3, 10, 32), torch.randn(64, 3, 32, 32)),
        ("deep MLP, batch 64", nn.Sequential(*deep), torch.randn(64, 64)),
        ("wide MLP, batch 8", wide_mlp(), torch.randn(8, 1024)),
        ("transformer, 8 x 16 tokens", transformer(), torch.randn(8, 16, 32)),
    ]


def transformer() -> nn.Module:
    """Build many small modules, whose state SAM looks at in every pass."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
    return nn.Sequential(encoder, nn.Flatten(), nn.Linear(16 * 32, 10))


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
        optimizer.zero_grad()  # The other ways leave gradients in the same model.
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
    """Return median seconds of each, timed in turn so that all see the same machine."""
    return [statistics.median(seen) for seen in in_turns(steps, rounds, warm=3)]


if __name__ == "__main__":
    main()
