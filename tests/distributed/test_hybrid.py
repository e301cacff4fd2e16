"""Four processes in a mesh of 2 x 2 equal one process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from flatmin import SAM
from flatmin.core import Step
from flatmin.core.filters import outliers
from tests.distributed import hybrid_jobs
from tests.distributed.hybrid_jobs import EXAMPLES, KINDS, RANKS, mine
from tests.distributed.jobs import RHO, M, batches, network, sgd
from tests.distributed.ranks import Ranks
from tests.distributed.test_ddp import close, m_sam

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    processes = Ranks(tmp_path_factory.mktemp("gloo") / "meeting-point", RANKS)
    yield processes
    processes.close()


def one_process(steps: int, **sam: Any) -> dict[str, Any]:
    model = network()
    optimizer = SAM(sgd(model), model, rho=RHO, track=True, **sam)
    for x, y in batches(steps, EXAMPLES):
        for _ in optimizer.probes():
            cross_entropy(model(x), y).backward()
        optimizer.step()
    return hybrid_jobs.summary(model, optimizer)


def half_of(kind: str, half: int, data: Tensor) -> Tensor:
    """What all ranks together see in one of two micro-batches."""
    ranks = (0, 2) if kind.endswith("tensor") else range(RANKS)
    return torch.cat([mine(rank, kind, data).chunk(2)[half] for rank in ranks])


def one_process_accumulating(kind: str) -> dict[str, Any]:
    model = network()
    optimizer = SAM(sgd(model), model, rho=RHO, track=True)
    for x, y in batches(3, EXAMPLES):
        optimizer.zero_grad()
        for half in range(2):
            for _ in optimizer.probes(accumulate=True):
                out = model(half_of(kind, half, x))
                (cross_entropy(out, half_of(kind, half, y)) / 2).backward()
        optimizer.step()
    return hybrid_jobs.summary(model, optimizer)


def assert_all(answers: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    for answer in answers:
        assert answer["weights"] == answers[0]["weights"]
        close(answer["weights"], expected["weights"])
        assert answer["norm"] == pytest.approx(expected["norm"], rel=1e-10)
        assert answer["cosine"] == pytest.approx(expected["cosine"], rel=1e-10)


@every_kind
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_a_mesh_trains_as_one_process(p: float, kind: str, four: Ranks) -> None:
    answers = four.run(hybrid_jobs.trained, kind, 5, {"p": p})
    assert_all(answers, one_process(5, p=p))
    assert all(answer["kept"] for answer in answers)


@every_kind
def test_a_ball_per_group_is_that_of_one_process(kind: str, four: Ranks) -> None:
    settings = {"norm_over": "group"}
    answers = four.run(hybrid_jobs.trained, kind, 3, settings)
    assert_all(answers, one_process(3, **settings))


@every_kind
def test_the_perturbation_of_the_whole_has_length_rho(kind: str, four: Ranks) -> None:
    for length in four.run(hybrid_jobs.length_of_the_perturbation, kind):
        assert length == pytest.approx(RHO, rel=1e-12)


@every_kind
def test_a_perturbation_per_micro_batch_is_that_of_one_process(
    kind: str, four: Ranks
) -> None:
    answers = four.run(hybrid_jobs.accumulated, kind)
    assert_all(answers, one_process_accumulating(kind))


@pytest.mark.parametrize(("saved", "loaded"), list(pairwise([*KINDS, "hybrid-layers"])))
def test_a_checkpoint_continues_on_another_mesh(
    saved: str, loaded: str, four: Ranks, tmp_path: Path
) -> None:
    four.run(hybrid_jobs.save_halfway, saved, str(tmp_path))
    answers = four.run(hybrid_jobs.continue_from, loaded, str(tmp_path))
    assert_all(answers, one_process(5))


def test_copies_of_a_shard_are_bitwise_equal_after_fifty_steps(four: Ranks) -> None:
    first, second, copy_of_first, copy_of_second = four.run(
        hybrid_jobs.shards_after, 50
    )
    assert first == copy_of_first
    assert second == copy_of_second
    assert first != second


def test_replicas_climb_along_the_mean_gradient_of_their_group(four: Ranks) -> None:
    answers = four.run(hybrid_jobs.climbing_in_pairs, 5)
    for answer in answers:
        assert answer["weights"] == answers[0]["weights"]
    close(answers[0]["weights"], m_sam(5, 2 * M, EXAMPLES))


def test_the_norm_is_that_of_the_mean_gradient_of_the_group(four: Ranks) -> None:
    answers = four.run(hybrid_jobs.climbing_in_pairs, 1)
    [(x, y)] = batches(1, EXAMPLES)
    for rank, answer in enumerate(answers):
        model, half = network(), rank // 2
        loss = cross_entropy(model(x.chunk(2)[half]), y.chunk(2)[half])
        g = torch.autograd.grad(loss, list(model.parameters()))
        wanted = get_total_norm(g).item()
        assert answer["norms"] == [pytest.approx(wanted, rel=1e-12)]


def values_of(seed: int, levels: int) -> list[Tensor | None]:
    """A value per entry of each weight but the second, of so many different ones."""
    random = torch.Generator().manual_seed(seed)
    found: list[Tensor | None] = [
        torch.randint(levels, p.shape, generator=random).double()
        for p in network().parameters()
    ]
    found[1] = None
    return found


def entries_of(xs: list[Any]) -> Tensor:
    whole = [torch.as_tensor(x, dtype=torch.float64) for x in xs if x is not None]
    return torch.cat([x.flatten() for x in whole])


@every_kind
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("levels", [10**9, 4, 1])
def test_shards_are_ranked_as_one(
    levels: int, share: float, kind: str, four: Ranks
) -> None:
    values = values_of(3, levels)
    masks = four.run(hybrid_jobs.ranked, kind, values, share)
    assert all(mask == masks[0] for mask in masks)
    assert masks[0][1] is None
    mask, all_values = entries_of(masks[0]).bool(), entries_of(values)
    assert mask.sum() == max(1, int(share * mask.numel()))
    assert share == 1.0 or all_values[mask].min() >= all_values[~mask].max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_shards_of_any_precision_are_ranked(dtype: torch.dtype, four: Ranks) -> None:
    values = [x if x is None else (x / 97).to(dtype) for x in values_of(4, 10**6)]
    mask, *_ = four.run(hybrid_jobs.ranked, "four-shards", values, 0.4)
    chosen, all_values = entries_of(mask).bool(), entries_of(values)
    assert chosen.sum() == int(0.4 * chosen.numel())
    assert all_values[chosen].min() >= all_values[~chosen].max()


def test_what_is_no_number_ranks_highest_on_every_shard(four: Ranks) -> None:
    values = values_of(5, 10**6)
    assert values[0] is not None
    values[0][0, 0], values[0][1, 1] = math.nan, -math.nan
    mask, *others = four.run(hybrid_jobs.ranked, "four-shards", values, 0.2)
    assert all(other == mask for other in others)
    chosen = entries_of(mask).bool()
    assert chosen.sum() == int(0.2 * chosen.numel())
    assert chosen[entries_of(values).isnan()].all()


@every_kind
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("levels", [10**9, 3, 1])
def test_outliers_of_shards_are_those_of_the_whole(
    levels: int, share: float, kind: str, four: Ranks
) -> None:
    w = [p.detach() for p in network().parameters()]
    random = torch.Generator().manual_seed(6)
    values = [1 + torch.randint(levels, p.shape, generator=random).double() for p in w]
    step = Step(0, nn.Module(), [*w], [{}], group_of=[0] * len(w))
    expected = [x.tolist() for x in outliers(share)(step, [*values]) if x is not None]
    for answer in four.run(hybrid_jobs.outliers_of, kind, values, share):
        assert answer == expected
