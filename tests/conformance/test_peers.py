"""What is known of the peers, so that a change of them, or of a check, is seen."""

from __future__ import annotations

from types import ModuleType

import pytest

from flatmin.conformance import CHECKS, Adapter
from tests.conformance.peers import (
    heavyball,
    in_place,
    pytorch_optimizer,
    sam_pytorch,
    temperon,
    two_call,
)

KNOWN = {
    two_call.sam: {
        *("C1", "C2", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12", "C14"),
        *("C15", "C16", "C19", "C20", "C21", "C22", "C23", "C26", "C29", "C31", "C32"),
        *("C33", "C34", "C35", "C36", "C37", "C39", "T1", "T5", "T6"),
    },
    in_place.sam: {
        *("C6", "C8", "C9", "C10", "C14", "C15", "C16", "C17", "C20", "C21", "C22"),
        *("C29", "C31", "C32", "C33", "C34", "C35", "C37", "C39", "T1", "T5"),
    },
}


@pytest.mark.everything
@pytest.mark.parametrize("adapter", KNOWN, ids=lambda adapter: adapter.name)
def test_a_peer_fails_what_its_pattern_breaks(adapter: Adapter) -> None:
    failed = {c.id for c in CHECKS if c.run(adapter).verdict == "fail"}
    assert failed == KNOWN[adapter]


@pytest.mark.parametrize("name", ["sam", "look_sam", "friendly_sam", "wsam", "gsam"])
def test_adapters_of_an_installed_package_make_sams_step(name: str) -> None:
    quadratic = next(check for check in CHECKS if check.id == "T2")
    quadratic.require(getattr(pytorch_optimizer, name))


@pytest.mark.parametrize("package", [sam_pytorch, temperon])
def test_a_closure_package_makes_sams_step(package: ModuleType) -> None:
    next(check for check in CHECKS if check.id == "T2").require(package.sam)


def test_heavyball_makes_the_step_of_its_own_formula() -> None:
    for id in ("C11", "C38", "T3"):
        next(check for check in CHECKS if check.id == id).require(heavyball.sam)


@pytest.mark.parametrize("id", ["C14", "C15", "C16", "C17", "T2"])
def test_sams_formula_is_not_asked_of_another(id: str) -> None:
    result = next(check for check in CHECKS if check.id == id).run(heavyball.sam)
    assert result.verdict == "n/a"
