"""Which runs a folder holds, what they are called, and what is refused."""

import json
from pathlib import Path

import pytest

from flatmin.experiments.runs.opened import finished, names
from tests.experiments.helpers import Program, unreadable
from tests.experiments.runs.folders import experiment, leave, of_recipe

NOWHERE = Path("nowhere")


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


def test_runs_of_two_recipes_are_drawn_on_one_scale(
    program: Program, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two" / "run"
    leave(one, experiment(noise=0.0))
    leave(two, experiment())
    code, _, err = program(
        "landscape", one, two, "--points", 3, "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    records = json.loads((tmp_path / "out" / "landscape.json").read_text())
    assert list(records) == [
        "SAM, rho 0.05, Digits",
        "SAM, rho 0.05, Digits, 40 % label noise",
    ]


def test_runs_of_several_radii_are_measured_at_the_one_that_is_given(
    program: Program, tmp_path: Path
) -> None:
    both = tmp_path / "one", tmp_path / "two"
    leave(both[0], experiment(flatness_rho=0.5))
    leave(both[1], experiment(noise=0.2))
    code, out, err = program("sharpness", *both)
    assert (code, out) == (2, "")
    assert "different radii (0.05, 0.5)" in err
    assert "--rho" in err
    code, out, _ = program("sharpness", *both, "--rho=0.1")
    assert code == 0
    titles, first, second = out.splitlines()
    assert titles.split()[:3] == ["noise", "method", "seed"]
    for row, folder in ((first, both[0]), (second, both[1])):
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


def test_a_single_run_has_the_name_of_its_folder(
    program: Program, tmp_path: Path
) -> None:
    root = of_recipe(tmp_path / "runs")
    leave(root / "x1" / "seed-0", experiment())
    code, out, _ = program("sharpness", root, "--json")
    assert (code, [one["run"] for one in json.loads(out)]) == (0, ["seed-0"])


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
    assert "is no folder of a run of flatmin train" in err


@pytest.mark.parametrize("closed", ["", "table4", "table4/sam/x1", "table4/sam/y"])
def test_a_folder_that_cannot_be_read_hides_no_run(
    closed: str, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = of_recipe(tmp_path / "runs")
    leave(root / "table4" / "sam" / "x1" / "seed-0", experiment())
    (root / "table4" / "sam" / "y").mkdir()
    unreadable(root / closed, monkeypatch)
    code, out, err = program("sharpness", root, "--json")
    assert (code, out) == (2, "")
    assert err == f"flatmin: cannot read '{root / closed}': Permission denied.\n"


def test_a_folder_above_need_not_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = of_recipe(tmp_path / "another" / "runs")
    run = root / "table4" / "sam" / "x1" / "seed-0"
    leave(run, experiment())
    unreadable(tmp_path / "another", monkeypatch)
    assert opened(root / "table4") == [run]
