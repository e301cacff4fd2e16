"""Data bases that are away, damaged or another program's: one line each."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flatmin.experiments.sweep import _storage, sweep
from tests.experiments.helpers import Program
from tests.experiments.sweep.helpers import CELL, home, quiet, smoke

#: A sweep of one point with two seeds.
SETTINGS = ("rho=[0.1]", "seeds=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep; its data base is put back after each test."""
    out = tmp_path_factory.mktemp("trained")
    assert sweep(smoke(out, *SETTINGS), quiet())
    return out


@pytest.fixture
def out(trained: Path) -> Iterator[Path]:
    base = home(trained) / "study.db"
    content = base.read_bytes()
    yield trained
    base.write_bytes(content)


@contextmanager
def opened(base: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(base)) as connection, connection:
        yield connection


def changed(out: Path, *statements: str) -> None:
    with opened(home(out) / "study.db") as base:
        for statement in statements:
            base.execute(statement)


def refused(program: Program, out: Path, *arguments: object) -> str:
    """What a sweep says that is refused with one line."""
    settings = [f"--set={setting}" for setting in SETTINGS]
    words = ("sweep", CELL, "--smoke", "--out", out, *settings, *arguments)
    code, _, err = program(*words)
    assert code == 2, err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////nowhere/at/all.db", "sqlite:////nowhere/at/all.db: unable to op"),
        ("nonsense", "cannot use the data base of --storage: this is no URL"),
        ("postgresql+nodriver://me:secret@host/base", "me:***@host/base: "),
    ],
)
def test_a_data_base_that_cannot_be_reached_is_one_line(
    url: str, words: str, program: Program, tmp_path: Path
) -> None:
    err = refused(program, tmp_path, "--storage", url)
    assert words in err
    assert "secret" not in err


def test_a_password_is_not_shown_though_the_data_base_says_it() -> None:
    said = RuntimeError("no such user: me:secret")
    url = "postgresql+psycopg://me:secret@host/base"
    assert "secret" not in str(_storage.refusal(url, said))


@pytest.mark.parametrize("value", [None, '"text"', "[1.0]", "[1.0, null]", "{", "1"])
def test_errors_that_are_none_are_one_line(
    value: str | None, program: Program, out: Path
) -> None:
    table = "trial_user_attributes"
    if value is None:
        changed(out, f"DELETE FROM {table}")
    else:
        changed(out, f"UPDATE {table} SET value_json = '{value}'")
    err = refused(program, out)
    assert f"the study {home(out) / 'study.db'} is damaged: " in err
    assert "Remove it and start again: runs that are finished are kept." in err


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trial_params SET param_value = -3",
        "UPDATE trial_params SET param_name = 'lr'",
        "UPDATE trial_params SET distribution_json = '{}'",
        "UPDATE trial_params SET distribution_json = 'no'",
    ],
)
def test_a_trial_outside_of_the_grid_is_one_line(
    statement: str, program: Program, out: Path
) -> None:
    changed(out, statement)
    assert "trial" in refused(program, out)


@pytest.mark.parametrize("table", sorted(_storage._TABLES))
def test_a_table_that_was_dropped_is_one_line(
    table: str, program: Program, out: Path
) -> None:
    changed(out, f"DROP TABLE {table}")
    assert f"it has no table {table}" in refused(program, out)


def test_a_damaged_study_is_made_again_from_its_runs(
    out: Path, program: Program
) -> None:
    changed(out, "DROP TABLE trials")
    (home(out) / "study.db").unlink()
    times = {p: p.stat().st_mtime_ns for p in home(out).rglob("result.json")}
    assert sweep(smoke(out, *SETTINGS), quiet())
    assert {p: p.stat().st_mtime_ns for p in home(out).rglob("result.json")} == times


def test_the_data_base_of_another_program_is_left_alone(
    program: Program, tmp_path: Path
) -> None:
    path = tmp_path / "albums.db"
    with opened(path) as base:
        base.execute("CREATE TABLE albums (name TEXT)")
    before = path.read_bytes()
    err = refused(program, tmp_path / "out", "--storage", f"sqlite:///{path}")
    assert "is another program's, or damaged" in err
    assert path.read_bytes() == before


def test_a_file_that_is_no_data_base_is_one_line(
    program: Program, tmp_path: Path
) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("years of work " * 100)
    err = refused(program, tmp_path / "out", "--storage", f"sqlite:///{path}")
    assert "file is not a database" in err
    assert path.read_text() == "years of work " * 100


def test_a_data_base_that_is_locked_is_one_line(
    program: Program, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_storage, "PATIENCE", 0.1)
    path = home(out) / "study.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("BEGIN EXCLUSIVE")
        err = refused(program, out)
        base.execute("ROLLBACK")
    assert "database is locked" in err
    assert "the same command continues" in err.lower()


def test_a_data_base_that_cannot_be_written_is_one_line(
    program: Program, out: Path
) -> None:
    path = home(out) / "study.db"
    changed(out, "UPDATE trials SET state = 'WAITING'")
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    err = refused(program, out, "--storage", url)
    assert "readonly" in err
    assert os.access(path, os.R_OK)


def test_a_data_base_that_fails_during_training_is_one_line(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped(*_: object) -> dict[str, float]:
        changed(tmp_path, "DROP TABLE trials")
        return {"test_error": 1.0}

    monkeypatch.setattr("flatmin.experiments.sweep.train_job", dropped)
    settings = [f"--set={setting}" for setting in SETTINGS[:1]]
    words = ("sweep", CELL, "--smoke", "--out", tmp_path, *settings)
    code, _, err = program(*words)
    assert (code, err.count("\n")) == (2, 1), err
    assert "no such table: trials" in err


def test_the_folder_of_another_experiment_is_one_line(
    program: Program, tmp_path: Path
) -> None:
    assert sweep(smoke(tmp_path, "rho=[0.1]", "lr=0.3"), quiet())
    (home(tmp_path) / "study.db").unlink()
    err = refused(program, tmp_path, "--set", "lr=0.4")
    assert "rho-0.1/seed-0 holds another experiment (different: lr)" in err
