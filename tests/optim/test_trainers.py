"""The closures of trainers that run their hooks in them are refused."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

import flatmin


@pytest.mark.parametrize("module", ["skorch.net", "composer.trainer.trainer"])
def test_a_closure_that_calls_hooks_is_refused_before_it_runs(module: str) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = flatmin.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    calls: list[int] = []

    def closure() -> None:
        calls.append(1)

    closure.__module__ = module
    with pytest.raises(RuntimeError, match=r"clipped before the method .*\.$"):
        optimizer.step(closure)
    assert not calls


@pytest.mark.parametrize("loaded", [False, True])
def test_lightning_is_named_where_it_is_loaded(
    loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if loaded:
        monkeypatch.setitem(
            sys.modules, "pytorch_lightning", ModuleType("pytorch_lightning")
        )
    model = torch.nn.Linear(2, 1)
    optimizer = flatmin.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with pytest.raises(RuntimeError) as said:
        optimizer.step()
    assert ("SharpnessAware, LightningModule" in str(said.value)) is loaded
    assert "With Transformers" not in str(said.value)
    assert str(said.value).endswith("optimizer.step().") is not loaded


def test_transformers_is_named_where_its_trainer_steps() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = flatmin.SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    trainer: dict[str, Any] = {"__name__": "transformers.trainer"}
    exec("def train(optimizer): optimizer.step()", trainer)
    with pytest.raises(RuntimeError, match=r"SharpnessAwareTrainer\(...\) in place"):
        trainer["train"](optimizer)
