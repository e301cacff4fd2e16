"""m-sharpness of trained networks, for the m of the paper's Figure 3.

The small convnet of `flatmin compare` is trained with SGD and with SAM on 768 of the
training images of scikit-learn's digits. The table has the mean rise of the loss at the
eps of groups of m examples each, with its standard error over groups, at a small radius
and at the radius of SAM's training.

    python benchmarks/m_sharpness.py > benchmarks/results/m_sharpness.md
"""

from __future__ import annotations

import argparse
import time

import torch
from embedded import digits
from machine import machine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import flatmin
from flatmin.diagnostics import Objective, m_sharpness
from flatmin.experiments.models import small_convnet

SIZES = (1, 4, 16, 64, 256)
RADII = (0.05, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a small net, few epochs")
    smoke = parser.parse_args().smoke
    n, width, epochs = (256, 4, 2) if smoke else (768, 16, 20)
    torch.set_num_threads(1)
    print(machine() + f"; {n} examples, {epochs} epochs\n")
    print(
        "| trained with | rho | m | groups | m-sharpness | standard error | seconds |"
    )
    print("| --- " * 7 + "|")
    x, y = (part[:n] for part in digits())
    for name in ("SGD", "SAM"):
        model = trained(x, y, width, epochs, sharpness_aware=name == "SAM")
        objective = Objective(model, cross_entropy, batches(x, y))
        for rho in RADII:
            for m in SIZES:
                print(row(name, objective, rho, m))


def batches(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(256), y.split(256), strict=True))


def trained(
    x: Tensor, y: Tensor, width: int, epochs: int, *, sharpness_aware: bool
) -> nn.Module:
    torch.manual_seed(0)
    model = small_convnet(1, 10, width)
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    rho = 0.5 if sharpness_aware else 0.0
    optimizer = flatmin.SAM(base, model, rho=rho)
    for _ in range(epochs):
        for chosen in torch.randperm(len(y)).split(64):
            for _ in optimizer.probes():
                cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return model.eval()


def row(name: str, objective: Objective, rho: float, m: int) -> str:
    began = time.perf_counter()
    found = m_sharpness(objective, rho, m)
    seconds = time.perf_counter() - began
    error = "" if found.error is None else f"{found.error:.2g}"
    return (
        f"| {name} | {rho} | {m} | {found.groups} | {found.value:.4g} | {error} "
        f"| {seconds:.1f} |"
    )


if __name__ == "__main__":
    main()
