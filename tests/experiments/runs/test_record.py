"""A run's folder: what is written comes back, and belongs to one experiment."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import flatmin
from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs import environment
from flatmin.experiments.runs.files import read_json, write
from flatmin.experiments.runs.record import Run
from tests.experiments.loop.problems import pictures, small
from tests.problems import refusal


def epoch(number: int) -> dict[str, Any]:
    return {
        "epoch": number,
        "step": 3 * number,
        "test_error": 50.0,
        "gradient_examples": 24 * number,
    }


RESULT = {"test_error": 1.0, "gradient_examples": 48, "seconds": 1.5}


def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "file.txt"
    write(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*a/file\.txt"):
        write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_the_half_written_file_does_not_stay_under_its_name(tmp_path: Path) -> None:
    write(tmp_path / "x", b"bytes")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("text", ['{"a": 1', "[" * 100_000, "\udcff", ""])
def test_damaged_json_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=r"result\.json is damaged\. Remove it"):
        read_json(tmp_path / "result.json")


def test_a_folder_belongs_to_one_experiment(tmp_path: Path) -> None:
    data = pictures()
    Run(tmp_path).claim(small(), data)
    Run(tmp_path).claim(small(), data)
    with pytest.raises(
        BadInput, match=r"another experiment \(different: rho, epochs\)"
    ):
        Run(tmp_path).claim(small(rho=0.1, epochs=9), data)
    with pytest.raises(BadInput, match=r"different: the images"):
        Run(tmp_path).claim(small(), pictures(n=25))
    with pytest.raises(BadInput, match=r"different: world"):
        Run(tmp_path).claim(small(), data, world=2)
    assert Run(tmp_path).config.experiment == small()


@pytest.mark.parametrize(
    "added", ["weights_sha256", "world", "images", "ema", "true_class", "epochs", "m"]
)
def test_a_run_of_an_older_version_without_a_setting_goes_on(
    added: str, tmp_path: Path
) -> None:
    Run(tmp_path).claim(small(epochs=200), pictures())
    stored = json.loads((tmp_path / "config.json").read_text())
    (stored if added in stored else stored["experiment"]).pop(added)
    (tmp_path / "config.json").write_text(json.dumps(stored))
    default = Experiment.model_fields["epochs"].default
    again = small(epochs=default)
    assert refusal(lambda: Run(tmp_path).claim(again, pictures())) == ""
    with pytest.raises(BadInput, match=r"\(different: lr\)"):
        Run(tmp_path).claim(small(epochs=default, lr=3.0), pictures())


def test_a_setting_that_an_older_version_lacked_has_its_default(tmp_path: Path) -> None:
    Run(tmp_path).claim(small(true_class=True), pictures())
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["experiment"]["true_class"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(BadInput, match=r"\(different: true_class\)"):
        Run(tmp_path).claim(small(true_class=True), pictures())


@pytest.mark.parametrize("one", [{"width": None}, {"width": 4}])
def test_an_option_that_is_none_is_not_an_option_that_is_absent(
    one: dict[str, Any], tmp_path: Path
) -> None:
    Run(tmp_path).claim(small(model_options=one), pictures())
    with pytest.raises(BadInput, match=r"\(different: width\)"):
        Run(tmp_path).claim(small(), pictures())


def test_a_setting_of_another_version_is_named(tmp_path: Path) -> None:
    Run(tmp_path).claim(small(), pictures())
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["experiment"]["of_tomorrow"] = 3
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(BadInput, match=r"field experiment\.of_tomorrow, which flatmin"):
        Run(tmp_path).claim(small(), pictures())


def test_somebodys_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="not empty and no run folder"):
        Run(tmp_path).claim(small(), pictures())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_that_was_killed_at_once_can_be_repeated(tmp_path: Path) -> None:
    for name in (".lock", ".config.json.part"):
        (tmp_path / name).write_text("")
    Run(tmp_path).claim(small(), pictures())
    assert Run(tmp_path).config.data_sha256 == pictures().digest()


def test_every_start_notes_its_environment(tmp_path: Path) -> None:
    Run(tmp_path).claim(small(), pictures())
    path = tmp_path / "environment.jsonl"
    path.write_text(path.read_text() + '{"cut sh')
    Run(tmp_path).claim(small(), pictures())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["torch"] for line in lines] == 2 * [torch.__version__]
    assert Run(tmp_path).starts() == lines


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", "-C", folder, *who, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_start_notes_the_commit_of_a_checkout_and_whether_it_was_changed(
    tmp_path: Path,
) -> None:
    package = tmp_path / "src" / "flatmin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    assert environment.source(package) == (None, None)
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("beside the package")
    environment.source.cache_clear()
    assert environment.source(package) == (commit, False)
    (package / "new.py").write_text("")
    environment.source.cache_clear()
    assert environment.source(package) == (commit, True)


def test_a_package_inside_of_somebodys_checkout_has_no_commit(tmp_path: Path) -> None:
    package = tmp_path / ".venv" / "flatmin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "thesis.tex").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "thesis.tex")
    git(tmp_path, "commit", "-q", "-m", "one")
    assert environment.source(package) == (None, None)


def test_a_start_is_noted_where_there_is_no_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    environment.source.cache_clear()
    noted = environment.start()
    environment.source.cache_clear()
    assert (noted["commit"], noted["modified"]) == (None, None)
    assert noted["flatmin"] == flatmin.__version__


def test_a_line_cut_short_is_no_test(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.append(epoch(1))
    run.append(epoch(2))
    run.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-4])
    assert run.metrics() == [epoch(1)]
    run.keep(run.metrics()[:1])
    run.append(epoch(2))
    run.close()
    assert run.metrics() == [epoch(1), epoch(2)]


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 4).T, "b": torch.tensor(7)}
    run = Run(tmp_path)
    assert run.result() is None
    run.finish(weights, RESULT)
    assert all(torch.equal(w, run.weights()[name]) for name, w in weights.items())
    assert run.result() == RESULT


@pytest.mark.parametrize("damage", [None, b"", b"\x08\0\0\0\0\0\0\0{broken}"])
def test_weights_that_cannot_be_read_are_named(
    damage: bytes | None, tmp_path: Path
) -> None:
    if damage is not None:
        (tmp_path / "weights.safetensors").write_bytes(damage)
    with pytest.raises(BadInput, match=r"weights\.safetensors cannot be read"):
        Run(tmp_path).weights()


def test_all_file_names_of_a_run_stay_in_its_folder(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.append(epoch(1))
    run.close()
    run.keep_labels(torch.arange(3))
    run.finish({"w": torch.zeros(1)}, RESULT)
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
