"""DistributedDataParallel inside of another module is what it is without it."""

from __future__ import annotations

import pytest

from tests.distributed import wrapped_jobs as jobs
from tests.distributed.jobs import SCOPES
from tests.distributed.ranks import Ranks

HELD = ("held", "deep")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("wrapper", HELD)
def test_a_wrapper_changes_neither_weights_nor_what_is_averaged(
    wrapper: str, scope: str, ranks: Ranks
) -> None:
    plain = ranks.run(jobs.trained, "plain", "sam", scope, {})
    assert ranks.run(jobs.trained, wrapper, "sam", scope, {}) == plain
    assert plain[0] == plain[1]


@pytest.mark.parametrize("scope", ["replica", "world"])
def test_a_compiled_model_is_averaged_like_a_plain_one(
    scope: str, ranks: Ranks
) -> None:
    plain = ranks.run(jobs.trained, "plain", "sam", scope, {})
    assert ranks.run(jobs.trained, "compiled", "sam", scope, {}) == plain


@pytest.mark.parametrize("name", ["gsam", "ae_sam", "friendly_sam", "looksam"])
def test_methods_that_average_by_themselves_find_whom_to_ask(
    name: str, ranks: Ranks
) -> None:
    plain = ranks.run(jobs.trained, "plain", name, "replica", {})
    assert ranks.run(jobs.trained, "held", name, "replica", {}) == plain
    assert plain[0] == plain[1]


def test_bucket_views_are_seen_through_a_wrapper(ranks: Ranks) -> None:
    views = {"gradient_as_bucket_view": True}
    plain = ranks.run(jobs.trained, "plain", "gsam", "world", {})
    assert ranks.run(jobs.trained, "held", "gsam", "world", views) == plain


@pytest.mark.parametrize("scope", SCOPES)
def test_two_averaged_parts_are_averaged_as_one(scope: str, ranks: Ranks) -> None:
    for k, (weights, times) in enumerate(ranks.run(jobs.twice, scope)):
        assert weights == ranks.run(jobs.once, scope)[k]
        # Of four steps: once in each, or in both passes.
        assert times == ([8, 8] if scope == "world" else [4, 4])


@pytest.mark.parametrize("widths", [(3, 3), (3, 4)])
def test_what_is_outside_stays_with_its_process(
    widths: tuple[int, int], ranks: Ranks
) -> None:
    (trunk, head), (other_trunk, other_head) = ranks.run(jobs.own_head, widths)
    assert trunk == other_trunk
    assert (len(head[1]), len(other_head[1])) == widths
    assert head != other_head


def test_accumulating_inside_no_sync_of_the_inner_one_is_refused(ranks: Ranks) -> None:
    for message in ranks.run(jobs.accumulate_inside_no_sync):
        assert "inside of no_sync()" in message


def test_join_of_the_inner_one_is_refused(ranks: Ranks) -> None:
    for message in ranks.run(jobs.join):
        assert "inside of join()" in message


def test_a_static_graph_is_seen_through_a_wrapper(ranks: Ranks) -> None:
    for message in ranks.run(jobs.construct, "static"):
        assert "static_graph=True" in message


def test_parts_averaged_over_different_processes_are_refused(ranks: Ranks) -> None:
    for message in ranks.run(jobs.construct, "other processes"):
        assert "averaged over different processes" in message
    assert ranks.run(jobs.construct, "same processes") == ["", ""]
