"""What every method costs, beside the base optimizer: gradients, seconds, memory.

All methods train one small convnet, in turn in every round. Gradients count the
examples that went through a backward pass, per example of the batch. Seconds are means
over rounds, as a ratio to SGD with momentum in the same run. Memory is the peak of all
tensors alive during a step (weights, gradients, state, activations, copies), as a ratio
to SGD's; the excess over SGD's is given in units of the weights.

    python benchmarks/method_cost.py > benchmarks/results/method_cost.md
"""

from __future__ import annotations

import argparse
import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from machine import machine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flatmin.experiments.models import small_convnet
from flatmin.methods import METHODS

Step = Callable[[], float]

#: The length of a training, for methods that have to know it.
STEPS = 24
NEEDED: dict[str, dict[str, float]] = {
    "layer_sam": {"rho": 0.1},
    "usam": {"rho": 0.1},
    "sam_on": {"rho": 0.5},
    "stale_sam": {"rho": 0.1},
    "sparse_sam": {"every": STEPS // 2},
    "bsam": {"n": 50_000},
    "late_sam": {"steps": STEPS},
    "late_subset_sam": {"steps": STEPS},
    "ae_sam": {"steps": STEPS},
    "split_rwp": {"steps": STEPS},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="4 rounds, 4 images")
    smoke = parser.parse_args().smoke
    rounds, batch = (4, 4) if smoke else (STEPS, 64)
    print(machine() + f"; {rounds} rounds\n")
    print("| method | gradients | seconds | peak memory | more, in weights |")
    print("| --- " * 5 + "|")
    torch.manual_seed(0)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    # Flat-LoRA needs a network with adapters.
    names = [name for name in METHODS if name != "flat_lora"]
    makers = {"SGD": sgd, **{name: sam(name) for name in names}}
    steps = {name: make(x, y) for name, make in makers.items()}
    costs, seconds = timed(steps, rounds)
    peaks = {name: peak(make, x, y, rounds) for name, make in makers.items()}
    weights = sum(p.numel() * p.itemsize for p in network()[0].parameters())
    for name in steps:
        print(
            f"| {name} | {costs[name]:.2f} | {seconds[name] / seconds['SGD']:.2f} "
            f"| {peaks[name] / peaks['SGD']:.2f} "
            f"| {(peaks[name] - peaks['SGD']) / weights:.1f} |"
        )


def sgd(x: Tensor, y: Tensor) -> Step:
    model, base = network()

    def step() -> float:
        base.zero_grad()
        cross_entropy(model(x), y).backward()
        base.step()
        return 1.0

    return step


def sam(name: str) -> Callable[[Tensor, Tensor], Step]:
    def make(x: Tensor, y: Tensor) -> Step:
        model, base = network(momentum=0.0 if name == "bsam" else 0.9)
        optimizer = METHODS[name].build(base, model, **NEEDED.get(name, {}))

        def step() -> float:
            examples = 0
            for probe in optimizer.probes():
                some: Any = probe.take(x, y)
                losses = cross_entropy(model(some[0]), some[1], reduction="none")
                if optimizer.method.traits.needs_parts:
                    first = torch.arange(len(losses)) < len(losses) / 2
                    losses = probe.total(flat=losses * first, rest=losses * ~first)
                probe.backward(losses)
                examples += len(some[0]) if losses.requires_grad else 0
            optimizer.step()
            return examples / len(x)

        return step

    return make


def network(momentum: float = 0.9) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = small_convnet(3, 10, 32)
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=momentum)


def timed(
    steps: dict[str, Step], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return mean gradients and seconds of a step; some methods differ by step."""
    examples: dict[str, list[float]] = {name: [] for name in steps}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            examples[name].append(step())
            seconds[name].append(time.perf_counter() - began)
    means = {name: statistics.fmean(counts) for name, counts in examples.items()}
    return means, {name: _typical(times) for name, times in seconds.items()}


def _typical(times: list[float]) -> float:
    """Return the mean without the slowest tenth, in which other programs ran."""
    kept = sorted(times)[: max(1, len(times) * 9 // 10)]
    return statistics.fmean(kept)


def peak(
    make: Callable[[Tensor, Tensor], Step], x: Tensor, y: Tensor, rounds: int
) -> int:
    """Return the peak in bytes, over all steps but the first two."""
    with Alive() as alive:
        step = make(x, y)
        step()
        step()
        alive.most = alive.now
        for _ in range(rounds - 2):
            step()
    return alive.most


class Alive(TorchDispatchMode):
    """Counts the memory of the tensors that operators return, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _storages(result: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor):
            yield leaf.untyped_storage()


if __name__ == "__main__":
    main()
