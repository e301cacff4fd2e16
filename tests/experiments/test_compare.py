import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from flatmin.experiments.store import RunStore
from tests.experiments.helpers import TINY, Program, image_folder

#: The program with a checkpoint after every epoch, so that short runs have some.
EAGER = (
    "import signal\n"
    "from flatmin.experiments import cli, run\n"
    # Whoever started the tests in the background has it ignored.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "run.CHECKPOINT_EVERY = 0.0\n"
    "cli.main()"
)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", EAGER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def table(root: Path) -> list[dict[str, Any]]:
    """The final table but for the seconds, which no two runs share."""
    rows = json.loads((root / "results.json").read_text())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def epochs_done(root: Path) -> int:
    found = root.glob("*/*/*/metrics.jsonl")
    return sum(len(path.read_text().splitlines()) for path in found)


def weights(root: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        str(path.parent.relative_to(root)): RunStore(path.parent).weights()
        for path in root.rglob("weights.safetensors")
    }


def test_killed_at_five_random_moments_it_ends_with_the_same_table(
    tmp_path: Path,
) -> None:
    size = (*TINY, "--set=epochs=6")
    with start("compare", *size, "--out", tmp_path / "whole") as whole:
        _, complaint = whole.communicate()
    assert whole.returncode == 0, complaint

    moments = random.Random(5)
    kills = 0
    while kills < 5:
        root = tmp_path / "killed"
        before = epochs_done(root)
        wanted = before + moments.randint(2, 12)
        with start("compare", *size, "--out", root) as process:
            while process.poll() is None and epochs_done(root) < wanted:
                time.sleep(0.001)
            time.sleep(moments.random() / 50)
            assert process.poll() is None, "finished before it could be killed"
            process.send_signal(signal.SIGKILL)
        kills += 1

    with start("compare", *size, "--out", tmp_path / "killed") as last:
        _, complaint = last.communicate()
    assert last.returncode == 0, complaint
    assert table(tmp_path / "killed") == table(tmp_path / "whole")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert len(one) == 6
    assert one.keys() == two.keys()
    for run, tensors in one.items():
        assert all(torch.equal(w, two[run][name]) for name, w in tensors.items())
    landscapes = [tmp_path / name / "landscapes.json" for name in ("whole", "killed")]
    assert landscapes[0].read_text() == landscapes[1].read_text()
    left = [path.name for path in tmp_path.rglob("*.part")]
    assert left == []


def test_ctrl_c_ends_with_one_line_and_the_same_command_continues(
    tmp_path: Path,
) -> None:
    size = (*TINY, "--set=epochs=200", "--out", tmp_path / "run")
    with start("compare", *size) as process:
        while epochs_done(tmp_path / "run") < 5:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in complaint
    assert "stopped. The same command continues" in complaint


def test_the_whole_job_on_digits(program: Program, tmp_path: Path) -> None:
    root = tmp_path / "run"
    code, out, err = program("compare", *TINY, "--set=seeds=1", "--out", root)
    assert (code, err) == (0, "")
    assert f"Report: {root}/report.html" in out
    assert {path.name for path in root.iterdir()} == {
        ".lock",
        "config.json",
        "environment.jsonl",
        "noise-40",
        "landscapes.json",
        "landscapes.png",
        "curves.png",
        "results.json",
        "table.md",
        "report.html",
    }
    assert [row["arm"] for row in table(root)] == ["sgd", "sgd-2x", "sam"]
    assert [row["gradient_examples"] for row in table(root)] == [1792, 3584, 3584]
    assert "SGD 2x epochs" in (root / "table.md").read_text()


def test_the_whole_job_on_a_folder(program: Program, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "pets <i>", {"<b>cat": 12, "dog": 12})
    code, out, err = program(
        "compare", "--data", folder, *TINY, "--set=image_size=12", "--set=seeds=1",
        "--set=batch_size=8", "--out", tmp_path / "run",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "20% of each class for the test" in " ".join(out.split())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "&lt;b&gt;cat" in page
    assert "<b>cat" not in page


BAD: list[tuple[tuple[str, ...], str]] = [
    (("compare", "digit"), "unknown recipe 'digit'"),
    (("compare", "--data", "{missing}"), "no such folder"),
    (("compare", "--data", "{empty}"), "no images in"),
    (("compare", "--data", "{text}"), "not a readable image"),
    (("compare", "--data", "{one}"), "only one class"),
    (("compare", "--set", "rho=-1"), "rho: "),
    (("compare", "--set", "rho=big"), "rho: "),
    (("compare", "--set", "ro=1"), "did you mean 'rho'?"),
    (("compare", "--set", "rho"), "FIELD=VALUE"),
    (("compare", "--set", "landscape_points=1"), "at least 2"),
    (("compare", "--set", "device=cuda"), "no cuda device here"),
    (("compare", "--sett", "rho=1"), "--sett"),
    (("compare", "digits", "more"), "more"),
    (("compaer",), "compaer"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    image_folder(tmp_path / "one", {"only": 3})
    image_folder(tmp_path / "text", {"a": 3, "b": 3})
    (tmp_path / "text" / "a" / "note.jpg").write_text("no picture")
    before = sorted(tmp_path.rglob("*"))
    names = {name: str(tmp_path / name) for name in ("missing", "empty", "one", "text")}

    code, out, err = program(*(a.format(**names) for a in arguments))

    assert code == 2
    assert err.startswith("flatmin: ")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in out + err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_another_comparison_is_left_alone(
    program: Program, tmp_path: Path
) -> None:
    small = (*TINY, "--set=seeds=1", "--set=epochs=1", "--out", tmp_path)
    assert program("compare", *small)[0] == 0
    before = (tmp_path / "results.json").read_bytes()
    code, _, err = program("compare", *small, "--set=rho=0.1")
    assert code == 2
    assert "holds another experiment (different: rho)" in err
    assert (tmp_path / "results.json").read_bytes() == before


def test_several_processes_are_refused(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = program("compare", *TINY, "--out", tmp_path / "run")
    assert code == 2
    assert "start it without torchrun" in err
    assert list(tmp_path.iterdir()) == []


def test_without_a_verb_the_help_is_shown(program: Program) -> None:
    code, out, _ = program()
    assert code == 0
    assert "compare" in out
