"""The program as a whole: help, versions, completion, JSON, paths, encodings, pipes."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from flatmin.experiments.cli.app import COMMANDS, app
from flatmin.experiments.cli.options import field_names, recipe_names
from flatmin.experiments.cli.output import fit_encoding, print_json
from flatmin.experiments.config import SETTABLE
from flatmin.experiments.recipes import RECIPES
from flatmin.methods import METHODS
from tests.experiments.helpers import Program

NAMES = [command.__name__ for command in COMMANDS]
EXAMPLES = [line for lines in COMMANDS.values() for line in lines]
LONG = "9" * 5000


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_examples(
    name: str, flag: str, program: Program
) -> None:
    code, out, err = program(name, flag)
    assert (code, err) == (0, "")
    _, _, examples = out.partition("Examples:\n")
    lines = [line.strip() for line in examples.splitlines()]
    assert 2 <= len(lines) <= 3
    assert all(line.startswith(f"flatmin {name}") for line in lines)
    assert all(len(line) <= 80 for line in out.splitlines())
    assert out.isascii()


def test_without_a_command_the_commands_are_listed(program: Program) -> None:
    (code, out, err), short = program(), program("-h")
    assert (code, err) == (0, "")
    assert short == (code, out, err)
    listed = out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == NAMES


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_commands(example: str) -> None:
    words = shlex.split(example.partition(" > ")[0])[1:]
    group: Any = typer.main.get_command(app)
    command = group.commands[words[0]]
    assert command.make_context(words[0], words[1:]) is not None


def test_versions_are_one_line(program: Program) -> None:
    code, out, err = program("--version")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert [word.split()[0] for word in line.split(", ")] == [
        "flatmin",
        "torch",
        "python",
    ]


def test_the_tab_key_completes_recipes_and_fields() -> None:
    assert recipe_names("figure3") == ["figure3-left", "figure3-middle"]
    assert field_names("rh") == ["rho="]
    assert field_names("see") == ["seeds="]


def test_bash_is_told_what_can_follow(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_FLATMIN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "flatmin train figure3")
    monkeypatch.setenv("COMP_CWORD", "2")
    code, out, err = program()
    assert (code, err) == (0, "")
    assert out.split() == ["figure3-left", "figure3-middle"]


@pytest.mark.parametrize("name", NAMES)
def test_data_means_the_same_everywhere(name: str) -> None:
    group: Any = typer.main.get_command(app)
    data = [one for one in group.commands[name].params if one.name == "data"]
    for one in data:
        assert (one.opts, one.envvar) == (["--data"], "FLATMIN_DATA")
        assert one.help == "Where the data sets are."
        assert str(one.default) == "data"


# JSON


def test_methods_as_json(program: Program) -> None:
    code, out, err = program("methods", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [one["name"] for one in found] == list(METHODS)
    assert found[0]["gradients"] == METHODS["sam"].gradients
    assert found[0]["summary"]


def test_recipes_as_json(program: Program) -> None:
    code, out, err = program("recipes", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [one["name"] for one in found] == list(RECIPES)
    assert found[0] == {
        "name": "table1",
        "title": "CIFAR-10 and CIFAR-100, test error in %",
        "cells": 60,
        "runs": 450,
    }


def test_a_recipe_as_json(program: Program) -> None:
    code, out, err = program("recipes", "table4/noise-40/sam", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    (cell,) = found["cells"]
    assert (found["name"], found["seeds"]) == ("table4", 5)
    assert (cell["name"], cell["paper"]["value"]) == ("table4/noise-40/sam", 93.4)
    assert cell["arms"][0]["noise"] == 0.4


def test_every_field_is_listed_with_its_meaning(program: Program) -> None:
    code, out, err = program("fields", "--json")
    assert (code, err) == (0, "")
    found = {one.pop("name"): one for one in json.loads(out)}
    assert list(found) == list(SETTABLE)
    assert all(one["meaning"] for one in found.values())
    assert found["rho"] == {
        "type": "number >= 0, <= 1e+30",
        "default": 0.05,
        "meaning": "radius of the perturbation. 0.05 is the paper's advice.",
    }
    assert found["clip"]["type"] == "number > 0, <= 1e+30 or null"
    assert found["optimizer"]["type"] == "sgd, adam or adamw"
    assert found["spectrum_at"]["type"] == "list of integer"
    assert found["seeds"]["type"] == "integer >= 1, <= 10,000"


def test_fields_fit_a_terminal(program: Program) -> None:
    code, out, err = program("fields")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "rho: number >= 0, <= 1e+30; default 0.05" in lines
    names = [line.partition(":")[0] for line in lines if not line.startswith(" ")]
    assert names == list(SETTABLE)


def test_json_has_null_for_what_is_no_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"a": [float("nan"), 1.5], "b": ({"c": float("inf")},), "d": "x y" * 99})
    found = json.loads(capsys.readouterr().out)
    assert found == {"a": [None, 1.5], "b": [{"c": None}], "d": "x y" * 99}


# Options and paths


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["landscape", "x", "--points=1"],
            "'--points': Input should be greater than or equal to 2",
        ),
        (["landscape", "x", f"--points={LONG}"], "'--points'"),
        (
            ["landscape", "x", "--points=1e3"],
            "'--points': Input should be a valid integer",
        ),
        (
            ["landscape", "x", "--points="],
            "'--points': Input should be a valid integer",
        ),
        (["landscape", "x", "--radius=nan"], "--radius must be finite"),
        (["landscape", "x", "--radius=inf"], "--radius must be finite"),
        (["landscape", "x", "--radius=-1"], "--radius must be finite"),
        (["landscape", "x", "--radius=-0"], "--radius must be finite"),
        (["landscape", "x", f"--radius={'x ' * 9999}"], "'--radius'"),
        (["sharpness", "x", f"--rho={LONG}"], "--rho must be finite"),
        (["sharpness", "x", "--rho=-1e999"], "--rho must be finite"),
        (["sharpness", "x", f"--m={LONG}"], "'--m'"),
        (["sharpness", "x", "--m=10000000000000000000000"], "--m must be at most"),
        (["sharpness", "x", "--m=-1"], "--m must be at least 1"),
        (
            ["sweep", "c4", "--workers=0"],
            "'--workers': Input should be greater than or equal to 1",
        ),
        (
            ["sweep", "c4", "--workers=99999"],
            "'--workers': Input should be less than or equal to 256",
        ),
        (
            ["sweep", "c4", "--workers=two"],
            "'--workers': Input should be a valid integer",
        ),
        ([f"{'x' * 9999}"], "No such command"),
        (["train", "c4", f"--{'x' * 9999}"], "No such option"),
        (["train", "c4", *["word"] * 9999], "unexpected extra argument"),
        (["train", "c" * 9999], "unknown recipe"),
        (["train", f"table4/{'x' * 9999}"], "unknown cell"),
        (["train", "\udcff"], r"an argument is not UTF-8: '\udcff'"),
        (["train"], "Missing argument"),
    ],
)
def test_a_bad_argument_is_one_short_line(
    arguments: list[str], message: str, program: Program
) -> None:
    code, out, err = program(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("flatmin: ")
    assert message in line
    assert len(line) < 1000
    assert max(map(len, line.split())) <= 200


@pytest.mark.parametrize("option", ["--out", "--data"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "is a file, not a folder"),
        ("file/below", "is a file, not a folder"),
        ("a\nb", "has signs that cannot be printed"),
        ("a\x1b[31mb", "has signs that cannot be printed"),
        ("\udcff", "an argument is not UTF-8"),
    ],
)
def test_a_path_that_cannot_be_used_is_one_line(
    option: str, name: str, message: str, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    code, out, err = program("train", "c4", "--smoke", f"{option}={tmp_path}/{name}")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_one_line(program: Program) -> None:
    code, _, err = program("train", "c4", "--smoke", "--out=/dev/null/runs")
    assert code == 2
    (line,) = err.splitlines()
    assert "/dev/null/runs" in line


def test_the_environment_is_checked_too(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLATMIN_DATA", "a\nb")
    code, out, err = program("train", "c4")
    assert (code, out) == (2, "")
    assert "cannot be printed" in err


# Encodings and pipes


def test_what_an_encoding_lacks_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    fit_encoding()
    try:
        Console().print("93.1 ± 0.2, ≤ 3 → é")
    except UnicodeEncodeError as error:
        raise AssertionError("a sign ends the program") from error
    sys.stdout.write("±\n")
    sys.stdout.flush()
    assert raw.getvalue() == b"93.1 +- 0.2, <= 3 -> ?\n+-\n"


def started(
    arguments: list[str], stdout: int, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "flatmin", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, **variables},
    )


def test_an_ascii_terminal_shows_a_recipe() -> None:
    done = started(["recipes", "table1"], subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"+- is the paper's" in done.stdout


@pytest.mark.parametrize("command", ["methods", "recipes --json", "-h"])
def test_nobody_reads_and_nothing_is_said(command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = started(command.split(), write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("stream", "arguments", "code"),
    [("stdout", ("fields",), 0), ("stderr", ("report", "nowhere"), 2)],
)
def test_a_stream_that_was_closed_before_the_start_is_no_error(
    stream: str,
    arguments: tuple[str, ...],
    code: int,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, stream, None)
    assert program(*arguments) == (code, "", "")
    getattr(sys, stream).close()
