"""Where the state of a model ends: at what is too large, too deep or not its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flatmin import SAM
from flatmin.optim import _snapshot
from flatmin.optim._snapshot import Snapshot
from tests.optim.stateful import Stateful, append, array, key, pop, run

pytestmark = pytest.mark.usefixtures("in_double")


def test_what_is_appended_to_a_long_list_is_taken_off_again() -> None:
    model = Stateful([0.0] * 10_000, append)
    optimizer = run(model)
    assert len(model.state) == 10_001
    for _ in optimizer.probes():
        assert len(model.state) == 10_001
        model(torch.ones(2, 4)).square().mean().backward()
    assert len(model.state) == 10_002
    assert model.state[-1] != 0


def test_what_is_taken_off_a_long_list_comes_back() -> None:
    model = Stateful([1.0] * 10_000, pop)
    run(model)
    assert len(model.state) == 9_999
    assert set(model.state) == {1.0}


def test_a_container_too_large_to_copy_is_left_alone() -> None:
    model = Stateful(dict.fromkeys(range(10000), 0.0), key)
    run(model)
    assert len(model.state) == 10_002


def test_a_large_array_is_left_alone() -> None:
    model = Stateful(np.zeros(300_000), array)
    run(model)
    assert model.state[0] != 0


def test_references_are_followed_to_a_depth_and_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    ring: list[Any] = []
    ring.append(ring)
    model = Stateful((deep, ring), lambda m, y: 1.0)
    holders = Snapshot.of(model)._holders
    assert len(holders) < 20
    monkeypatch.setattr(_snapshot, "_COUNT", 2)
    assert len(Snapshot.of(model)._holders) == 2


def test_the_owner_of_a_model_is_no_part_of_its_state() -> None:
    class Trainer:
        def __init__(self, model: nn.Module) -> None:
            self.model, self.passes = model, 0

    model: Any = Stateful(None, lambda m, y: 1.0)
    model.state = trainer = Trainer(model)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.3)
    model.optimizers = [optimizer, optimizer.base]
    for _ in optimizer.probes():
        model(torch.ones(2, 4)).square().mean().backward()
        trainer.passes += 1
    optimizer.step()
    assert trainer.passes == 2


def test_a_module_around_the_model_is_no_part_of_its_state() -> None:
    model = Stateful(None, lambda m, y: 1.0)
    whole: Any = nn.Sequential(model)
    whole.passes = 0
    model.state = [whole]
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.3)
    for _ in optimizer.probes():
        whole.passes += 1
        whole(torch.ones(2, 4)).square().mean().backward()
    assert whole.passes == 2
