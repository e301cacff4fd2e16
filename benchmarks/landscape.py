"""What a landscape of 31 x 31 points takes.

Three ways compute the losses on one plane around the convnet of `flatmin compare` (32
channels, and narrower ones), on scikit-learn's digits: the usual loop, which for every
point copies the weights in and reads a DataLoader, on all of torch's threads; the same
loop over batches that are tensors already; and flatmin. They take turns, a few points
at a time, so that all see the same machine; a time is the median over the turns.

The convolutions alone, each core on points of its own, are a bound on the speed of all
three; the last column is their speed relative to the DataLoader loop.

    python benchmarks/landscape.py > benchmarks/results/landscape.md
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from embedded import digits
from machine import machine
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from flatmin.diagnostics import Objective, directions, landscape
from flatmin.diagnostics._grid import Grid
from flatmin.experiments.models import small_convnet

#: Batch size of `flatmin compare`.
BATCH = 64

#: Returns the losses of some points, or None if it is only timed.
Loop = Callable[[list[tuple[float, float]]], Tensor | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="two turns, 3 x 3 points")
    smoke = parser.parse_args().smoke
    points, turns = (3, 2) if smoke else (31, 9)
    print(f"{machine()}; load {os.getloadavg()[0]:.1f} at the start; {turns} turns\n")
    names = ["DataLoader loop (ms per point)", "loop over tensors", "flatmin"]
    names += ["convolutions alone", "flatmin: times as fast", "than tensors", "at most"]
    print("| channels | way |", " | ".join(names), "|")
    print("| --- " * (2 + len(names)) + "|")
    for width in (8, 16, 32):
        report(width, points, turns)


def report(width: int, points: int, turns: int) -> None:
    model, data = problem(width)
    loader = DataLoader(data, batch_size=BATCH)
    objective = Objective(model, cross_entropy, loader)
    u, v = directions.random(objective, 0), directions.random(objective, 1)
    axis = landscape.axis(points)
    rows = [(a, b) for b in axis for a in axis]
    tensors = list(zip(*(x.split(BATCH) for x in data.tensors), strict=True))
    grid = Grid(objective, [u, v], recalibrate=False, memory=2**30)
    with (
        grid.way("auto", rows) as way,
        ThreadPoolExecutor(
            torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool,
    ):
        loops: list[Loop] = [
            plain(model, u, v, loader),
            plain(model, u, v, tensors),
            lambda some: in_chunks(way, some),
            convolutions(model, data.tensors[0], pool),
        ]
        slow, middle, fast, least = medians(loops, rows, turns, 8)
        name = way.name
    print(
        f"| {width} | {name} | {slow:.2f} | {middle:.2f} | {fast:.2f} | {least:.2f} "
        f"| x{slow / fast:.2f} | x{middle / fast:.2f} | x{slow / least:.2f} |",
        flush=True,
    )


def problem(width: int) -> tuple[torch.nn.Module, TensorDataset]:
    images, labels = digits()
    torch.manual_seed(0)
    model = small_convnet(1, 10, width)
    for x in images.split(100):
        model(x)
    return model.eval(), TensorDataset(images, labels)


def plain(
    model: torch.nn.Module, u: list[Tensor], v: list[Tensor], data: Iterable[Any]
) -> Loop:
    """Return a loop that copies the weights in and makes a full pass at every point."""
    w = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def losses(some: list[tuple[float, float]]) -> Tensor:
        found = []
        for a, b in some:
            for p, c, x, y in zip(model.parameters(), w, u, v, strict=True):
                p.copy_(c + a * x + b * y)
            total, n = 0.0, 0
            for x, y in data:
                total += float(cross_entropy(model(x), y, reduction="sum"))
                n += len(y)
            found.append(total / n)
        for p, c in zip(model.parameters(), w, strict=True):
            p.copy_(c)
        return torch.tensor(found)

    return losses


@torch.no_grad()
def convolutions(model: torch.nn.Module, x: Tensor, pool: ThreadPoolExecutor) -> Loop:
    """Return a loop that only convolves, in oneDNN's layout, for every point."""
    convs: list[tuple[torch.nn.Conv2d, Tensor]] = []
    for layer in model.children():
        if isinstance(layer, torch.nn.Conv2d):
            convs.append((layer, x.to_mkldnn()))
        x = layer(x)

    @torch.no_grad()
    def one(_: tuple[float, float]) -> None:
        for conv, inputs in convs:
            conv(inputs)

    def some_of(some: list[tuple[float, float]]) -> None:
        list(pool.map(one, some))

    return some_of


def in_chunks(way: Any, some: list[tuple[float, float]]) -> Tensor:
    starts = range(0, len(some), way.at_once)
    return torch.cat([way.losses(some[k : k + way.at_once]) for k in starts])


def medians(
    loops: list[Loop], rows: list[tuple[float, float]], turns: int, size: int
) -> list[float]:
    """Return each loop's median milliseconds per point, after a turn to warm up."""
    times: list[list[float]] = [[] for _ in loops]
    for k in range(turns + 1):
        some = [rows[(k * size + i) % len(rows)] for i in range(size)]
        found: list[Tensor] = []
        for loop, seen in zip(loops, times, strict=True):
            began = time.perf_counter()
            losses = loop(some)
            seen.append(1000 * (time.perf_counter() - began) / len(some))
            found += [] if losses is None else [losses]
        for other in found[1:]:
            torch.testing.assert_close(
                other.double(), found[0].double(), rtol=1e-4, atol=1e-4
            )
    return [statistics.median(seen[1:]) for seen in times]


if __name__ == "__main__":
    main()
