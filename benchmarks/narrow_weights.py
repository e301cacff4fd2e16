"""How much of a perturbation arrives in weights of two bytes.

Weights (standard deviation 0.03) and gradient are normal, and the perturbation has
length rho. It is compared with the movement that the model sees: the share of weights
that do not move, the cosine of one step's movement, its length over rho, and the cosine
of the mean over many steps, which is 1 if the perturbation is right on average.

    python benchmarks/narrow_weights.py > benchmarks/results/narrow_weights.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from machine import machine
from torch import Tensor, nn

import flatmin

Moves = Callable[[Tensor, Tensor, float, torch.dtype], Iterator[Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="few weights and steps")
    smoke = parser.parse_args().smoke
    n, steps = (20_000, 4) if smoke else (2_000_000, 64)
    print(machine() + f"; {n:,} weights, mean over {steps} steps\n")
    titles = ["dtype", "rho", "w + eps is", "unmoved", "cosine", "length / rho"]
    print("| " + " | ".join([*titles, "cosine of the mean"]) + " |")
    print("| --- " * 7 + "|")
    draw = torch.Generator().manual_seed(0)
    w, g = (torch.randn(n, generator=draw) for _ in range(2))
    for dtype in (torch.bfloat16, torch.float16):
        for rho in (0.05, 0.2):
            for name, moves in MOVES.items():
                some = moves(0.03 * w, g, rho, dtype)
                print(row(dtype, rho, name, some, rho * g / g.norm(), steps))


def row(
    dtype: torch.dtype,
    rho: float,
    name: str,
    moves: Iterator[Tensor],
    eps: Tensor,
    steps: int,
) -> str:
    mean, unmoved, cosines, lengths = torch.zeros_like(eps), 0.0, 0.0, 0.0
    for _ in range(steps):
        move = next(moves)
        mean += move / steps
        unmoved += (move == 0).float().mean().item() / steps
        cosines += cosine(move, eps) / steps
        lengths += (move.norm() / rho).item() / steps
    kind = str(dtype).removeprefix("torch.")
    return (
        f"| {kind} | {rho} | {name} | {100 * unmoved:.0f} % "
        f"| {cosines:.2f} | {lengths:.2f} | {cosine(mean, eps):.2f} |"
    )


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def nearest(w: Tensor, g: Tensor, rho: float, dtype: torch.dtype) -> Iterator[Tensor]:
    start = w.to(dtype).float()
    while True:
        yield (start + rho * g / g.norm()).to(dtype).float() - start


def autocast(w: Tensor, g: Tensor, rho: float, dtype: torch.dtype) -> Iterator[Tensor]:
    """Cast float32 weights, which training steps move a little."""
    draw = torch.Generator().manual_seed(1)
    while True:
        here = w + 0.001 * torch.randn(len(w), generator=draw)
        yield (here + rho * g / g.norm()).to(dtype).float() - here.to(dtype).float()


def by_chance(w: Tensor, g: Tensor, rho: float, dtype: torch.dtype) -> Iterator[Tensor]:
    """Use flatmin.SAM, on weights that training does not move."""
    model = nn.ParameterList([w.to(dtype)])
    (weight,) = model
    start = weight.detach().float()
    optimizer = flatmin.SAM(torch.optim.SGD(model.parameters(), lr=0.0), model, rho=rho)
    while True:
        for probe in optimizer.probes():
            if probe.perturbed:
                yield weight.detach().float() - start
            (weight.float() * g).sum().backward()
        optimizer.step()


MOVES: dict[str, Moves] = {
    "rounded to the nearest": nearest,
    "float32, cast by autocast": autocast,
    "rounded by chance (flatmin)": by_chance,
}


if __name__ == "__main__":
    main()
