import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from flatmin.experiments.config import Comparison
from flatmin.experiments.errors import BadInput
from flatmin.experiments.store import (
    Busy,
    RunStore,
    claim,
    in_turn,
    locked,
    read_json,
    write,
)
from tests.experiments.helpers import tiny


def settings(config: Comparison, digest: str) -> dict[str, Any]:
    return {"config": config.model_dump(mode="json"), "data_sha256": digest}


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a" / "file.txt"
    write(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, "new")
    assert path.read_text() == "old"


def test_the_half_written_file_does_not_stay_under_its_name(tmp_path: Path) -> None:
    write(tmp_path / "x", b"bytes")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"test_error": 1')
    with pytest.raises(BadInput, match=r"result\.json is damaged"):
        read_json(tmp_path / "result.json")


def test_a_folder_belongs_to_one_comparison(tmp_path: Path) -> None:
    claim(tmp_path, settings(tiny(), "abc"))
    claim(tmp_path, settings(tiny(), "abc"))
    with pytest.raises(
        BadInput, match=r"another experiment \(different: epochs, rho\)"
    ):
        claim(tmp_path, settings(tiny(rho=0.1, epochs=9), "abc"))
    with pytest.raises(BadInput, match=r"different: the images"):
        claim(tmp_path, settings(tiny(), "xyz"))


def test_somebodys_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadInput, match="not empty and no run folder"):
        claim(tmp_path, settings(tiny(), "abc"))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_that_was_killed_at_once_can_be_repeated(tmp_path: Path) -> None:
    for name in (".lock", ".config.json.part"):
        (tmp_path / name).write_text("")
    claim(tmp_path, settings(tiny(), "abc"))
    assert read_json(tmp_path / "config.json")["data_sha256"] == "abc"


def test_every_start_notes_its_environment(tmp_path: Path) -> None:
    claim(tmp_path, settings(tiny(), "abc"))
    claim(tmp_path, settings(tiny(), "abc"))
    lines = (tmp_path / "environment.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0])["torch"] == torch.__version__


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; "
        "from flatmin.experiments.store import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BadInput, match="another process"), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BadInput, match=r"cannot write to .*file/run"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


def test_a_line_cut_short_is_no_epoch(tmp_path: Path) -> None:
    run = RunStore(tmp_path)
    run.append({"epoch": 1})
    run.append({"epoch": 2})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-4])
    assert run.metrics() == [{"epoch": 1}]
    run.keep(run.metrics()[:1])
    run.append({"epoch": 2})
    assert run.metrics() == [{"epoch": 1}, {"epoch": 2}]


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 4).T, "b": torch.tensor(7)}
    run = RunStore(tmp_path)
    run.finish(weights, {"test_error": 1.0})
    assert all(torch.equal(w, run.weights()[name]) for name, w in weights.items())
    assert run.result() == {"test_error": 1.0}


@pytest.mark.parametrize("damage", [None, b"", b"\x08\0\0\0\0\0\0\0{broken}"])
def test_weights_that_cannot_be_read_are_named(
    damage: bytes | None, tmp_path: Path
) -> None:
    if damage is not None:
        (tmp_path / "weights.safetensors").write_bytes(damage)
    with pytest.raises(BadInput, match=r"weights\.safetensors cannot be read"):
        RunStore(tmp_path).weights()


def test_all_file_names_of_a_run_stay_in_its_folder(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "run")
    run.append({"epoch": 1})
    run.finish({"w": torch.zeros(1)}, {})
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


def test_whoever_waits_for_a_turn_gets_it_when_the_other_is_done(
    tmp_path: Path,
) -> None:
    order: list[str] = []

    def second() -> None:
        started.set()
        with in_turn(tmp_path):
            order.append("second")

    started, thread = threading.Event(), threading.Thread(target=second)
    with in_turn(tmp_path):
        thread.start()
        started.wait()
        with pytest.raises(Busy), locked(tmp_path):
            pass
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
