"""What a step of SAM costs on top of its two gradients and its base.

Gradients are set by hand and the base does nothing, so that only the climb, the way
back, and the protection of the model are timed. flatmin is compared with the pattern of
two calls that most repositories copy, which leaves the parameters in other memory; with
pytorch_optimizer's SAM, which does not; and with the bytes alone, that is a norm, a
copy, a sum and a copy back without any protection. All take turns in one run, and the
fastest round of each counts: the others were disturbed.

    python benchmarks/step_cost.py > benchmarks/results/step_cost.md

With ``--against SRC``, the ``src`` folder of another checkout, that flatmin has a
column of its own: it runs in a second process, in turn with the others.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_optimizer
import timm
import torch
from machine import machine
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from turns import in_turns

import flatmin

Step = Callable[[], None]

#: The networks, by how many weights they have and in how many tensors.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MLP of 100 layers": lambda: nn.Sequential(
        *(m for _ in range(100) for m in (nn.Linear(32, 32), nn.ReLU()))
    ),
    "EfficientNet-B0": lambda: timm.create_model("efficientnet_b0"),
    "ResNet-18": lambda: timm.create_model("resnet18"),
    "ResNet-50": lambda: timm.create_model("resnet50"),
    "ViT-B/16": lambda: timm.create_model("vit_base_patch16_224"),
}

#: Networks of many small tensors, in which the calls cost more than the bytes.
SMALL = ("MLP of 100 layers", "EfficientNet-B0")

RHO = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="the MLP, three rounds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", metavar="SRC", help="another checkout's src")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.device)
        return
    names = list(NETWORKS)[:1] if chosen.smoke else list(NETWORKS)
    rounds = 3 if chosen.smoke else chosen.rounds
    print(machine() + f"; fastest of {rounds} rounds, milliseconds\n")
    columns = [*WAYS, *(["flatmin before"] if chosen.against else [])]
    print(
        f"| network | tensors | weights | dtype | {' | '.join(columns)} | operators |"
    )
    print("| --- " * (5 + len(columns)) + "|")
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name in names:
        for dtype in ("float32", "bfloat16"):
            found[name, dtype] = row(name, dtype, rounds, chosen.device, chosen.against)
    print()
    for line in verdicts(found):
        print(line)


def row(
    name: str, dtype: str, rounds: int, device: str, against: str | None
) -> dict[str, float]:
    """Time a network, print its line, and return the milliseconds by way."""
    problem = Problem(name, dtype, device)
    steps = {way: make(problem) for way, make in WAYS.items()}
    server = Server(against, name, dtype, device) if against else None
    if server is not None:
        steps["flatmin before"] = server.step
    try:
        seen = in_turns(list(steps.values()), rounds, warm=3)
    finally:
        if server is not None:
            server.close()
    best = {way: 1000 * min(of) for way, of in zip(steps, seen, strict=True)}
    counts = f"{operators(steps['flatmin'])} / {operators(steps['pointer swap'])}"
    cells = " | ".join(f"{ms:.2f}" for ms in best.values())
    print(
        f"| {name} | {len(problem.w)} | {sum(p.numel() for p in problem.w):,} "
        f"| {dtype} | {cells} | {counts} |",
        flush=True,
    )
    return best


def verdicts(found: dict[tuple[str, str], dict[str, float]]) -> Iterator[str]:
    """Say for each target whether float32 reaches it."""
    wide = {name: ms for (name, dtype), ms in found.items() if dtype == "float32"}
    large = {name: ms for name, ms in wide.items() if name not in SMALL}
    yield _verdict(
        "at most 1.15 times the bytes from 10 M weights on",
        {name: ms["flatmin"] / (1.15 * ms["bytes"]) for name, ms in large.items()},
    )
    yield _verdict(
        "faster than pytorch_optimizer, which keeps the storage too",
        {name: ms["flatmin"] / ms["pytorch_optimizer"] for name, ms in wide.items()},
    )
    yield _verdict(
        "not slower than the pointer swap on many small tensors",
        {n: ms["flatmin"] / ms["pointer swap"] for n, ms in wide.items() if n in SMALL},
    )


def _verdict(target: str, ratios: dict[str, float]) -> str:
    missed = {name: ratio for name, ratio in ratios.items() if ratio > 1}
    if not missed:
        return f"- reached: {target}"
    by = ", ".join(f"{name} by x{ratio:.2f}" for name, ratio in missed.items())
    return f"- not reached: {target} ({by})"


class Problem:
    """A network, and the gradients of both passes."""

    def __init__(self, name: str, dtype: str, device: str) -> None:
        torch.manual_seed(0)
        kind = getattr(torch, dtype)
        self.model = NETWORKS[name]().to(device, kind)
        self.w = list(self.model.parameters())
        self.device = device
        self._passes = [[0.01 * torch.randn_like(p) for p in self.w] for _ in range(2)]

    def backward(self, k: int) -> None:
        """Set the gradients of pass ``k``."""
        for p, g in zip(self.w, self._passes[k], strict=True):
            p.grad = g

    def wait(self) -> None:
        if self.device != "cpu":
            torch.accelerator.synchronize()


class Nothing(Optimizer):
    """A base that costs nothing."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # pyright: ignore
        del closure


