"""Landscapes that are saved, continued, and shared."""

from __future__ import annotations

import json
import math
from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import Objective, _grid, _sweep, directions, landscape
from flatmin.diagnostics.landscape import Line, Plane, axis
from tests.diagnostics.small import (
    convnet,
    dense,
    images,
    images_flat,
    pictures,
    two,
)
from tests.problems import batch, mlp


@pytest.mark.parametrize("make", [dense, pictures])
def test_a_group_of_one_is_one_process(
    make: Callable[..., Objective], one_process: dist.ProcessGroup
) -> None:
    u, v = two(make())
    alone = landscape.plane(make(), u, v, a=axis(3))
    points = landscape.plane(make(), u, v, a=axis(3), ranks=one_process)
    data = Objective(make().model, cross_entropy, make().data, group=one_process)
    assert points == alone == landscape.plane(data, u, v, a=axis(3))


def test_processes_that_differ_are_refused(
    one_process: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = dense()
    u = directions.random(objective, 0)
    monkeypatch.setattr(dist, "all_reduce", lambda x, *_: x.add_(1))
    with pytest.raises(ValueError, match="have different weights"):
        landscape.line(objective, u, ranks=one_process)


def test_what_cannot_be_shared_is_refused(one_process: dist.ProcessGroup) -> None:
    objective = Objective(convnet(), cross_entropy, images(), group=one_process)
    u = directions.random(objective, 0)
    with pytest.raises(ValueError, match="only one of the two"):
        landscape.line(objective, u, ranks=one_process)
    with pytest.raises(ValueError, match="all data in one process"):
        landscape.line(objective, u, recalibrate=True)


def stopped_after(count: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("make", [dense, pictures], ids=["stacked", "threads"])
def test_what_was_interrupted_ends_with_the_same_bits(
    make: Callable[[], Objective], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_grid, "_MOST_STACKED", 7)
    objective = make()
    u, v = two(objective)
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    plane = landscape.plane(objective, u, v, a=axis(7), file=whole)
    for count in (1, 10, 30):
        with pytest.raises(KeyboardInterrupt):
            landscape.plane(
                objective, u, v, a=axis(7), file=parts, progress=stopped_after(count)
            )
        with pytest.raises(ValueError, match="unfinished losses"):
            Plane.load(parts)
    assert (
        10 <= sum(x is not None for x in json.loads(parts.read_text())["losses"]) < 49
    )
    seen: list[tuple[int, int]] = []
    again = landscape.plane(
        objective, u, v, a=axis(7), file=parts, progress=lambda *at: seen.append(at)
    )
    assert seen[0][0] > 30
    assert seen[-1] == (49, 49)
    assert parts.read_bytes() == whole.read_bytes()
    assert again == plane == Plane.load(whole)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"whole.json", "parts.json"}


def test_unfinished_losses_are_saved_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sweep, "SAVE_EVERY", 0.0)
    objective = dense()
    file = tmp_path / "line.json"
    there: list[int] = []

    def progress(done: int, total: int) -> None:
        if file.exists():
            found = json.loads(file.read_text())["losses"]
            there.append(sum(x is not None for x in found))

    landscape.line(
        objective,
        two(objective)[0],
        a=axis(4),
        file=file,
        how="loop",
        progress=progress,
    )
    assert there == [1, 2, 3]


