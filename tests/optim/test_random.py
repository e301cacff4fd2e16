"""Both passes draw the same numbers; the streams are left as after one pass."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.optim._replay import RandomReplay
from tests.problems import Noisy, batch, loss_of


class Dice(nn.Module):
    """Draws from every global stream in each forward pass, and hands out the draws."""

    def __init__(self, note: Callable[[tuple[float, ...]], None]) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.note = note

    def forward(self, x: Tensor) -> Tensor:
        numpy = float(np.random.rand())  # noqa: NPY002 - the stream in question
        self.note((torch.rand(()).item(), random.random(), numpy))
        return self.layer(x)


def sam(model: nn.Module, *, replay: bool = True) -> SAM:
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return SAM(base, model, rho=0.5, replay_rng=replay)


def loop(optimizer: SAM, model: nn.Module) -> None:
    for _ in optimizer.probes():
        loss_of(model, batch()).backward()


def reseed() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002


def next_draws() -> tuple[float, ...]:
    return torch.rand(()).item(), random.random(), float(np.random.rand())  # noqa: NPY002


def masks_of(optimizer: SAM, model: Noisy) -> list[Tensor]:
    masks: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        # The input is a ReLU's: a zero may be its, a dropped positive is the mask's.
        masks.append((output != 0) | (inputs[0] == 0))

    handle = model[3].register_forward_hook(record)
    loop(optimizer, model)
    handle.remove()
    return masks


def test_dropout_masks_are_equal_in_both_passes() -> None:
    model = Noisy()
    model[2] = nn.Softplus()  # no zero but the mask's
    optimizer = sam(model)
    first, second = masks_of(optimizer, model)
    assert torch.equal(first, second)
    assert not first.all()
    optimizer.step()
    assert not torch.equal(masks_of(optimizer, model)[0], first)


def test_dropout_masks_differ_without_replay() -> None:
    model = Noisy()
    model[2] = nn.Softplus()
    first, second = masks_of(sam(model, replay=False), model)
    assert not torch.equal(first, second)


def test_every_stream_is_replayed_and_left_as_after_one_pass() -> None:
    drawn: list[tuple[float, ...]] = []
    model = Dice(drawn.append)
    optimizer = sam(model)
    reseed()
    loop(optimizer, model)
    after = next_draws()
    first, second = drawn
    assert first == second
    reseed()
    assert next_draws() == first
    assert next_draws() == after


def test_no_stream_is_replayed_without_replay() -> None:
    drawn: list[tuple[float, ...]] = []
    model = Dice(drawn.append)
    optimizer = sam(model, replay=False)
    reseed()
    loop(optimizer, model)
    first, second = drawn
    assert all(a != b for a, b in zip(first, second, strict=True))
    after = next_draws()
    reseed()
    assert [next_draws() for _ in range(3)] == [first, second, after]


def test_leaving_the_second_pass_leaves_the_streams_as_after_one() -> None:
    drawn: list[tuple[float, ...]] = []
    model = Dice(drawn.append)
    optimizer = sam(model)
    reseed()
    for probe in optimizer.probes():
        loss_of(model, batch()).backward()
        if probe.index == 1:
            break
    after = next_draws()
    reseed()
    loss_of(model, batch()).backward()
    assert next_draws() == after


def test_random_is_replayed_if_numpy_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replay = RandomReplay()
    monkeypatch.delitem(sys.modules, "numpy")
    replay.begin([torch.zeros(1)], [])
    first = torch.rand(()).item(), random.random()
    replay.keep()
    replay.rewind()
    assert (torch.rand(()).item(), random.random()) == first


def test_the_stream_of_a_device_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    states: dict[torch.device, int] = {}
    gpu = torch.device("cuda", 1)

    class Module:
        """Stands in for ``torch.cuda``, with a counter for a stream."""

        def get_rng_state(self, device: torch.device) -> int:
            return states[device]

        def set_rng_state(self, state: int, device: torch.device) -> None:
            states[device] = state

    def module_of(device: torch.device) -> Module:
        assert device == gpu
        return Module()

    places = [gpu, torch.device("cpu"), torch.device("meta"), gpu]
    parameters: Any = [SimpleNamespace(device=d) for d in places]
    monkeypatch.setattr(torch, "get_device_module", module_of)
    replay = RandomReplay()
    states[gpu] = 10
    replay.begin(parameters, [])
    states[gpu] = 20
    replay.keep()
    replay.rewind()
    assert states[gpu] == 10
    states[gpu] = 25
    replay.finish()
    assert states[gpu] == 20


def test_a_seed_is_that_of_the_devices_in_use_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replay, cpu = RandomReplay(), torch.device("cpu")
    seen: list[Tensor] = []
    module = SimpleNamespace(
        get_rng_state=lambda d: None, set_rng_state=lambda state, d: seen.append(state)
    )
    monkeypatch.setattr(torch, "get_device_module", lambda d: module)
    replay._devices = [cpu]  # stands in for an accelerator
    replay.seed(5)
    assert torch.equal(seen[0], torch.Generator().manual_seed(5).get_state())
    assert torch.equal(seen[0], torch.get_rng_state())
