"""``flatmin sharpness``: the numbers of a run, in a table."""

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import (
    Objective,
    eigenvalues,
    m_sharpness,
    sharpness,
    trace,
    worst_sharpness,
)
from flatmin.experiments.compare import compare
from flatmin.experiments.comparison import grid
from flatmin.experiments.data import load
from flatmin.experiments.datasets import Tensors
from flatmin.experiments.measure import _ADAPTIVE
from flatmin.experiments.models import small_convnet
from flatmin.experiments.noise import flip_labels
from flatmin.experiments.store import RunStore
from tests.experiments.helpers import Program, tiny
from tests.experiments.loop.problems import standard


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("measure") / "run"
    config = tiny(epochs=1, seeds=1, landscape_points=0)
    compare(config, root, Console(quiet=True))
    return root


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def test_the_table_has_the_numbers_of_the_diagnostics(
    finished: Path, program: Program
) -> None:
    code, out, err = program("sharpness", finished, "--rho=0.1", "--m=4")
    assert (code, err) == (0, "")
    titles, *rows = out.splitlines()
    assert "sharpness 0.1" in titles
    assert len(rows) == 3
    config = tiny(epochs=1, seeds=1, landscape_points=0)
    data = load(config)
    assert isinstance(data.train, Tensors)
    for run, row in zip(grid(config), rows, strict=True):
        model = small_convnet(1, 10, config.width)
        model.load_state_dict(RunStore(run.folder(finished)).weights())
        y = flip_labels(data.train.y, 0.4, 10, 0)
        whole = [(standard(data.train.x, data), y)]
        objective = Objective(model.eval(), cross_entropy, whole)
        expected = [
            sharpness(objective, 0.1),
            worst_sharpness(objective, 0.1),
            m_sharpness(objective, 0.1, 4),
            sharpness(objective, 0.1, within=_ADAPTIVE),
            eigenvalues(objective, 1),
            trace(objective, draws=30),
        ]
        assert run.arm.label in row
        found = [float(number) for number in row.split()[-6:]]
        assert found == pytest.approx([one.value for one in expected], rel=2e-3)


def test_a_part_of_a_run_may_be_measured(finished: Path, program: Program) -> None:
    code, out, _ = program("sharpness", finished / "noise-40" / "sam" / "seed-0")
    assert code == 0
    titles, row = out.splitlines()
    # The radius that the comparison measures with.
    assert "sharpness 0.5" in titles
    assert "SAM" in row
    stored = RunStore(finished / "noise-40" / "sam" / "seed-0").result() or {}
    assert float(row.split()[-6]) == pytest.approx(stored["sharpness"], rel=2e-3)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--rho=0", "--rho must be finite and above 0, got 0."),
        ("--rho=nan", "--rho must be finite and above 0, got nan."),
        ("--m=0", "--m must be at least 1, got 0."),
        ("--rho=1e30", "cannot be measured: the loss is "),
    ],
)
def test_impossible_options_are_one_line_and_exit_code_2(
    finished: Path, program: Program, option: str, message: str
) -> None:
    code, out, err = program("sharpness", finished, option)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_what_is_no_run_folder_is_refused(tmp_path: Path, program: Program) -> None:
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    code, _, err = program("sharpness", deep)
    assert code == 2
    assert "is no run folder of flatmin compare" in err


def test_an_unfinished_run_is_refused(
    finished: Path, tmp_path: Path, program: Program
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    for result in copy.rglob("result.json"):
        result.unlink()
    code, _, err = program("sharpness", copy)
    assert code == 2
    assert "holds no finished run" in err


@pytest.mark.parametrize("content", ["{}", "[]", '{"config": {"epochs": -1}}'])
def test_a_damaged_configuration_is_refused(
    tmp_path: Path, program: Program, content: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    code, _, err = program("sharpness", tmp_path)
    assert code == 2
    assert "config.json is damaged" in err


def test_changed_images_are_refused(
    finished: Path, tmp_path: Path, program: Program
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    stored = json.loads((copy / "config.json").read_text())
    stored["data_sha256"] = "0" * 64
    (copy / "config.json").write_text(json.dumps(stored))
    code, _, err = program("sharpness", copy)
    assert code == 2
    assert "the images are not those" in err
