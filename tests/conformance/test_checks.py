"""Every check passes for a SAM without the defect, and fails for one that has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from flatmin.conformance import (
    CHECKS,
    Adapter,
    Check,
    Result,
    _layers,
    _modules,
    ours,
)
from tests.conformance import hand
from tests.conformance.broken import BROKEN, MEANINGLESS

# These start two processes. flatmin alone goes through them in every run of the tests.
ON_RANKS = {"C4", "C5", "C6", "C35"}


def case(check: Check, *values: Adapter) -> Any:
    marks = [pytest.mark.everything] if check.id in ON_RANKS else []
    name = "-".join([check.id, *(value.name for value in values)])
    return pytest.param(check, *values, marks=marks, id=name)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_flatmin_passes(check: Check) -> None:
    check.require(ours.sam)


@pytest.mark.parametrize("check", [case(check) for check in CHECKS])
def test_a_sam_by_hand_passes(check: Check) -> None:
    check.require(hand.sam)


@pytest.mark.parametrize(
    ("check", "adapter"),
    [case(check, adapter) for check in CHECKS for adapter in BROKEN[check.id]],
)
def test_a_sam_with_the_defect_fails(check: Check, adapter: Adapter) -> None:
    result = check.run(adapter)
    assert result.verdict == "fail", result
    with pytest.raises(AssertionError, match=check.id):
        check.require(adapter)


@pytest.mark.parametrize(("id", "adapter", "why"), MEANINGLESS)
def test_a_figure_without_meaning_is_a_failure(
    id: str, adapter: Adapter, why: str
) -> None:
    result = next(check for check in CHECKS if check.id == id).run(adapter)
    assert result.verdict == "fail", result
    assert why in result.note


@pytest.mark.everything
@pytest.mark.parametrize(("id", "wrapper"), [("C4", "FSDP2"), ("C35", "FSDP1")])
def test_fsdp_is_blamed_where_the_base_optimizer_differs(
    monkeypatch: pytest.MonkeyPatch, id: str, wrapper: str
) -> None:
    check = next(check for check in CHECKS if check.id == id)
    control = BROKEN[id][0]
    monkeypatch.setattr("flatmin.conformance._distributed.CONTROL", control)
    assert check.run(hand.sam).note.endswith(f"; blame {wrapper}")


def refusing(error: type[Exception], moves: bool = False) -> Adapter:
    """A SAM that raises in its first step, perhaps too late."""

    def step(optimizer: hand.Hand, model: nn.Module, loss: Any) -> None:
        if moves:
            hand.step(optimizer, model, loss)
        raise error("write it otherwise\nand more")

    return replace(hand.sam, base_step=step, base_unscaled_step=None)


def test_a_refusal_before_a_weight_moves_passes_with_its_first_line() -> None:
    check = next(check for check in CHECKS if check.id == "C37")
    note = "step refused: ValueError: write it otherwise"
    assert check.run(refusing(ValueError)) == Result("C37", "pass", 0.0, note)


def test_an_accident_fails() -> None:
    check = next(check for check in CHECKS if check.id == "C37")
    assert check.run(refusing(KeyError)).verdict == "fail"


def test_a_refusal_after_a_weight_has_moved_fails() -> None:
    check = next(check for check in CHECKS if check.id == "C37")
    assert check.run(refusing(ValueError, moves=True)).verdict == "fail"


def test_buffers_of_two_shapes_differ() -> None:
    first, second = _layers.Recording(), _layers.Recording()
    second(torch.ones(1, 5).double())
    assert _modules._difference(first, second) == torch.inf


def test_every_check_is_there_once() -> None:
    ids = [f"C{k}" for k in range(1, 40)] + [f"T{k}" for k in range(1, 7)]
    assert sorted(check.id for check in CHECKS) == sorted(ids)
    assert BROKEN.keys() == set(ids)


def test_an_error_in_a_check_is_a_failure_with_its_first_line() -> None:
    def build(*_: object) -> None:
        raise KeyError("old_p\nand more")

    broken = Adapter(name="broken", build=build, step=hand.step)
    result = next(c for c in CHECKS if c.id == "T2").run(broken)
    assert result == Result("T2", "fail", None, "KeyError: 'old_p\\nand more'")
