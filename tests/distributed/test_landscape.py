"""Points, or data, shared by two real processes against one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flatmin.diagnostics import _grid, directions, landscape
from tests.distributed import landscape_jobs as jobs
from tests.distributed.ranks import Ranks


def one_process(name: str, points: int, file: Path | None = None) -> landscape.Plane:
    objective = jobs.objective_of(name)
    u, v = (directions.random(objective, seed) for seed in (0, 1))
    return landscape.plane(objective, u, v, a=landscape.axis(points), file=file)


@pytest.mark.parametrize("name", ["dense", "pictures"])
@pytest.mark.parametrize("points", [2, 5])
def test_two_ranks_equal_one_bit_for_bit(
    name: str, points: int, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_grid, "_MOST_STACKED", 4)
    expected = one_process(name, points).to_dict()
    one, two = ranks.run(jobs.shared_points, name, points, None)
    assert one == two == expected


@pytest.mark.parametrize("name", ["dense", "pictures"])
def test_two_ranks_continue_what_they_or_one_has_begun(
    name: str, ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_grid, "_MOST_STACKED", 4)
    file = tmp_path / "plane.json"
    one, two = ranks.run(jobs.interrupted, name, str(file))
    assert one == two
    assert 10 < one[-1] < 25
    ranks.run(jobs.shared_points, name, 5, str(file))
    one_process(name, 5, tmp_path / "alone.json")
    assert file.read_bytes() == (tmp_path / "alone.json").read_bytes()


def test_two_parts_of_the_data_equal_the_whole(ranks: Ranks) -> None:
    one, two = ranks.run(jobs.shared_data)
    assert one == two
    expected = one_process("pictures", 3).losses
    torch.testing.assert_close(
        torch.tensor(one).double(), torch.tensor(expected).double(), rtol=1e-12, atol=0
    )


def test_ranks_that_differ_and_files_of_others_are_refused_by_all(
    ranks: Ranks, tmp_path: Path
) -> None:
    file = tmp_path / "line.json"
    file.write_text("{}")
    one, two = ranks.run(jobs.refusals, str(file))
    assert "have different weights" in one[0]
    assert "have different weights" in two[0]
    assert "is of other weights" in one[1]
    assert two[1] == "another process has refused the file."
