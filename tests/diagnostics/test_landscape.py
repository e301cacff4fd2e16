"""Lines and planes against closed forms, against the plain loop, and left alone."""

from __future__ import annotations

import copy
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from flatmin.diagnostics import Objective, _grid, _sweep, directions, landscape
from flatmin.diagnostics.landscape import Line, Plane, axis
from tests.diagnostics.small import convnet, dense, images, pictures, quadratic
from tests.problems import OneProcess, batch, mlp, snapshot, untouched

WAYS = ["loop", "stacked", "threads"]


def two(objective: Objective) -> tuple[list[Tensor], list[Tensor]]:
    return directions.random(objective, 0), directions.random(objective, 1)


def losses(record: Line | Plane) -> Tensor:
    return torch.tensor(record.losses, dtype=torch.float64)


def by_hand(objective: Objective, u: list[Tensor], v: list[Tensor], at: Any) -> Tensor:
    """The loop that everybody writes, on a copy of the model."""
    rows = []
    for b in at:
        for a in at:
            model = copy.deepcopy(objective.model)
            moving = [p for p in model.parameters() if p.requires_grad]
            with torch.no_grad():
                for p, x, y in zip(moving, u, v, strict=True):
                    p.copy_(p + a * x + b * y)
                total = sum(
                    len(t) * objective.criterion(model(x), t) for x, t in objective.data
                )
            rows.append(total / objective.n)
    return torch.stack(rows).view(len(at), len(at))


