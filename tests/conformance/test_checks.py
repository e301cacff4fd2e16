"""Every check passes for a SAM without the defect, and fails for one that has it."""

from __future__ import annotations

import pytest

from flatmin.conformance import CHECKS, Adapter, Check, Result, ours
from tests.conformance import hand
from tests.conformance.broken import BROKEN, MEANINGLESS

every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)


@every_check
def test_flatmin_passes(check: Check) -> None:
    check.require(ours.sam)


@every_check
def test_a_sam_by_hand_passes(check: Check) -> None:
    check.require(hand.sam)


@pytest.mark.parametrize(
    ("check", "adapter"),
    [(check, adapter) for check in CHECKS for adapter in BROKEN[check.id]],
    ids=[f"{check.id}-{a.name}" for check in CHECKS for a in BROKEN[check.id]],
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


def test_fsdp_is_blamed_where_the_base_optimizer_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = next(check for check in CHECKS if check.id == "C4")
    control = BROKEN["C4"][0]
    monkeypatch.setattr("flatmin.conformance._distributed.CONTROL", control)
    assert check.run(hand.sam).note.endswith("; blame FSDP2")


def test_every_check_is_there_once() -> None:
    ids = [f"C{k}" for k in range(1, 31)] + [f"T{k}" for k in range(1, 7)]
    assert sorted(check.id for check in CHECKS) == sorted(ids)
    assert BROKEN.keys() == set(ids)


def test_an_error_in_a_check_is_a_failure_with_its_first_line() -> None:
    def build(*_: object) -> None:
        raise KeyError("old_p\nand more")

    broken = Adapter(name="broken", build=build, step=hand.step)
    result = next(c for c in CHECKS if c.id == "T2").run(broken)
    assert result == Result("T2", "fail", None, "KeyError: 'old_p\\nand more'")
