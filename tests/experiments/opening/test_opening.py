"""Which runs a folder holds, what they are called, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from flatmin.experiments.compare import compare
from flatmin.experiments.finished import names
from flatmin.experiments.opening import finished
from tests.experiments.helpers import Program, image_folder, tiny
from tests.experiments.opening.folders import experiment, leave, of_recipe

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("compared")
    images, root = image_folder(home / "images", {"a": 20, "b": 20}), home / "compare"
    small = {"data": str(images), "image_size": 8, "batch_size": 8}
    config = tiny(epochs=1, seeds=1, landscape_points=0, **small)
    compare(config, root, Console(quiet=True))
    return root


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def opened(*folders: Path) -> list[Path]:
    return [run.folder for run in finished(folders, NOWHERE)]


def test_a_folder_above_runs_opens_the_finished_ones_in_order(tmp_path: Path) -> None:
    root = of_recipe(tmp_path / "runs")
    for seed in (10, 9, 1, 2):
        leave(root / "table4" / "sam" / "x1" / f"seed-{seed}", experiment(seed=seed))
    arm = root / "table4" / "sam" / "x1"
    (arm / "seed-1" / "result.json").unlink()
    expected = [arm / f"seed-{seed}" for seed in (2, 9, 10)]
    for above in (root, root / "table4", arm):
        assert opened(above) == expected
    assert opened(arm / "seed-9") == [arm / "seed-9"]


def test_both_kinds_below_one_folder_are_opened(compared: Path, tmp_path: Path) -> None:
    root = of_recipe(tmp_path / "runs")
    shutil.copytree(compared, root / "compare")
    leave(root / "table4" / "sam", experiment())
    runs = [
        root / "compare" / "noise-40" / arm / "seed-0"
        for arm in ("sgd", "sgd-2x", "sam")
    ]
    assert opened(root) == [*runs, root / "table4" / "sam"]
    # A part of the comparison, though runs of flatmin train are above it too.
    assert opened(root / "compare" / "noise-40" / "sam") == [runs[2]]


def test_runs_are_named_by_as_little_as_tells_them_apart(tmp_path: Path) -> None:
    root = of_recipe(tmp_path / "runs")
    for where, fields in {
        "a/seed-0": {"noise": 0.0},
        "a/seed-1": {"noise": 0.0, "seed": 1},
        "b/x1/seed-0": {"noise": 0.0, "lr": 0.2},
        "c": {"method": "sgd", "noise": 0.0},
    }.items():
        leave(root / where, experiment(**fields))
    runs = finished([root], NOWHERE)
    assert names([runs[0], runs[3]]) == ["SAM, rho 0.05, Digits", "SGD, Digits"]
    assert names(runs[:2]) == [
        "SAM, rho 0.05, Digits, seed 0",
        "SAM, rho 0.05, Digits, seed 1",
    ]
    assert names(runs) == ["a/seed-0", "a/seed-1", "b/x1/seed-0", "c"]


def test_both_kinds_are_drawn_on_one_scale(
    compared: Path, program: Program, tmp_path: Path
) -> None:
    leave(tmp_path / "run", experiment())
    one = compared / "noise-40" / "sam" / "seed-0"
    code, _, err = program(
        "landscape", one, tmp_path / "run", "--points", 3, "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    records = json.loads((tmp_path / "out" / "landscape.json").read_text())
    assert list(records) == [
        "SAM, rho 0.5, images, 40 % label noise",
        "SAM, rho 0.05, Digits, 40 % label noise",
    ]


def test_runs_of_several_radii_are_measured_at_the_one_that_is_given(
    compared: Path, program: Program, tmp_path: Path
) -> None:
    leave(tmp_path / "run", experiment())
    both = compared / "noise-40" / "sam", tmp_path / "run"
    code, out, err = program("sharpness", *both)
    assert (code, out) == (2, "")
    assert "different radii (0.05, 0.5)" in err
    assert "--rho" in err
    code, out, _ = program("sharpness", *both, "--rho=0.1")
    assert code == 0
    titles, first, second = out.splitlines()
    assert titles.split()[:3] == ["noise", "method", "seed"]
    for row, folder in ((first, both[0] / "seed-0"), (second, both[1])):
        (alone,) = program("sharpness", folder, "--rho=0.1")[1].splitlines()[1:]
        assert row.split() == alone.split()


def test_rows_that_would_read_alike_have_their_paths(
    program: Program, tmp_path: Path
) -> None:
    root = of_recipe(tmp_path / "runs")
    for arm in ("x1", "x2"):
        leave(root / arm / "seed-0", experiment())
    code, out, _ = program("sharpness", root)
    assert code == 0
    titles, *rows = out.splitlines()
    assert titles.split()[0] == "run"
    assert [row.split()[0] for row in rows] == ["x1/seed-0", "x2/seed-0"]


def change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["experiment"] |= fields.pop("experiment", {})
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def bad_labels(run: Path) -> None:
    save_file({"y": torch.zeros(7, dtype=torch.int64)}, run / "labels.safetensors")


def bad_weights(run: Path) -> None:
    save_file({"w": torch.zeros(7)}, run / "weights.safetensors")


def large_images(run: Path) -> None:
    images = image_folder(run.parent / "images", {"a": 5, "b": 5}, size=80)
    change(run, experiment={"data": str(images), "train_examples": None})


DAMAGES = {
    "is damaged": lambda run: change(run, experiment={"epochs": -1}),
    "has no label for each of 16": bad_labels,
    "labels.safetensors cannot be read": lambda run: (
        run / "labels.safetensors"
    ).unlink(),
    "weights.safetensors cannot be read": lambda run: (
        run / "weights.safetensors"
    ).unlink(),
    "does not fit the run's network": bad_weights,
    "was trained on": lambda run: change(run, data_sha256="0"),
    "are read from files": large_images,
    "no such folder": lambda run: change(run, experiment={"data": "/no/such/images"}),
    "holds no finished run": lambda run: (run / "result.json").unlink(),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_what_cannot_be_measured_is_one_line_and_exit_code_2(
    message: str, program: Program, tmp_path: Path
) -> None:
    leave(tmp_path / "run", experiment())
    DAMAGES[message](tmp_path / "run")
    code, out, err = program("sharpness", tmp_path / "run")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_run_that_is_given_twice_is_refused(program: Program, tmp_path: Path) -> None:
    root = of_recipe(tmp_path / "runs")
    leave(root / "a", experiment())
    code, _, err = program("sharpness", root, root / "a")
    assert code == 2
    assert f"{root / 'a'} is given twice" in err


def test_what_lies_inside_of_a_run_is_none(program: Program, tmp_path: Path) -> None:
    leave(tmp_path / "run", experiment())
    (tmp_path / "run" / "teacher").mkdir()
    code, _, err = program("sharpness", tmp_path / "run" / "teacher")
    assert code == 2
    assert "teacher holds no finished run" in err


def test_a_folder_of_no_recipe_is_not_searched(
    program: Program, tmp_path: Path
) -> None:
    leave(tmp_path / "a" / "run", experiment())
    code, _, err = program("sharpness", tmp_path / "a")
    assert code == 2
    assert "is no run folder of flatmin compare or flatmin train" in err
