import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from flatmin.diagnostics.landscape import Plane
from flatmin.experiments import landscape
from flatmin.experiments.datasets import Tensors, flip_labels, load
from flatmin.experiments.models import build, small_convnet
from flatmin.experiments.runs.opened import Finished
from flatmin.experiments.runs.record import Run
from tests.experiments.helpers import Program, image_folder
from tests.experiments.loop.problems import standard
from tests.experiments.runs.folders import train_digits

#: What pictures call the runs.
SGD = "SGD 2x epochs, Digits, 40 % label noise"
SAM = "SAM, rho 0.05, Digits, 40 % label noise"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs, of which SGD's first is not finished."""
    root = train_digits(tmp_path_factory.mktemp("runs"))
    (root / "sgd/x1/seed-0/result.json").unlink()
    return root


def folder(runs: Path, arm: str) -> Path:
    return runs / arm / "seed-0"


def test_two_runs_are_drawn_and_their_losses_written(
    program: Program, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, said, err = program(
        "landscape", folder(runs, "sgd/x2"), folder(runs, "sam/x1"), "--points", 3,
        "--radius", 0.5, "--out", out,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert f"Page: {out}/landscape.html" in said
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "landscape.html",
        "landscape.json",
        "landscape.png",
        "landscape.svg",
    }
    records = json.loads((out / "landscape.json").read_text())
    assert list(records) == [SGD, SAM]
    plane = Plane.from_dict(records[SAM])
    assert plane.a == plane.b == (-0.5, 0.0, 0.5)
    assert plane.settings["run"] == SAM

    data = load("digits", tmp_path)
    assert isinstance(data.train, Tensors)
    model = small_convnet(1, 10, 4)
    model.load_state_dict(Run(folder(runs, "sam/x1")).weights())
    with torch.no_grad():
        outputs = model.eval()(standard(data.train.x, data))
    y = flip_labels(data.train.y, 0.4, 10, 0)
    expected = cross_entropy(outputs, y).item()
    assert plane.losses[1][1] == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_landscape_is_continued(
    program: Program, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    around = landscape.around

    def counted(run: Finished, *rest: Any, **more: Any) -> Plane:
        measured.append(run.method)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return around(run, *rest, **more)

    monkeypatch.setattr(landscape, "around", counted)
    both = folder(runs, "sgd/x2"), folder(runs, "sam/x1")
    arguments = ("landscape", *both, "--points", 3, "--out", tmp_path)
    assert program(*arguments)[0] == 130
    (part,) = tmp_path.glob(".plane-*.json")
    first = Plane.load(part)
    assert program(*arguments)[0] == 0
    assert measured == 2 * ["SGD 2x epochs", "SAM, rho 0.05"]
    records = json.loads((tmp_path / "landscape.json").read_text())
    assert Plane.from_dict(records[SGD]) == first
    assert not list(tmp_path.glob(".plane-*"))


def test_what_a_stopped_landscape_leaves_blocks_no_other(
    program: Program, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(run: Finished, at: Any, file: Path, **_: Any) -> Plane:
        around(run, at, file)
        raise KeyboardInterrupt

    run, out, around = folder(runs, "sam/x1"), ("--out", tmp_path), landscape.around
    with monkeypatch.context() as patched:
        patched.setattr(landscape, "around", stop)
        assert program("landscape", run, "--points", 2, *out)[0] == 130
    assert len(list(tmp_path.glob(".plane-*"))) == 1
    for other in (
        (run, "--points", 3),
        (folder(runs, "sgd/x2"), "--points", 2),
        (run, "--points", 2, "--radius", 0.5),
    ):
        code, _, err = program("landscape", *other, *out)
        assert (code, err) == (0, "")


def written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("landscape.*")}


def test_planes_without_a_finite_loss_are_refused_and_leave_the_old_ones(
    program: Program, runs: Path, tmp_path: Path
) -> None:
    arguments = ("landscape", folder(runs, "sam/x1"), "--points", 2, "--out", tmp_path)
    assert program(*arguments)[0] == 0
    old = written(tmp_path)
    code, _, err = program(*arguments, "--radius", 1e30)
    assert (code, err.count("\n")) == (2, 1)
    assert "within radius 1e+30 is a finite number. Give a smaller --radius" in err
    assert written(tmp_path) == old


@pytest.mark.parametrize("opened", ["file", "run"])
def test_a_landscape_is_not_drawn_among_the_images_of_its_networks(
    opened: str, program: Program, tmp_path: Path
) -> None:
    photos = image_folder(tmp_path / "photos", {"a": 6, "b": 6})
    if opened == "file":
        weights = tmp_path / "w.pth"
        torch.save(build("resnet-8", 2, 3, "none").state_dict(), weights)
        what = (weights, "--model", "resnet-8", "--data", photos, "--image-size", 12)
    else:
        settings = (f"data={photos}", "noise=0", "batch_size=4", "seeds=1")
        what = (train_digits(tmp_path / "runs", *settings, name="figure1/sam"),)
    before = sorted(photos.rglob("*"))
    code, _, err = program("landscape", *what, "--points", 2, "--out", photos / "land")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{photos / 'land'} is inside of the images' folder {photos}" in err
    assert sorted(photos.rglob("*")) == before


BAD: list[tuple[tuple[str, ...], str]] = [
    (("{empty}",), "is no folder of a run of flatmin train"),
    (("/",), "is no folder of a run of flatmin train"),
    (("{root}/sgd/x1",), "holds no finished run"),
    (("{root}/sam/x7",), "is no folder of a run of flatmin train"),
    (("{run}", "{run}"), "given twice"),
    (("{run}", "--points", "1"), "--points"),
    (("{run}", "--radius", "0"), "--radius must be finite"),
    (("{run}", "--radius", "nan"), "--radius must be finite and above 0, got nan."),
    ((), "Missing argument"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    program: Program,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    names = {"empty": tmp_path / "empty", "root": runs, "run": folder(runs, "sam/x1")}
    code, out, err = program("landscape", *(a.format(**names) for a in arguments))
    assert code == 2
    assert err.startswith("flatmin: ")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in out + err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_folder_above_some_runs_draws_all_of_them_but_not_too_many(
    program: Program, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("landscape", runs, "--points", 2, "--out", tmp_path / "o")
    monkeypatch.setattr(landscape, "_MOST", 1)
    code, _, err = program(*arguments)
    assert code == 2
    assert "these are 2 finished runs, and at most 1 are drawn" in err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(landscape, "_MOST", 2)
    assert program(*arguments)[0] == 0
    records = json.loads((tmp_path / "o" / "landscape.json").read_text())
    assert list(records) == [SAM, SGD]
