"""``flatmin sharpness``: the numbers of a run, in a table."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flatmin.diagnostics import (
    Objective,
    eigenvalues,
    m_sharpness,
    sharpness,
    trace,
    worst_sharpness,
)
from flatmin.experiments.datasets import Tensors, flip_labels, load
from flatmin.experiments.measure import _ADAPTIVE
from flatmin.experiments.models import small_convnet
from flatmin.experiments.runs.record import Run
from tests.experiments.helpers import Program
from tests.experiments.loop.problems import standard
from tests.experiments.runs.folders import train_digits


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_digits(tmp_path_factory.mktemp("measure"))


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
    data = load("digits", finished)
    assert isinstance(data.train, Tensors)
    found = {"SAM": "sam/x1", "SGD": "sgd/x1", "SGD 2x epochs": "sgd/x2"}
    assert len(rows) == len(found)
    for (label, folder), row in zip(found.items(), rows, strict=True):
        model = small_convnet(1, 10, 4)
        model.load_state_dict(Run(finished / folder / "seed-0").weights())
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
        assert label in row
        numbers = [float(number) for number in row.split()[-6:]]
        assert numbers == pytest.approx([one.value for one in expected], rel=2e-3)


def test_json_has_the_numbers_of_the_table(finished: Path, program: Program) -> None:
    run = finished / "sam" / "x1" / "seed-0"
    code, out, err = program("sharpness", run, "--m=4", "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)
    stored = Run(run).result() or {}
    assert found["sharpness"] == pytest.approx(stored["sharpness"], rel=2e-3)
    assert [found[name] for name in ("noise", "seed", "rho", "m")] == [0.4, 0, 0.5, 4]
    _, row = program("sharpness", run, "--m=4")[1].splitlines()
    numbers = [f"{value:.4g}" for value in list(found.values())[-6:]]
    assert row.split()[-6:] == numbers


def test_the_adaptive_column_is_blind_to_the_scale_of_layers() -> None:
    model = small_convnet(1, 10, 4).double().eval()
    other = copy.deepcopy(model)
    norms = [m for m in other.modules() if isinstance(m, nn.BatchNorm2d)]
    head = next(m for m in other.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        norms[-1].weight.mul_(7)
        norms[-1].bias.mul_(7)
        head.weight.div_(7)
    data = [(torch.randn(8, 1, 8, 8).double(), torch.arange(8))]
    one, two = (
        sharpness(Objective(each, cross_entropy, data), 0.1, within=_ADAPTIVE).value
        for each in (model, other)
    )
    assert one == pytest.approx(two, rel=1e-9)


def test_one_run_may_be_measured(finished: Path, program: Program) -> None:
    run = finished / "sam" / "x1" / "seed-0"
    code, out, _ = program("sharpness", run)
    assert code == 0
    titles, row = out.splitlines()
    # The radius that the run itself was measured with.
    assert "sharpness 0.5" in titles
    assert "SAM" in row
    stored = Run(run).result() or {}
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
    assert "is no folder of a run of flatmin train" in err
