"""What an augmentation costs, for each image of a batch.

python benchmarks/augment_cost.py > benchmarks/results/augment_cost.md
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from machine import machine

from flatmin.experiments import augment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one round, small batch")
    smoke = parser.parse_args().smoke
    torch.set_num_threads(1)
    n, rounds = (8, 1) if smoke else (256, 20)
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (n, 3, 32, 32), generator=draw).to(torch.uint8)
    x, y = pictures.float() / 255, torch.randint(10, (n,), generator=draw)

    print(f"{machine()}; batches of {n}, 3 x 32 x 32, median of {rounds}\n")
    print("| augmentation | microseconds per image |\n| --- | --- |")
    for name, run in (
        ("flip", lambda: augment.flip(x, draw)),
        ("crop", lambda: augment.crop(x, draw)),
        ("cutout", lambda: augment.cutout(x, draw)),
        ("mixup", lambda: augment.mixup(x, y, 10, draw)),
        ("AutoAugment", lambda: augment.auto_augment(pictures, draw, "cifar10")),
        ("RandAugment", lambda: augment.rand_augment(pictures, draw)),
    ):
        print(f"| {name} | {1e6 * median(run, rounds) / n:.1f} |", flush=True)


def median(run: Callable[[], object], rounds: int) -> float:
    run()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