def test_a_finished_file_is_not_measured_again(tmp_path: Path) -> None:
    calls: list[None] = []

    def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(None)
        return cross_entropy(outputs, targets)

    objective = Objective(mlp(), criterion, [batch(torch.float64)])
    u, v = two(objective)
    for measure in (
        lambda file: landscape.line(objective, u, a=axis(3), file=file),
        lambda file: landscape.plane(objective, u, v, a=axis(3), b=axis(2), file=file),
    ):
        file = tmp_path / f"{len(calls)}.json"
        first = measure(file)
        before = len(calls)
        assert measure(file) == first
        # One pass over the one batch tells whether the file is of these losses.
        assert len(calls) == before + 1


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    objective = dense()
    u, v = two(objective)
    file = tmp_path / "plane.json"
    landscape.plane(objective, u, v, a=axis(3), file=file)
    before = file.read_bytes()
    other = dense(seed=7)
    less = Objective(objective.model, cross_entropy, images_flat(12))
    for attempt in (
        lambda: landscape.plane(other, u, v, a=axis(3), file=file),
        lambda: landscape.plane(objective, v, u, a=axis(3), file=file),
        lambda: landscape.plane(objective, u, v, a=axis(3, 0.5), file=file),
        lambda: landscape.plane(
            objective, u, v, a=axis(3), file=file, recalibrate=True
        ),
        lambda: landscape.plane(
            objective, u, v, a=axis(3), file=file, settings={"k": 1}
        ),
        lambda: landscape.plane(less, u, v, a=axis(3), file=file),
    ):
        with pytest.raises(ValueError, match="is of other weights"):
            attempt()
    assert file.read_bytes() == before
    for damage in ("", "[1, 2]", "{"):
        file.write_text(damage)
        with pytest.raises(ValueError, match="holds no record"):
            landscape.plane(objective, u, v, a=axis(3), file=file)


def test_a_record_survives_its_file_whatever_the_losses(tmp_path: Path) -> None:
    plane = Plane(
        a=(0.0, 1.0),
        b=(0.5,),
        losses=((0.1, math.inf),),
        labels=("one", "two"),
        marks=(("here", 0.0, 0.25),),
        settings={"examples": 3, "names": ["x"], "more": {"rho": math.inf}},
        fingerprint="ab",
    )
    plane.save(tmp_path / "plane.json")
    text = (tmp_path / "plane.json").read_text()
    assert "Infinity" not in text
    loaded = Plane.load(tmp_path / "plane.json")
    assert loaded.losses == plane.losses
    assert loaded.marks == plane.marks
    assert loaded.settings["more"] == {"rho": "inf"}
    line = Line(a=(0.0,), losses=(-math.inf,))
    assert Line.from_dict(line.to_dict()) == line


def test_damaged_records_are_refused() -> None:
    good = Plane(a=(0.0,), b=(0.0,), losses=((1.0,),)).to_dict()
    for bad, message in (
        ({**good, "kind": "Line"}, "expected the record of a Plane, got 'Line'"),
        ({**good, "losses": [[1.0, 2.0]]}, "1 x 1 coordinates"),
        ({**good, "labels": ["u"]}, "two labels"),
        ({**good, "losses": [["high"]]}, "'high' is no number"),
        ({**good, "a": None}, "damaged"),
        ({**good, "more": 1}, "damaged"),
        ({"kind": "Plane"}, "damaged"),
    ):
        with pytest.raises(ValueError, match=message):
            Plane.from_dict(bad)
    with pytest.raises(ValueError, match="a line of 2 coordinates"):
        Line(a=(0.0, 1.0), losses=(0.0,))


class Graph(nn.Module):
    """Mixes the inputs by a sparse matrix, which is a buffer."""

    graph: Tensor

    def __init__(self, graph: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("graph", graph)
        self.layer = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer((self.graph @ x.T).T)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize(
    "kind", [Tensor.to_sparse, Tensor.to_sparse_csr, lambda t: t.to_sparse_bsr((2, 2))]
)
def test_a_sparse_buffer_is_a_part_of_the_fingerprint(
    kind: Callable[[Tensor], Tensor],
) -> None:
    data = [(torch.ones(2, 4).double(), torch.tensor([0, 2]))]
    eye = torch.eye(4).double()
    lines: list[Line] = []
    for graph in (eye, kind(eye), kind(2 * eye), kind(eye.flip(0))):
        objective = Objective(Graph(graph), cross_entropy, data)
        u = [torch.ones_like(w) for w in objective.w]
        lines.append(landscape.line(objective, u, a=(-1.0, 0.0, 1.0)))
    dense, *sparse = lines
    assert sparse[0].losses == pytest.approx(dense.losses, rel=1e-12)
    assert len({line.fingerprint for line in sparse}) == 3


def named(seed: int, kind: Callable[..., Any] = dict) -> list[Any]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 6, generator=draw, dtype=torch.float64)
    return [kind(x=x, y=torch.randint(3, (8,), generator=draw))]


