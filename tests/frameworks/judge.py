"""What a cell of the matrix says: bitwise, close, wrong, or refused in a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from unittest.mock import patch

import torch

from tests.distributed.ranks import WORLD_SIZE, Ranks
from tests.frameworks import by_hand
from tests.frameworks.scenario import COLUMNS, HOOKS, LOGGED, Scenario, Trace, scenario

CLOSE = 1e-6
BITWISE, NEAR, WRONG, REFUSED, NONE = "=", "≈", "X", "R", "-"

#: What a refusal may be.
REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError)

#: In the order of the table.
ALL_COLUMNS = [*COLUMNS, LOGGED, HOOKS]


@dataclass(frozen=True)
class Verdict:
    """A cell: its mark, and the distance or the sentence that goes with it."""

    mark: str
    note: str = ""


@dataclass(frozen=True)
class Host:
    """A framework, or one of the ways to use it: a row of the matrix.

    Attributes:
        name: of the row.
        packages: whose versions the table gives.
        train: what it makes of a scenario, as process number ``rank``: a function of a
            module, because other processes are told its name.
        several: whether it wraps the network for several processes.
        expected: (method, column) -> mark, where it is not ``"="``; a method None
            stands for all. Reasons are comments beside the entries.
    """

    name: str
    packages: tuple[str, ...]
    train: Callable[[Scenario, int], Trace]
    several: bool = True
    expected: dict[tuple[str | None, str], str] = field(default_factory=dict)

    def expects(self, method: str, column: str) -> str:
        """The mark that the cell must have."""
        if COLUMNS.get(column, Scenario()).processes > 1 and not self.several:
            return NONE
        default = self.expected.get((None, column), BITWISE)
        return self.expected.get((method, column), default)


def judge(host: Host, method: str, column: str, ranks: Ranks | None) -> Verdict:
    """Run a cell.

    Args:
        host: the row.
        method: a key of ``METHODS``.
        column: one of ``ALL_COLUMNS``.
        ranks: two processes; None if the column needs none.
    """
    if host.expects(method, column) == NONE:
        return Verdict(NONE)
    of = scenario(column, method)
    try:
        found = run(host.train, of, ranks)
        if column == HOOKS:
            alone = run(host.train, scenario(column, None), ranks)
            return calls(found[0], alone[0])
    except REFUSALS as error:
        return Verdict(REFUSED, str(error))
    wanted = run(by_hand.train, of, ranks)
    if column == LOGGED:
        return closeness(found[0].losses, wanted[0].losses)
    pairs = zip(found, wanted, strict=True)
    return worst([states(mine, theirs) for mine, theirs in pairs])


def run(
    train: Callable[[Scenario, int], Trace], of: Scenario, ranks: Ranks | None
) -> list[Trace]:
    """One trace per process."""
    if of.processes == 1:
        return [train(of, 0)]
    assert ranks is not None, "this column needs two processes"
    found = ranks.run(as_rank, train, of)
    refused = [answer for answer in found if isinstance(answer, REFUSALS)]
    if refused:
        raise refused[0]
    return found


def as_rank(
    rank: int, train: Callable[[Scenario, int], Trace], of: Scenario
) -> Trace | Exception:
    """Train in a process that has what torchrun sets; the group is there already."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank}
    numbers |= {"WORLD_SIZE": WORLD_SIZE, "LOCAL_WORLD_SIZE": WORLD_SIZE}
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    with patch.dict(os.environ, {k: str(v) for k, v in numbers.items()} | address):
        try:
            return train(of, rank)
        except REFUSALS as error:
            return type(error)(str(error))


def worst(verdicts: list[Verdict]) -> Verdict:
    return max(verdicts, key=lambda v: (BITWISE, NEAR, WRONG).index(v.mark))


def states(mine: Trace, theirs: Trace) -> Verdict:
    """Compare parameters and buffers."""
    assert mine.state.keys() == theirs.state.keys()
    flat = [
        torch.cat([t.double().flatten() for t in trace.state.values()]).tolist()
        for trace in (mine, theirs)
    ]
    return closeness(*flat)


def closeness(mine: list[float], theirs: list[float]) -> Verdict:
    """Compare numbers: equal, within 1e-6 of their size, or not."""
    if mine == theirs:
        return Verdict(BITWISE)
    if len(mine) != len(theirs):
        return Verdict(WRONG, f"{len(mine)} numbers for {len(theirs)}")
    a, b = torch.tensor([mine, theirs], dtype=torch.float64)
    distance = float((a - b).abs().max() / b.abs().max())
    mark = NEAR if distance < CLOSE else WRONG
    return Verdict(mark, f"{distance:.1e}")


def calls(mine: Trace, theirs: Trace) -> Verdict:
    """Compare how often hooks were called with what the base alone causes."""
    assert theirs.counts, "the host counts nothing: it expects NONE here"
    if mine.counts == theirs.counts:
        return Verdict(BITWISE)
    pairs = [
        f"{name} {mine.counts.get(name, 0)} for {theirs.counts.get(name, 0)}"
        for name in sorted(mine.counts | theirs.counts)
        if mine.counts.get(name) != theirs.counts.get(name)
    ]
    return Verdict(WRONG, ", ".join(pairs))
