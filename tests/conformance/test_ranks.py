"""The two processes: what they answer, and what becomes of those that do not."""

from __future__ import annotations

import os
import time

import pytest

from flatmin.conformance._check import Wrong
from flatmin.conformance._ranks import on_ranks


def add(rank: int, value: int) -> int:
    return rank + value


def fail_on_one(rank: int) -> None:
    if rank == 1:
        raise ValueError("rank 1 has no batch\nand more")


def hang(rank: int) -> None:
    if rank == 0:
        time.sleep(60)


def die(rank: int) -> None:
    if rank == 0:
        os._exit(3)


def everything(*values: object):
    return pytest.param(*values, marks=pytest.mark.everything)


def test_answers_come_in_order_of_rank() -> None:
    assert on_ranks(add, 5) == [5, 6]


@pytest.mark.parametrize(
    ("job", "patience", "why"),
    [
        (fail_on_one, 60.0, "^ValueError: rank 1 has no batch$"),
        everything(die, 60.0, "rank 0 died"),
        everything(hang, 2.0, "rank 0 does not answer within 2 s; it is in hang < _an"),
    ],
)
def test_a_failure_is_told_and_the_next_job_runs(
    job, patience: float, why: str
) -> None:
    assert on_ranks(add, 5) == [5, 6]  # after the failure of the test before, too
    with pytest.raises(Wrong, match=why):
        on_ranks(job, patience=patience)


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(Wrong, match="adapters are functions of a module"):
        on_ranks(lambda rank: rank)