def with_flatmin(problem: Problem) -> Step:
    optimizer = flatmin.SAM(Nothing(problem.w), problem.model, rho=RHO)

    def step() -> None:
        optimizer.zero_grad()
        for probe in optimizer.probes():
            problem.backward(probe.index)
        optimizer.step()
        problem.wait()

    return step


def with_pointers(problem: Problem) -> Step:
    """Clone each parameter before the climb, and make the clone its data afterwards."""

    @torch.no_grad()
    def step() -> None:
        for p in problem.w:
            p.grad = None
        problem.backward(0)
        there = [p.grad for p in problem.w if p.grad is not None]
        size = torch.stack([g.norm(p=2) for g in there]).norm(p=2)
        old: dict[Tensor, Tensor] = {}
        for p in problem.w:
            assert p.grad is not None
            old[p] = p.data.clone()
            p.add_(p.grad * (RHO / (size + 1e-12)).to(p))
        for p in problem.w:
            p.grad = None
        problem.backward(1)
        for p in problem.w:
            p.data = old[p]
        problem.wait()

    return step


def with_pytorch_optimizer(problem: Problem) -> Step:
    optimizer = pytorch_optimizer.SAM(problem.w, Nothing, rho=RHO, foreach=None)  # pyright: ignore
    for group in optimizer.param_groups:
        group["foreach"] = True

    def step() -> None:
        optimizer.zero_grad()
        problem.backward(0)
        optimizer.first_step(zero_grad=True)
        problem.backward(1)
        optimizer.second_step()
        problem.wait()

    return step


def bytes_alone(problem: Problem) -> Step:
    old = [torch.empty_like(p) for p in problem.w]

    @torch.no_grad()
    def step() -> None:
        problem.backward(0)
        g = [p.grad for p in problem.w if p.grad is not None]
        size = torch.stack(torch._foreach_norm(g)).norm()
        torch._foreach_copy_(old, problem.w)
        if problem.device == "cpu":
            torch._foreach_add_(problem.w, g, alpha=RHO / float(size))
        else:
            torch._foreach_add_(problem.w, torch._foreach_mul(g, RHO / size))
        torch._foreach_copy_(problem.w, old)
        problem.wait()

    return step


WAYS: dict[str, Callable[[Problem], Step]] = {
    "flatmin": with_flatmin,
    "pointer swap": with_pointers,
    "pytorch_optimizer": with_pytorch_optimizer,
    "bytes": bytes_alone,
}


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def operators(step: Step) -> int:
    """Count the operators that a step dispatches, on any machine the same."""
    with _Count() as count:
        step()
    return count.calls


class Server:
    """A process that makes steps with flatmin of another folder."""

    def __init__(self, source: str, name: str, dtype: str, device: str) -> None:
        flags = [str(Path(__file__)), "--serve", "--device", device]
        self._process = subprocess.Popen(
            [sys.executable, *flags],
            env={**os.environ, "PYTHONPATH": source},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask(f"{name}\t{dtype}")

    def step(self) -> None:
        self._ask("step")

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            raise RuntimeError("the other version has failed; its error is above.")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def serve(device: str) -> None:
    """Make a step for each line after the first, which names the problem."""
    name, dtype = sys.stdin.readline().rstrip("\n").split("\t")
    step = with_flatmin(Problem(name, dtype, device))
    print("done", flush=True)
    for _ in sys.stdin:
        step()
        print("done", flush=True)


if __name__ == "__main__":
    main()