def same(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


@contextmanager
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        yield
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


# What the numbers are.


@pytest.mark.parametrize("how", WAYS)
def test_the_plane_of_a_quadratic_is_its_closed_form(how: Any) -> None:
    objective = quadratic()
    model = objective.model
    (w,) = (p.detach() for p in objective.w)
    draw = torch.Generator().manual_seed(4)
    u, v = torch.randn(2, len(w), generator=draw, dtype=torch.float64)
    at = (-1.5, 0.0, 0.25, 2.0)
    plane = landscape.plane(objective, [u], [v], a=at, b=axis(3), how=how)
    expected = [[model.loss(w + a * u + b * v) for a in at] for b in axis(3)]  # pyright: ignore
    same(losses(plane), torch.tensor(expected, dtype=torch.float64), 1e-12)


def test_the_line_of_a_linear_model_is_a_parabola() -> None:
    torch.manual_seed(3)
    model = nn.Linear(6, 2).double()
    x, y = torch.randn(2, 10, 6).double()[0], torch.randn(10, 2).double()
    objective = Objective(model, mse_loss, [(x, y)])
    u = directions.random(objective, 0)
    line = landscape.line(objective, u, a=(-2, -1, 0, 1, 2))
    slope = x @ u[0].T + u[1]
    rest = model(x).detach() - y
    expected = [((rest + a * slope) ** 2).mean() for a in line.a]
    same(losses(line), torch.stack(expected), 1e-12)


def test_a_line_between_two_models_ends_at_their_losses() -> None:
    objective, other = dense(), mlp()
    line = landscape.line(
        objective, directions.between(objective, other), a=(0.0, 0.5, 1.0)
    )
    ends = objective.loss(), Objective(other, cross_entropy, objective.data).loss()
    same(losses(line)[[0, 2]], torch.stack(ends), 1e-14)


def test_a_plane_through_three_models_has_their_losses() -> None:
    objective, others = dense(), (mlp(), mlp())
    basis = directions.through(objective, *others)
    (a, _), (c, d) = basis.coordinates
    plane = landscape.plane(
        objective, basis.u, basis.v, a=(0.0, a, c), b=(0.0, d),
        marks={"other": (a, 0.0)},
    )  # fmt: skip
    found = losses(plane)
    expected = [objective.loss()] + [
        Objective(other, cross_entropy, objective.data).loss() for other in others
    ]
    same(torch.stack([found[0, 0], found[0, 1], found[1, 2]]), torch.stack(expected))
    assert plane.marks == (("other", a, 0.0),)


def test_scaling_two_layers_inversely_changes_the_raw_landscape_alone() -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    data = [batch(torch.float64)]
    found: dict[bool, list[Tensor]] = {True: [], False: []}
    for scale in (1.0, 8.0):
        with torch.no_grad():
            model[0].weight.mul_(scale)  # pyright: ignore
            model[0].bias.mul_(scale)  # pyright: ignore
            model[2].weight.div_(scale)  # pyright: ignore
        objective = Objective(model, cross_entropy, data)
        for by_filter, planes in found.items():
            u, v = (
                directions.random(objective, k, by_filter=by_filter) for k in (0, 1)
            )
            planes.append(losses(landscape.plane(objective, u, v, a=axis(5))))
    same(found[True][0], found[True][1])
    assert (found[False][0] - found[False][1]).abs().max() > 0.1


def test_rows_are_along_v_and_columns_along_u() -> None:
    objective = quadratic()
    (w,) = objective.w
    u, v = [torch.zeros_like(w)], [w.detach().clone()]
    plane = landscape.plane(objective, u, v, a=(0.0, 5.0), b=(0.0, -1.0, 1.0))
    at = float(objective.loss())
    same(losses(plane), at * torch.tensor([[1.0, 1], [0, 0], [4, 4]]).double(), 1e-12)


def test_infinite_and_missing_losses_are_kept() -> None:
    model = nn.Linear(6, 1, bias=False).double()
    x = torch.ones(4, 6, dtype=torch.float64)
    objective = Objective(model, lambda out, _: torch.exp(out).mean(), [(x, x)])
    u = [torch.full_like(model.weight, 1e200)]
    line = landscape.line(objective, u, a=(-1.0, 0.0, 1.0))
    assert line.losses[0] == 0
    assert line.losses[2] == math.inf
    u = [torch.full_like(model.weight, math.nan)]
    line = landscape.line(objective, u, a=(0.0, 1.0))
    assert all(map(math.isnan, line.losses))
    assert all(map(math.isnan, Line.from_dict(line.to_dict()).losses))


# The fast ways.


@pytest.mark.parametrize("make", [dense, pictures], ids=["dense", "convnet"])
@pytest.mark.parametrize("how", [*WAYS, "auto"])
def test_every_way_equals_the_loop_by_hand(
    how: Any, make: Callable[[], Objective]
) -> None:
    objective = make()
    u, v = two(objective)
    with four_threads():
        plane = landscape.plane(objective, u, v, a=axis(5), how=how)
    same(losses(plane), by_hand(objective, u, v, axis(5)))


def way_of(objective: Objective, recalibrate: bool = False) -> str:
    grid = _grid.Grid(objective, two(objective), recalibrate, 2**30)
    with grid.way("auto", (1.0, 1.0)) as way:
        return way.name


def test_dense_models_are_stacked_and_convolutions_have_threads() -> None:
    assert way_of(dense()) == "stacked"
    assert way_of(pictures()) == "threads"
    assert way_of(dense(), recalibrate=True) == "threads"


def test_a_model_that_needs_its_channels_in_front_keeps_its_threads() -> None:
    objective = pictures(view=True)
    u, v = two(objective)
    assert way_of(objective) == "threads"
    plane = landscape.plane(objective, u, v, a=axis(3), how="threads")
    same(losses(plane), by_hand(objective, u, v, axis(3)))


def test_a_small_memory_leaves_the_loop_or_smaller_stacks() -> None:
    objective = dense()
    u, v = two(objective)
    size = sum(p.nbytes for p in objective.w)
    data = sum(t.nbytes for pair in images_flat(20) for t in pair)
    for memory in (1, data + 1, 7 * size):
        plane = landscape.plane(objective, u, v, a=axis(3), memory=memory)
        same(losses(plane), by_hand(objective, u, v, axis(3)))
    with pytest.raises(ValueError, match="how='stacked' does not give"):
        landscape.line(objective, u, how="stacked", memory=1)
    many = Objective(mlp(), cross_entropy, [(x[:2], y[:2]) for x, y in images_flat(2)])
    with four_threads(), pytest.raises(ValueError, match="how='threads' does not give"):
        landscape.line(many, u, how="threads", memory=2 * size)


def test_data_that_does_not_fit_is_read_anew_and_stacked_all_the_same() -> None:
    x, y = batch(torch.float64, n=400)
    data = list(zip(x.split(100), y.split(100), strict=True))
    objective = Objective(mlp(), cross_entropy, data)
    u, v = two(objective)
    memory = 10 * sum(p.nbytes for p in objective.w)
    assert memory < sum(t.nbytes for pair in data for t in pair)
    plane = landscape.plane(objective, u, v, a=axis(3), how="stacked", memory=memory)
    same(losses(plane), by_hand(objective, u, v, axis(3)))
    with pytest.raises(ValueError, match="how='threads'"):
        landscape.line(objective, u, how="threads", memory=memory)


def test_a_forward_that_has_the_model_from_elsewhere_is_noticed() -> None:
    model = convnet()
    objective = Objective(
        model,
        cross_entropy,
        images(),
        forward=lambda _, pair: (model(pair[0]), pair[1]),
    )
    u, v = two(objective)
    expected = by_hand(pictures(), u, v, axis(3))
    same(losses(landscape.plane(objective, u, v, a=axis(3))), expected)
    with pytest.raises(ValueError, match="how='threads'"):
        landscape.plane(objective, u, v, a=axis(3), how="threads")


class Branching(nn.Module):
    """What `vmap` refuses: a decision that depends on the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return out if self.layer.weight.sum() > 0 else -out


def test_what_vmap_refuses_is_done_another_way() -> None:
    objective = Objective(Branching(), cross_entropy, [batch(torch.float64)])
    u, v = two(objective)
    assert way_of(objective) == "threads"
    plane = landscape.plane(objective, u, v, a=axis(3))
    same(losses(plane), by_hand(objective, u, v, axis(3)))


DTYPES = (torch.int64, torch.uint8)


@pytest.mark.parametrize(
    "data",
    [
        [{"x": x, "y": y, "n": 8} for x, y in images(16)],
        [{"x": x, "y": y, "w": torch.ones(3)} for x, y in images()],
        [{"x": x, "y": y, str(k): y} for k, (x, y) in enumerate(images())],
        [{"x": x, "y": y, "c": torch.ones(())} for x, y in images()],
        [{"x": x, "y": y.to(DTYPES[k])} for k, (x, y) in enumerate(images(16))],
    ],
    ids=["a number", "another length", "other names", "no axis", "another dtype"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["stacked", "threads"])
def test_batches_that_cannot_be_cut_anew_are_kept(data: Any, how: Any) -> None:
    objective = Objective(
        convnet(),
        cross_entropy,
        data,
        forward=lambda model, batch: (model(batch["x"]), batch["y"].long()),
    )
    u, v = two(objective)
    found = landscape.plane(objective, u, v, a=axis(3), how=how)
    whole = Objective(
        convnet(), cross_entropy, [(one["x"], one["y"].long()) for one in data]
    )
    same(losses(found), by_hand(whole, u, v, axis(3)))


def test_batches_are_cut_to_what_the_cache_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The largest tensor of 8 images has 8 x 4 x 4 x 4 entries of 8 bytes.
    monkeypatch.setitem(_grid._TENSOR, "cpu", 3 * 4 * 4 * 4 * 8)
    model = convnet()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    objective = Objective(model, cross_entropy, images())
    u, v = two(objective)
    seen.clear()
    plane = landscape.plane(objective, u, v, a=axis(2), how="threads")
    assert set(seen[-7:]) == {3, 2}
    same(losses(plane), by_hand(objective, u, v, axis(2)))


# What is left alone.


@pytest.mark.parametrize("recalibrate", [False, True])
@pytest.mark.parametrize("how", WAYS)
def test_nothing_is_touched(how: Any, recalibrate: bool) -> None:
    if how == "stacked" and recalibrate:
        how = "auto"
    objective = pictures()
    u, v = two(objective)
    model = objective.model
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before, stream = snapshot(model), torch.get_rng_state()
    modes = [m.training for m in model.modules()]
    with untouched(model), four_threads():
        landscape.plane(objective, u, v, a=axis(3), how=how, recalibrate=recalibrate)
    after = snapshot(model)
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    assert torch.equal(torch.get_rng_state(), stream)
    assert [m.training for m in model.modules()] == modes
    assert all(
        bool((p.grad == 1).all()) for p in model.parameters() if p.grad is not None
    )
    assert model[1].momentum == 0.1  # pyright: ignore


@pytest.mark.parametrize("recalibrate", [False, True])
@pytest.mark.parametrize("how", ["loop", "threads"])
def test_nothing_is_touched_after_an_exception(how: Any, recalibrate: bool) -> None:
    passes = 0

    def criterion(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        if passes > 60:
            raise RuntimeError("enough")
        return cross_entropy(outputs, targets)

    objective = Objective(convnet(), criterion, images())
    u, v = two(objective)
    model = objective.model
    before = snapshot(model)
    with untouched(model), pytest.raises(RuntimeError, match="enough"), four_threads():
        landscape.plane(objective, u, v, how=how, recalibrate=recalibrate)
    after = snapshot(model)
    assert all(torch.equal(x, after[name]) for name, x in before.items())
    assert not any(m.training for m in model.modules())
    assert model[1].momentum == 0.1  # pyright: ignore
    assert threading.active_count() == 1


# Processes; two real ones are in tests/distributed/test_landscape.py.


@pytest.fixture
def one_process() -> Iterator[dist.ProcessGroup]:
    with OneProcess():
        yield dist.group.WORLD  # pyright: ignore


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


# BatchNorm.


@pytest.mark.parametrize("how", ["loop", "threads"])
def test_recalibrating_is_what_one_does_by_hand(how: Any) -> None:
    objective = pictures()
    u, v = two(objective)
    plane = landscape.plane(objective, u, v, a=axis(3), how=how, recalibrate=True)
    expected = []
    for b in axis(3):
        for a in axis(3):
            model = convnet()
            with torch.no_grad():
                for p, x, y in zip(model.parameters(), u, v, strict=True):
                    p.add_(a * x + b * y)
            torch.optim.swa_utils.update_bn(objective.data, model)
            expected.append(Objective(model.eval(), cross_entropy, images()).loss())
    same(losses(plane), torch.stack(expected).view(3, 3))
    plain = landscape.plane(objective, u, v, a=axis(3), how=how)
    assert (losses(plain) - losses(plane)).abs().max() > 0.01


def test_recalibrating_leaves_norm_layers_without_statistics_alone() -> None:
    model = convnet()
    model[1] = nn.BatchNorm2d(4, track_running_stats=False).double().eval()
    objective = Objective(model, cross_entropy, images()[:1])
    u = directions.random(objective, 0)
    lines = [
        landscape.line(objective, u, a=axis(3), recalibrate=yes)
        for yes in (True, False)
    ]
    same(losses(lines[0]), losses(lines[1]))


def test_recalibrating_refuses_what_would_mix_processes() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(convnet())
    objective = Objective(model, cross_entropy, images())
    u = directions.random(objective, 0)
    with pytest.raises(ValueError, match="SyncBatchNorm"):
        landscape.line(objective, u, recalibrate=True)


# Files.


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
        assert len(calls) == before


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


def images_flat(n: int) -> list[tuple[Tensor, Tensor]]:
    return [batch(torch.float64, n)]


# Records.


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


# Refusals.


def test_what_makes_no_sense_is_refused() -> None:
    objective = dense()
    u, v = two(objective)
    for attempt, message in (
        (lambda: axis(1), "at least 2 points"),
        (lambda: axis(3, -1.0), "positive radius"),
        (lambda: landscape.line(objective, u, a=()), "a must be finite numbers"),
        (lambda: landscape.plane(objective, u, v, b=(math.nan,)), "b must be finite"),
        (lambda: landscape.plane(objective, u, v[:-1]), "v must be one tensor per"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()


def test_the_axis_passes_through_the_middle() -> None:
    assert axis(5) == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert axis(3, 0.1) == (-0.1, 0.0, 0.1)
    assert len(axis()) == 31
