"""Batches that a training step changes: every pass sees the same one."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from transformers import BatchEncoding

import flatmin
from flatmin import SAM
from flatmin.integrations._batch import Handed, take
from flatmin.integrations.transformers import SharpnessAwareTrainer
from flatmin.optim import Probe
from tests.integrations.language import WORDS, trainer_of
from tests.integrations.lightning_nets import LR, RHO, Net, body, loader, quiet, trainer
from tests.integrations.test_skorch import Net as Skorch
from tests.integrations.test_skorch import build, fitted, weights


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet(caplog):
        yield


def changed(x: Tensor) -> Tensor:
    """Another tensor again, if it is changed twice."""
    return x * x - 1


def by_assignment(batch: Any) -> tuple[Tensor, Tensor]:
    batch[0] = changed(batch[0])
    return batch[0], batch[1]


def by_pop(batch: Any) -> tuple[Tensor, Tensor]:
    y = batch.pop()
    return changed(batch[0]), y


class Changing(Net):
    """Changes the list that it is given."""

    change: Callable[[Any], tuple[Tensor, Tensor]]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = self.change(batch)
        return cross_entropy(self.net(x), y)


@pytest.mark.parametrize("change", [by_assignment, by_pop])
def test_entries_of_a_batch_are_replaced_once_in_lightning(
    change: Callable[[Any], tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    module = Changing()
    module.change = change
    trainer(tmp_path).fit(module, loader())
    model = body()
    sam = SAM(SGD(model.parameters(), lr=LR, momentum=0.9), model, rho=RHO)
    for x, y in [*loader()] * 2:
        for _ in sam.probes():
            cross_entropy(model(changed(x)), y).backward()
        sam.step()
    pairs = zip(module.net.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


def in_place(batch: Any) -> tuple[Tensor, Tensor]:
    x, y = batch
    return x.mul_(2), y


def test_a_batch_that_changes_in_place_is_refused_in_lightning(tmp_path: Path) -> None:
    module = Changing()
    module.change = in_place
    start = copy.deepcopy(module.net)
    with pytest.raises(RuntimeError, match="a tensor of its batch in place"):
        trainer(tmp_path).fit(module, loader())
    pairs = zip(module.net.parameters(), start.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


class Shifting(SharpnessAwareTrainer):
    """Takes another word for each, in the memory of the batch."""

    def compute_loss(self, model: Any, inputs: Any, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs["input_ids"].add_(1).remainder_(WORDS)
        return super().compute_loss(model, inputs, **options)


def test_a_batch_that_changes_in_place_is_refused_in_transformers() -> None:
    with pytest.raises(RuntimeError, match="a tensor of its batch in place"):
        trainer_of(Shifting, rho=RHO).train()


class Replacing(Skorch):
    def train_step_single(self, batch: Any, **fit_params: Any) -> Any:
        batch[0] = changed(batch[0])
        return super().train_step_single(batch, **fit_params)


class Pure(Skorch):
    def train_step_single(self, batch: Any, **fit_params: Any) -> Any:
        x, y = batch
        return super().train_step_single([changed(x), y], **fit_params)


class InPlace(Skorch):
    def train_step_single(self, batch: Any, **fit_params: Any) -> Any:
        batch[0].mul_(2)
        return super().train_step_single(batch, **fit_params)


def test_entries_of_a_batch_are_replaced_once_in_skorch() -> None:
    found: list[Tensor] = []
    for kind in (Replacing, Pure):
        made: Any = build()
        torch.manual_seed(3)
        found.append(weights(fitted(kind(**made.get_params(deep=False)))))
    assert torch.equal(*found)


def test_a_batch_that_changes_in_place_is_refused_in_skorch() -> None:
    made: Any = build()
    with pytest.raises(RuntimeError, match="a tensor of its batch in place"):
        fitted(InPlace(**made.get_params(deep=False)))


def probes() -> Iterator[Probe]:
    model = nn.Linear(2, 1)
    optimizer = flatmin.SAM(SGD(model.parameters(), lr=0.1), model)
    for probe in optimizer.probes():
        yield probe
        model(torch.ones(1, 2)).sum().backward()


def test_the_first_pass_has_the_trainers_own_object() -> None:
    """And later ones have others, of the same kinds, with the same tensors."""
    x = torch.ones(2)
    batch = [{"x": x, "more": (x, [x])}, BatchEncoding({"ids": x}), "words", None]
    handed = Handed(batch)
    first, second = [handed.to(probe) for probe in probes()]
    assert first is batch
    assert second is not batch
    assert second[0] is not batch[0]
    assert second[0]["more"][1] is not batch[0]["more"][1]
    assert second[0]["more"][1][0] is x
    assert type(second[1]) is BatchEncoding
    assert second[1] is not batch[1]
    assert second[1]["ids"] is x
    assert second[2:] == ["words", None]


def test_what_an_earlier_pass_removed_is_there_again() -> None:
    handed = Handed({"x": torch.ones(2), "y": [torch.zeros(2)]})
    for probe in probes():
        batch = handed.to(probe)
        del batch["x"]
        batch["y"].clear()
    assert handed.batch == {"y": []}


def test_tensors_of_inference_mode_are_handed_on() -> None:
    with torch.inference_mode():
        batch = torch.ones(3)
    handed = Handed([batch])
    assert all(handed.to(probe)[0] is batch for probe in probes())


class Examples(UserDict[str, Any]):
    """As collators return them: with an attribute beside the entries."""

    note = ""


def nested() -> Examples:
    x = torch.arange(4.0)
    batch = Examples(a=x, inner=Examples(b=[x + 1], c=(x + 2, "text")))
    batch.note = batch["inner"].note = "kept"
    return batch


def test_containers_in_containers_are_the_next_passs_own() -> None:
    handed = Handed(nested())
    first, second = probes()
    batch = handed.to(first)
    batch["inner"]["b"].pop()
    del batch["inner"]["c"]
    again = handed.to(second)
    assert len(again["inner"]["b"]) == 1
    assert again["inner"]["c"][1] == "text"
    assert again.note == again["inner"].note == "kept"


@pytest.mark.parametrize("kind", [dict, Examples, MappingProxyType])
def test_a_part_is_taken_from_every_kind_of_mapping(kind: Any) -> None:
    model = nn.Linear(2, 2)
    optimizer = flatmin.subset_sam(SGD(model.parameters(), lr=0.1), model, share=0.5)
    x, scalar = torch.arange(4.0), torch.tensor(3)
    whole = kind({"x": x, "deep": kind({"x": x + 1}), "scalar": scalar})
    probe = next(optimizer.probes())
    assert probe.wants_part
    taken = take(probe, whole)
    assert type(taken) is kind
    assert torch.equal(taken["x"] + 1, taken["deep"]["x"])
    assert len(taken["x"]) == 2
    assert taken["scalar"] is scalar
