"""Two processes with a part of the data each are one process with all of it."""

from typing import Any

import pytest

from flatmin.diagnostics import Objective
from tests.diagnostics import jobs
from tests.distributed.ranks import Ranks
from tests.problems import OneProcess


def close(a: Any, b: Any) -> None:
    """The same up to 1e-12, wherever there is a number."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            close(a[name], b[name])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            close(x, y)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-14)
    else:
        assert a == b


def test_two_processes_measure_what_one_does(ranks: Ranks) -> None:
    expected = jobs.numbers(jobs.alone())
    first, second = ranks.run(jobs.measure)
    assert first == second
    close(first, expected)


def test_two_processes_divide_by_what_one_does(ranks: Ranks) -> None:
    expected = jobs.weighted(jobs.partly_ignored())
    first, second = ranks.run(jobs.measure_weighted)
    assert first == second
    close(first, expected)


def test_data_that_is_ignored_in_all_processes_is_refused_by_all(ranks: Ranks) -> None:
    first, second = ranks.run(jobs.refuse_all_ignored)
    assert first == second
    assert first.startswith("the 24 examples have nothing to average over")


def test_a_process_without_data_takes_part(ranks: Ranks) -> None:
    first, second = ranks.run(jobs.measure_where_one_has_nothing)
    assert first == second


def test_what_one_process_refuses_stops_the_others_too(ranks: Ranks) -> None:
    fine, refused = ranks.run(jobs.refuse_on_one)
    assert refused.startswith("ValueError: the loss of batch 0 is nan")
    assert fine.startswith("RuntimeError: another process of the group has stopped")


def test_a_failure_in_the_middle_stops_the_others_too(ranks: Ranks) -> None:
    failed, fine = ranks.run(jobs.fail_on_one_later)
    assert failed == ["OSError: disk full"] * 3
    assert len(fine) == 3
    assert all("another process of the group" in answer for answer in fine)


def test_the_others_error_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with OneProcess():
        monkeypatch.setattr(
            "flatmin.diagnostics._guards._any_failed", lambda group, failed: True
        )
        model, data = jobs.model_and_data(0)
        with pytest.raises(RuntimeError, match="Its own error says why"):
            Objective(model, lambda a, b: a.mean(), data)
