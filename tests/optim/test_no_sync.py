"""The host never waits for an accelerator: no value is read between two passes.

Fake CUDA tensors have no values, so that reading one raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from flatmin import SAM
from flatmin.core import _tensors as ts
from flatmin.core._multiple import Multiple
from flatmin.core._rounding import add_by_chance_
from tests.problems import without


@pytest.fixture
def gpu() -> Iterator[str]:
    with FakeTensorMode():
        yield "cuda"


class Layers(nn.Module):
    def __init__(self, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(4, 3, device=device, dtype=dtype))
        self.v = nn.Parameter(torch.empty(3, device=device, dtype=dtype))
        self.register_buffer("mean", torch.empty(3, device=device))


def optimizer_of(model: nn.Module, **options: object) -> SAM:
    # Random streams of a device cannot be faked.
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    return SAM(base, model, replay_rng=False, track=True, **options)  # type: ignore[arg-type]


def step(optimizer: SAM, model: nn.Module, device: str) -> None:
    for probe in optimizer.probes():
        for p in model.parameters():
            p.grad = torch.empty_like(p)
        probe.loss = torch.empty((), device=device)
    optimizer.step()


@pytest.mark.parametrize("decay", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_a_step_reads_no_value(
    p: float, dtype: torch.dtype, decay: bool, gpu: str
) -> None:
    model = Layers(gpu, dtype)
    optimizer = optimizer_of(model, p=p, decay_in_ascent=decay)
    for _ in range(3):
        step(optimizer, model, gpu)
    assert optimizer.sharpness is not None
    for value in (optimizer.sharpness, optimizer.statistics.grad_norm):
        assert isinstance(value, Tensor)
        assert value.device.type == "cuda"


def test_several_radii_and_balls_read_no_value(gpu: str) -> None:
    model = Layers(gpu, torch.float32)
    optimizer = optimizer_of(model, norm_over="group")
    optimizer.base.param_groups[0]["params"] = [model.w]
    optimizer.add_param_group({"params": [model.v], "sam_rho": 0.5})
    step(optimizer, model, gpu)


def test_the_count_of_unperturbed_steps_is_what_waits(gpu: str) -> None:
    model = Layers(gpu, torch.float32)
    optimizer = optimizer_of(model)
    step(optimizer, model, gpu)
    with pytest.raises(DataDependentOutputException):
        _ = optimizer.unperturbed_steps


@pytest.mark.parametrize("size", [3, 200], ids=["short", "long"])
def test_rounding_by_chance_reads_no_value(
    size: int, gpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Generators of a device cannot be faked, and tables of another are of no use.
    draw = torch.Generator()
    monkeypatch.setattr(torch, "Generator", lambda device: draw)
    w = torch.empty(size, 200, device=gpu, dtype=torch.bfloat16)
    c, ok = torch.empty(2, device=gpu)
    eps = Multiple([torch.empty_like(w)], c, ok > 0)
    add_by_chance_([w], eps, 0, [0])


class Split(nn.Module):
    """One layer on an accelerator, the other beside the CPU."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(4, 3, device=device))
        self.v = nn.Parameter(torch.empty(3))


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, str]]:
    """Whose memory is written to, its device, and that of what it is given."""
    seen: list[tuple[int, str, str]] = []

    def watched(name: str) -> None:
        write = getattr(ts, name)

        def watch(ws: Sequence[Tensor], xs: Sequence[Tensor]) -> None:
            for w, x in zip(ws, xs, strict=True):
                seen.append((id(w), w.device.type, x.device.type))
            write(ws, xs)

        monkeypatch.setattr(ts, name, watch)

    for name in ("add_", "copy_"):
        watched(name)
    return seen


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_each_parameter_moves_on_its_own_device(
    p: float, gpu: str, writes: list[tuple[int, str, str]]
) -> None:
    model = Split(gpu)
    optimizer = optimizer_of(model, p=p)
    optimizer.base.param_groups[0]["params"] = [model.w]
    optimizer.add_param_group({"params": [model.v], "sam_rho": 0.5})
    with without(RuntimeError, "tensors of two devices met"):
        for _ in range(2):
            step(optimizer, model, gpu)
    for q, device in ((model.w, "cuda"), (model.v, "cpu")):
        assert q.device.type == device
        # There and back, twice.
        assert writes.count((id(q), device, device)) == 4
        assert optimizer.state[q]["momentum_buffer"].device.type == device
    assert all(of == given for _, of, given in writes)
    norm = optimizer.statistics.grad_norm
    assert norm is not None
    assert norm.device.type == "cuda"
