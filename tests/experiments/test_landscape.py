import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from flatmin.diagnostics.landscape import Plane
from flatmin.experiments import landscape
from flatmin.experiments.comparison import Run
from flatmin.experiments.config import ARMS
from flatmin.experiments.data import load
from flatmin.experiments.datasets import Tensors
from flatmin.experiments.finished import Finished
from flatmin.experiments.models import small_convnet
from flatmin.experiments.noise import flip_labels
from flatmin.experiments.store import RunStore
from tests.experiments.helpers import Program, tiny
from tests.experiments.loop.problems import standard, trained

#: What pictures call the runs.
SGD = "SGD 2x epochs, Digits, 40 % label noise"
SAM = "SAM, rho 0.5, Digits, 40 % label noise"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its first seed done, SGD without second half."""
    root = tmp_path_factory.mktemp("compare")
    config = tiny()
    data = load(config)
    settings = {"config": config.model_dump(mode="json"), "data_sha256": data.digest()}
    (root / "config.json").write_text(json.dumps(settings))
    for arm in ARMS:
        if arm.name != "sgd":
            run = Run(config, arm, 0.4, 0)
            trained(run.experiment, run.folder(root), data)
    return root


def folder(runs: Path, arm: str, seed: int = 0) -> Path:
    return runs / "noise-40" / arm / f"seed-{seed}"


def test_two_runs_are_drawn_and_their_losses_written(
    program: Program, runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, said, err = program(
        "landscape", folder(runs, "sgd-2x"), folder(runs, "sam"), "--points", 3,
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

    data = load(tiny())
    assert isinstance(data.train, Tensors)
    model = small_convnet(1, 10, tiny().width)
    model.load_state_dict(RunStore(folder(runs, "sam")).weights())
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
    both = folder(runs, "sgd-2x"), folder(runs, "sam")
    arguments = ("landscape", *both, "--points", 3, "--out", tmp_path)
    assert program(*arguments)[0] == 130
    part = tmp_path / ".plane-0.json"
    first = Plane.load(part)
    assert program(*arguments)[0] == 0
    assert measured == 2 * ["SGD 2x epochs", "SAM, rho 0.5"]
    records = json.loads((tmp_path / "landscape.json").read_text())
    assert Plane.from_dict(records[SGD]) == first
    assert not list(tmp_path.glob(".plane-*"))


BAD: list[tuple[tuple[str, ...], str]] = [
    (("{empty}",), "is no run folder of flatmin compare"),
    (("/",), "is no run folder of flatmin compare"),
    (("{root}/noise-40/sgd/seed-0",), "holds no finished run"),
    (("{root}/noise-40/sam/seed-7",), "holds no finished run"),
    (("{run}", "{run}"), "given twice"),
    (("{run}", "--points", "1"), "--points"),
    (("{run}", "--radius", "0"), "positive radius"),
    (("{run}", "--radius", "nan"), "positive radius"),
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
    names = {"empty": tmp_path / "empty", "root": runs, "run": folder(runs, "sam")}
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
    arguments = ("landscape", runs / "noise-40", "--points", 2, "--out", tmp_path / "o")
    monkeypatch.setattr(landscape, "_MOST", 1)
    code, _, err = program(*arguments)
    assert code == 2
    assert "these are 2 finished runs, and at most 1 are drawn" in err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(landscape, "_MOST", 2)
    assert program(*arguments)[0] == 0
    records = json.loads((tmp_path / "o" / "landscape.json").read_text())
    assert list(records) == [SGD, SAM]


def test_changed_images_and_damaged_folders_are_refused(
    program: Program, tmp_path: Path
) -> None:
    config = tiny(epochs=1)
    data = load(config)
    run = Run(config, ARMS[2], 0.4, 0)
    trained(run.experiment, run.folder(tmp_path), data)
    settings = {"config": config.model_dump(mode="json"), "data_sha256": "0"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    arguments = ("landscape", run.folder(tmp_path), "--out", tmp_path / "out")
    assert "the images are not those" in program(*arguments)[2]
    for damaged in ("{", "[]"):
        (tmp_path / "config.json").write_text(damaged)
        assert "config.json is damaged" in program(*arguments)[2]
