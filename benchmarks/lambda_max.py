"""The largest Hessian eigenvalue of two trained networks: seconds at equal accuracy.

Each program gets the loosest of its own tolerances at which the eigenvalue is right to
one part in a thousand for each of three random starts, by comparison with float64; a
larger error in the table means that no tolerance was enough. Then all programs run in
turn in every round. Seconds are medians over rounds, as a ratio to flatmin's in the
same run. Passes are forward passes over the data, with those by which flatmin and
curvlinops check it.

    python benchmarks/lambda_max.py > benchmarks/results/lambda_max.md
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from embedded import digits
from machine import machine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective, eigenvalues
from flatmin.experiments.models import small_convnet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from curvlinops import HessianLinearOperator
    from pyhessian import hessian
    from scipy.sparse.linalg import eigsh

    # The first use of forward mode makes torch warn about its own code.
    torch.func.hessian(torch.sum)(torch.ones(2))

Batches = list[tuple[Tensor, Tensor]]

#: Computes the eigenvalue from model, data, tolerance and seed.
Program = Callable[[nn.Module, Batches, float, int], float]

TOLERANCES = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4, 1e-5)
SEEDS = (0, 1, 2)
ACCURATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--smoke", action="store_true", help="one round, small nets, few examples"
    )
    smoke = parser.parse_args().smoke
    rounds, width, epochs, n = (1, 2, 1, 60) if smoke else (6, 8, 10, 900)
    torch.set_num_threads(1)
    print(machine() + f"; {rounds} rounds\n")
    print("| network | weights | program | tolerance | error | passes | seconds |")
    print("| --- " * 7 + "|")
    for name, make in networks(width).items():
        model, data = trained(make, epochs, n)
        table(name, model, data, rounds)


def networks(width: int) -> dict[str, Callable[[], nn.Module]]:
    def perceptron() -> nn.Module:
        hidden = [nn.Linear(64, 16 * width), nn.Tanh(), nn.Linear(16 * width, 10)]
        return nn.Sequential(nn.Flatten(), *hidden)

    return {
        "convnet": lambda: small_convnet(1, 10, width),
        "perceptron": perceptron,
    }


def trained(
    make: Callable[[], nn.Module], epochs: int, n: int
) -> tuple[nn.Module, Batches]:
    """Train a network; return it and the first n of its training examples."""
    x, y = digits()
    torch.manual_seed(0)
    model = make()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for chosen in torch.randperm(len(y)).split(64):
            base.zero_grad()
            cross_entropy(model(x[chosen]), y[chosen]).backward()
            base.step()
    base.zero_grad()
    parts = x[:n].split(300), y[:n].split(300)
    return model.eval(), list(zip(*parts, strict=True))


def table(name: str, model: nn.Module, data: Batches, rounds: int) -> None:
    exact = reference(model, data)
    tuned = {who: tune(program, model, data, exact) for who, program in ALL.items()}
    passes = {who: count(ALL[who], model, data, tuned[who][0]) for who in ALL}
    seconds: dict[str, list[float]] = {who: [] for who in ALL}
    for k in range(rounds):
        for who, program in ALL.items():
            began = time.perf_counter()
            program(model, data, tuned[who][0], SEEDS[k % len(SEEDS)])
            seconds[who].append(time.perf_counter() - began)
    typical = {who: statistics.median(times) for who, times in seconds.items()}
    weights = sum(p.numel() for p in model.parameters())
    for who, (tolerance, error) in tuned.items():
        ratio = typical[who] / typical["flatmin"]
        print(
            f"| {name} | {weights:,} | {who} | {tolerance:g} | {error:.0e} "
            f"| {passes[who]:.0f} | {ratio:.2f} |"
        )


def reference(model: nn.Module, data: Batches) -> float:
    """Compute the eigenvalue in float64, with tolerance 1e-8."""
    wide = copy.deepcopy(model).double()
    batches = [(x.double(), y) for x, y in data]
    return eigenvalues(Objective(wide, cross_entropy, batches), 1, tol=1e-8).value


def tune(
    program: Program, model: nn.Module, data: Batches, exact: float
) -> tuple[float, float]:
    """Return the loosest tolerance accurate from every start, and the worst error."""
    for tolerance in TOLERANCES:
        found = [program(model, data, tolerance, seed) for seed in SEEDS]
        error = max(abs(value / exact - 1) for value in found)
        if error <= ACCURATE:
            break
    return tolerance, error


def count(program: Program, model: nn.Module, data: Batches, tol: float) -> float:
    """Count forward passes over the data, as a mean over the starts."""
    calls = 0

    def add(*_: object) -> None:
        nonlocal calls
        calls += 1

    with model.register_forward_pre_hook(add):
        for seed in SEEDS:
            program(model, data, tol, seed)
    return calls / len(data) / len(SEEDS)


def ours(model: nn.Module, data: Batches, tol: float, seed: int) -> float:
    return eigenvalues(
        Objective(model, cross_entropy, data), 1, tol=tol, seed=seed
    ).value


def py_hessian(model: nn.Module, data: Batches, tol: float, seed: int) -> float:
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # torch warns that backward with create_graph leaks memory.
        warnings.simplefilter("ignore")
        found: Any = hessian(
            model, nn.CrossEntropyLoss(), dataloader=data, cuda=False
        ).eigenvalues(maxIter=100, tol=tol)
    model.zero_grad()
    return found[0][-1]


def by_hand(model: nn.Module, data: Batches, tol: float, seed: int) -> float:
    """Use curvlinops' operator with its checks, and scipy's Lanczos with defaults."""
    operator = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), data
    )
    return arpack(operator.to_scipy(np.float32), tol, seed, None)


def by_hand_bare(model: nn.Module, data: Batches, tol: float, seed: int) -> float:
    """Do as `by_hand`, without checks and with a small Krylov space."""
    operator = HessianLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        data,
        check_deterministic=False,
        num_data=sum(len(y) for _, y in data),
    )
    return arpack(operator.to_scipy(np.float32), tol, seed, 5)


def arpack(operator: Any, tol: float, seed: int, ncv: int | None) -> float:
    draw = np.random.default_rng(seed)
    start = draw.standard_normal(operator.shape[0]).astype(np.float32)
    found = eigsh(
        operator, 1, which="LA", v0=start, tol=tol, ncv=ncv, return_eigenvectors=False
    )
    return float(found[0])


ALL: dict[str, Program] = {
    "flatmin": ours,
    "PyHessian": py_hessian,
    "curvlinops + eigsh": by_hand,
    "curvlinops + eigsh, ncv=5, no checks": by_hand_bare,
}


if __name__ == "__main__":
    main()
