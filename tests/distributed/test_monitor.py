"""Two processes that watch their training are one process with all of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed import monitor_jobs as jobs
from tests.distributed.ranks import Ranks


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


def test_records_are_alike_and_those_of_one_process(
    ranks: Ranks, tmp_path: Path
) -> None:
    one, two = map(timeless, ranks.run(jobs.watched, tmp_path / "log", tmp_path / "tb"))
    assert one == two
    expected = timeless(jobs.alone())
    assert [record["step"] for record in one] == [0, 2, 4]
    for record, wanted in zip(one, expected, strict=True):
        assert record.keys() == wanted.keys()
        # A tolerance of 0.03 decides when lambda_max is good enough.
        assert record == pytest.approx(wanted, rel=1e-9)


def test_one_process_of_a_group_writes(ranks: Ranks, tmp_path: Path) -> None:
    log, board = tmp_path / "log", tmp_path / "board"
    first, _ = ranks.run(jobs.watched, log, board)
    assert [json.loads(line) for line in log.read_text().splitlines()] == first
    assert len(list(board.iterdir())) == 1


def test_the_mean_of_a_batch_is_over_those_that_measured_it(ranks: Ranks) -> None:
    (one, measured), (two, _) = ranks.run(jobs.one_lacks_a_number)
    assert timeless([one]) == timeless([two])
    assert one["batch_loss"] == measured["loss"].item()


def test_nobody_waits_for_a_process_that_cannot_measure(ranks: Ranks) -> None:
    for records in ranks.run(jobs.failing_on_one):
        good, bad, again = records
        assert bad["loss"] is None
        assert bad["lambda_max"] is None
        assert timeless([again | {"step": 0}]) == timeless([good])


def test_a_wrapper_that_hides_replicas_is_refused(ranks: Ranks) -> None:
    for message in ranks.run(jobs.measured_inside_a_wrapper):
        assert "model Held holds DistributedDataParallel" in message
        assert "model.module" in message