@dataclass
class Pair:
    """A batch."""

    x: Tensor
    y: Tensor


def parts(model: nn.Module, one: Any) -> tuple[Tensor, Tensor]:
    if isinstance(one, Pair):
        return model(one.x), one.y
    return model(one["x"]), one["y"]


def doubled(model: nn.Module, one: Any) -> tuple[Tensor, Tensor]:
    return 2 * model(one["x"]), one["y"]


WEIGHTS = [torch.tensor([1.0, w, 1.0]).double() for w in (1, 9)]


@pytest.mark.parametrize("memory", [10, 2**30])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"data": named(0)}, {"data": named(1)}),
        ({"data": named(0, UserDict)}, {"data": named(1, UserDict)}),
        ({"data": named(0, Pair)}, {"data": named(1, Pair)}),
        ({}, {"criterion": nn.CrossEntropyLoss(label_smoothing=0.5)}),
        *[({"criterion": nn.CrossEntropyLoss(WEIGHTS[0])}, second) for second in (
            {"criterion": nn.CrossEntropyLoss(WEIGHTS[1])}, {"forward": doubled},
        )],
    ],
    ids=["data", "mapping", "dataclass", "options", "class weights", "forward"],
)  # fmt: skip
def test_a_file_of_another_loss_is_refused(
    first: dict[str, Any], second: dict[str, Any], memory: int, tmp_path: Path
) -> None:
    model, file = mlp(), tmp_path / "line.json"
    plain = {"criterion": cross_entropy, "data": named(0), "forward": parts}
    one, other = (Objective(model, **{**plain, **more}) for more in (first, second))
    u = directions.random(one, 0)
    line = landscape.line(one, u, a=axis(3), memory=memory, file=file)
    assert landscape.line(one, u, a=axis(3), memory=memory, file=file) == line
    with pytest.raises(ValueError, match="of another criterion or forward"):
        landscape.line(other, u, a=axis(3), memory=memory, file=file)


def test_data_whose_losses_are_alike_at_the_weights_is_told_apart_by_itself(
    tmp_path: Path,
) -> None:
    model, file = mlp(), tmp_path / "line.json"
    for p in model.parameters():
        nn.init.zeros_(p)
    one, other = (
        Objective(model, cross_entropy, named(seed), forward=parts) for seed in (0, 1)
    )
    u = [torch.ones_like(p) for p in one.w]
    landscape.line(one, u, a=axis(3), file=file)
    with pytest.raises(ValueError, match="is of other weights, directions, data"):
        landscape.line(other, u, a=axis(3), file=file)


def test_the_parts_of_all_processes_are_in_the_fingerprint(
    one_process: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = _sweep._Together(one_process, torch.device("cpu"))
    assert together.agreed("01ff", must=False) == "01ff"
    monkeypatch.setattr(together, "reduced", lambda x: x + torch.tensor([2, 3]))
    assert together.agreed("01ff", must=False) == "0302"


def test_labels_are_checked_before_anything_is_measured() -> None:
    objective = dense()
    u, v = two(objective)
    done: list[int] = []

    def progress(count: int, _: int) -> None:
        done.append(count)

    with pytest.raises(ValueError, match="a plane has two labels, got 1"):
        landscape.plane(objective, u, v, a=axis(3), labels=("u",), progress=progress)  # pyright: ignore
    with pytest.raises(ValueError, match="could not convert"):
        landscape.plane(
            objective, u, v, a=axis(3), marks={"a": ("x", 0)}, progress=progress  # pyright: ignore
        )  # fmt: skip
    assert done == []
