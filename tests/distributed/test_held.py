"""Gradients that are held back, ignored, or averaged in ways of their own."""

from __future__ import annotations

import pytest

from tests.distributed import held_jobs as jobs
from tests.distributed.ranks import Ranks


@pytest.mark.parametrize("through", ["sam", "base"])
def test_an_optimizer_over_parts_of_the_parameters_loads_and_goes_on(
    through: str, ranks: Ranks
) -> None:
    one, other = ranks.run(jobs.zero, through)
    assert one == other
    undisturbed, loaded, parameters, steps = one
    assert loaded == undisturbed
    assert (parameters, steps) == (4, 3)


@pytest.mark.parametrize("kind", ["layers", "tensor"])
def test_a_step_of_the_base_that_a_scaler_skips_is_skipped_everywhere(
    kind: str, ranks: Ranks
) -> None:
    found = ranks.run(jobs.overflow_of_the_base, kind)
    assert found == 2 * [[(4.0, 1), (2.0, 1), (2.0, 2)]]


def test_a_gradient_in_one_shard_is_refused_by_all(ranks: Ranks) -> None:
    for said in ranks.run(jobs.stray):
        assert "have a gradient that no step has used" in said


@pytest.mark.parametrize("widths", [(3, 3), (3, 5)])
@pytest.mark.parametrize("name", jobs.METHODS)
def test_what_ddp_was_told_to_ignore_stays_with_its_process(
    name: str, widths: tuple[int, int], ranks: Ranks
) -> None:
    (trunk, expert, kept), (same, other, others) = ranks.run(jobs.ignored, name, widths)
    assert trunk == same
    assert expert != other
    # GSAM remembers nothing.
    assert (kept == others) == (name == "gsam")


def test_a_hook_that_does_not_average_is_refused_where_it_is_not_called(
    ranks: Ranks,
) -> None:
    for said in ranks.run(jobs.hooked, "sum", "replica"):
        assert "without the communication hook summed. Use scope='world'" in said
    assert ranks.run(jobs.hooked, "sum", "world") == ["", ""]
    assert ranks.run(jobs.hooked, "few", "replica") == ["", ""]


@pytest.mark.parametrize("ignores", [False, True])
def test_a_pass_whose_gradient_is_held_back_is_refused(
    ignores: bool, ranks: Ranks
) -> None:
    for said in ranks.run(jobs.held_back, ignores):
        assert len(said) == 2
        for words in said:
            assert "FSDP2 has not yet reduced" in words
            assert "set_requires_gradient_sync(True)" in words


@pytest.mark.parametrize("how", ["raise", "break", "at once", "stray"])
def test_what_a_loop_left_in_fsdp_is_dropped(how: str, ranks: Ranks) -> None:
    for found, expected in ranks.run(jobs.left, how):
        assert found == expected


@pytest.mark.parametrize("first", [True, False])
def test_replicate_is_refused(first: bool, ranks: Ranks) -> None:
    for said in ranks.run(jobs.replicated, first):
        assert "Wrap it in torch.nn.parallel.DistributedDataParallel" in said


def test_a_stage_of_a_pipeline_is_refused(ranks: Ranks) -> None:
    for said in ranks.run(jobs.pipeline, 2):
        assert "the model is a stage of a pipeline" in said
    assert ranks.run(jobs.pipeline, 1) == ["", ""]


def test_a_model_that_is_sharded_after_its_base_was_built_is_named(
    ranks: Ranks,
) -> None:
    for said in ranks.run(jobs.sharded_too_late):
        assert "Build base and SAM after fully_shard" in said


def test_compiled_code_is_compiled_once_for_the_first_pass_and_once_for_all(
    ranks: Ranks,
) -> None:
    assert ranks.run(jobs.compilations) == 2 * [[2, 2, 2, 2]]
