"""``flatmin compare`` as people run it: real processes, killed, continued, refused."""

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

from flatmin.experiments.runs.files import REMOVE
from flatmin.experiments.runs.record import Run
from tests.experiments.helpers import TINY, Program, image_folder

#: The program with a checkpoint after every epoch, so that short runs have some.
EAGER = (
    "import signal\n"
    "from flatmin.experiments import cli, train\n"
    # Whoever started the tests in the background has it ignored.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "train.CHECKPOINT_EVERY = 0.0\n"
    "if __name__ == '__main__': cli.main()"
)

#: A network of timm's for photographs of a few pixels.
NETWORK = ("--model=test_efficientnet.r160_in1k", "--weights=none")


def tiny(**changes: object) -> list[str]:
    """`TINY` with other values."""
    kept = [one for one in TINY if one[6:].partition("=")[0] not in changes]
    return [*kept, *(f"--set={name}={value}" for name, value in changes.items())]


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", EAGER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def numbers(root: Path) -> list[dict[str, Any]]:
    """The final table but for times and places, which no two runs share."""
    rows = json.loads((root / "results.json").read_text())
    other = ("seconds", "search_seconds", "folders")
    return [{k: v for k, v in row.items() if k not in other} for row in rows]


def files(root: Path) -> list[Path]:
    """All but decoded images, which are kept for the next time."""
    return sorted(p for p in root.rglob("*") if (root / "data") not in (p, *p.parents))


def looks_done(root: Path) -> int:
    # At their depth: checkpoints, which come and go, are deeper.
    found = root.glob("*/*/*/*/*/metrics.jsonl")
    return sum(len(path.read_text().splitlines()) for path in found)


def weights(root: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        str(path.parent.relative_to(root)): Run(path.parent).weights()
        for path in root.rglob("weights.safetensors")
    }


def test_killed_at_random_moments_it_ends_with_the_same_table(tmp_path: Path) -> None:
    size = (*tiny(seeds=1, epochs=4, landscape_points=0), "--workers=2")
    with start("compare", *size, "--out", tmp_path / "whole") as whole:
        _, complaint = whole.communicate()
    assert whole.returncode == 0, complaint
    moments = random.Random(5)
    root = tmp_path / "killed"
    for most in (3, 5, 7):
        wanted = looks_done(root) + moments.randint(1, most)
        with start("compare", *size, "--out", root) as process:
            while process.poll() is None and looks_done(root) < wanted:
                time.sleep(0.01)
            time.sleep(moments.random() / 50)
            assert process.poll() is None, "finished before it could be killed"
            process.send_signal(signal.SIGKILL)
    with start("compare", *size, "--out", root) as last:
        _, complaint = last.communicate()
    assert last.returncode == 0, complaint
    assert numbers(root) == numbers(tmp_path / "whole")
    one, two = weights(tmp_path / "whole"), weights(root)
    assert one.keys() == two.keys()
    for run, tensors in one.items():
        assert all(torch.equal(w, two[run][name]) for name, w in tensors.items())
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_ctrl_c_ends_with_one_line_and_no_process_is_left(tmp_path: Path) -> None:
    size = (*tiny(epochs=400), "--workers=2", "--out", tmp_path / "run")
    with start("compare", *size) as process:
        while looks_done(tmp_path / "run") < 1:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in complaint
    assert "stopped. The same command continues" in complaint


def test_the_whole_job_on_digits(program: Program, tmp_path: Path) -> None:
    root = tmp_path / "run"
    code, out, err = program("compare", *TINY, "--workers=1", "--out", root)
    assert (code, err) == (0, "")
    assert f"Report: {root}/report.html" in out
    assert "This takes about" in out
    assert {path.name for path in root.iterdir()} == {
        ".lock",
        "comparison.json",
        "curves.png",
        "noise-40",
        "report.html",
        "results.json",
        "table.md",
    }
    found = numbers(root)
    methods = [row["method"] for row in found if "longest" not in row["method"]]
    assert methods == [
        "SGD",
        "SGD, averaged",
        "SAM",
        "SAM, averaged",
        "SAM on a quarter",
        "SAM on a quarter, averaged",
    ]
    assert [row["tries"] for row in found][-1] == 1
    assert all(len(row["test_errors"]) == 2 for row in found)
    assert all(len(row["validation_errors"]) == 1 for row in found)
    page = (root / "report.html").read_text()
    assert page.count('<div class="plot"') == 3
    assert "Use SGD" in page
    (root / "report.html").unlink()
    code, out, err = program("report", root)
    assert (code, err) == (0, "")
    assert (root / "report.html").read_text() == page
    code, out, _ = program("report", root, "--json")
    assert [row["method"] for row in json.loads(out)[0]["rows"]] == [
        row["method"] for row in found
    ]
    (root / "noise-40" / "landscapes.json").write_text("7")
    code, _, err = program("report", root)
    assert code == 2
    assert err == f"flatmin: {root}/noise-40/landscapes.json is damaged. {REMOVE}\n"


def test_the_whole_job_on_a_folder(program: Program, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "pets <i>", {"<b>cat": 24, "dog": 24})
    # Half of each class alike: some of them are trained on, others tested on.
    for k in range(12):
        (folder / "dog" / f"{k}.png").write_bytes((folder / "dog/0.png").read_bytes())
    small = [one for one in TINY if "model_options" not in one and "noise" not in one]
    code, out, err = program(
        "compare", folder, *small, *NETWORK, "--set=image_size=32",
        "--set=batch_size=8", "--workers=1", "--out", tmp_path / "run",
        "--data", tmp_path / "data",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "20% of each class for the test" in " ".join(out.split())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "&lt;b&gt;cat" in page
    # Before training, in the verdict, and on the page.
    twice = "test images are training images too, byte for byte"
    assert " ".join(out.split()).count(twice) == 2
    assert page.count(twice) == 1
    assert "<b>cat" not in page
    (folder / "dog" / "20.png").write_bytes((folder / "dog/21.png").read_bytes())
    code, _, err = program("report", tmp_path / "run", "--data", tmp_path / "data")
    assert code == 2
    assert f"are not those that {tmp_path}/run was made with. Put those back" in err


def test_processes_that_share_the_work_read_photographs(tmp_path: Path) -> None:
    """Each has readers of its own, which are processes too."""
    folder = image_folder(tmp_path / "photos", {"a": 24, "b": 24}, size=80)
    small = [one for one in tiny(seeds=1) if "model_o" not in one and "noi" not in one]
    with start(
        "compare", folder, *small, *NETWORK, "--set=image_size=65",
        "--set=batch_size=8", "--workers=2", "--out", tmp_path / "run",
        "--data", tmp_path / "data",
    ) as process:  # fmt: skip
        _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert "Traceback" not in complaint


def test_a_dry_run_writes_nothing(program: Program, tmp_path: Path) -> None:
    few = tiny(rhos="[0.00001]")
    code, out, err = program("compare", "--dry-run", *few, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "40 % label noise: 900 training and 897 test images" in out
    assert "This takes about" in out
    assert "Note: rho 1e-05 raises the training loss" in out
    assert list(tmp_path.iterdir()) == []


BAD: list[tuple[tuple[str, ...], str]] = [
    (("compare", "digit"), "no such folder: digit"),
    (("compare", "{missing}"), "no such folder"),
    (("compare", "{empty}"), "no images in"),
    (("compare", "{text}", *NETWORK), "not a readable image"),
    (("compare", "{one}"), "only one class"),
    (("compare", ""), "a path is empty"),
    (("compare", "~nobody-has-this-name/photos"), "nobody has the home folder"),
    (("compare", "{pairs}", *NETWORK, "--set=batch_size=2"), "hold some out"),
    (("compare", "{few}", *NETWORK, "--set=batch_size=8"), "more than the 6 training"),
    (("preflight", "{few}", *NETWORK, "--set=batch_size=8"), "more than the 6 trai"),
    (("compare", "{good}", *NETWORK, "--set=epochs=1000000"), "got 2000000"),
    (("compare", "{good}", *NETWORK, "--set=rhos=[1e31]"), "rhos must be above 0"),
    (("compare", "--set=settings=[]"), "unknown field 'settings'"),
    (("compare", "{good}", "--model=resnet1", "--weights=none"), "resnet1"),
    (("compare", "{good}", "--weights={missing}"), "missing"),
    (("compare", "{good}", *NETWORK, "--set=batch_size=1000"), "batch of 1000"),
    (("compare", "--set", "rhos=[-1]"), "rhos must be above 0"),
    (("compare", "--set", "ro=1"), "did you mean"),
    (("compare", "--set", "rhos"), "FIELD=VALUE"),
    (("compare", "--set", "landscape_points=1"), "at least 2"),
    (("compare", "--set", "device=cuda"), "no cuda device here"),
    (("compare", "--workers", "0"), "--workers must be from 1"),
    (("compare", "--workers", "1000000000"), "--workers must be from 1"),
    (("compare", "--optimizer", "adam"), "adam"),
    (("compare", "--optimizer", "adamw"), "for a folder of images"),
    (("compare", "{good}", *NETWORK, "--out", "{good}/runs"), "inside of the images"),
    (("compare", "{good}", *NETWORK, "--out", "{good}"), "inside of the images"),
    (("preflight", "--set", 'method_options={{"k": "abc"}}'), "method sam: "),
    (("compare", "--sett", "rho=1"), "--sett"),
    (("compare", "digits", "more"), "more"),
    (("compaer",), "compaer"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
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
    image_folder(tmp_path / "good", {"a": 24, "b": 24})
    image_folder(tmp_path / "pairs", {"a": 2, "b": 2})
    image_folder(tmp_path / "few", {"a": 5, "b": 5})
    image_folder(tmp_path / "text", {"a": 3, "b": 3})
    (tmp_path / "text" / "a" / "note.jpg").write_text("no picture")
    before = files(tmp_path)
    kinds = ("missing", "empty", "one", "text", "good", "pairs", "few")
    names = {name: str(tmp_path / name) for name in kinds}

    code, out, err = program(*(a.format(**names) for a in arguments))

    assert code == 2, out
    assert err.startswith("flatmin: ")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in out + err
    assert files(tmp_path) == before


def test_a_folder_of_another_comparison_is_left_alone(
    program: Program, tmp_path: Path
) -> None:
    where = ("--workers=1", "--out", tmp_path)
    assert program("compare", *tiny(epochs=1), *where)[0] == 0
    before = (tmp_path / "results.json").read_bytes()
    code, _, err = program("compare", *tiny(epochs=1, rhos="[0.1]"), *where)
    assert code == 2
    assert "holds another comparison (different: rhos)" in err
    assert (tmp_path / "results.json").read_bytes() == before


def test_processes_of_torchrun_are_refused(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = program("compare", *TINY, "--out", tmp_path / "run")
    assert code == 2
    assert "give --workers N, not torchrun" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.everything
def test_mixed_precision_is_compared(program: Program, tmp_path: Path) -> None:
    """Preflight differentiates by itself, which Fabric's wrapper forbids there."""
    out = tmp_path / "run"
    settings = tiny(epochs=1, precision="bf16-mixed")
    assert program("compare", *settings, "--workers=1", "--out", out)[0] == 0


@pytest.mark.everything
@pytest.mark.parametrize(
    ("stage", "field"), [("search", "last_error"), ("final", "train_error")]
)
def test_a_result_without_a_number_that_the_table_needs_is_damaged(
    stage: str, field: str, program: Program, tmp_path: Path
) -> None:
    where = ("--workers=1", "--out", tmp_path)
    assert program("compare", *tiny(epochs=1), *where)[0] == 0
    (path, *_) = sorted(tmp_path.glob(f"*/{stage}/base/*/*/result.json"))
    result = json.loads(path.read_text())
    for value in (None, "x"):
        path.write_text(json.dumps({**result, field: value}))
        code, _, err = program("report", tmp_path)
        assert (code, err.count("\n")) == (2, 1)
        assert "result.json is damaged" in err
        assert field in err


def test_other_validation_images_are_another_comparison(
    program: Program, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    for part, count in (("train", 16), ("val", 6), ("test", 6)):
        image_folder(folder / part, {"a": count, "b": count})
    small = [one for one in tiny(epochs=1) if "noise" not in one and "model" not in one]
    arguments = (
        "compare", folder, *small, *NETWORK, "--set=image_size=32",
        "--set=batch_size=8", "--workers=1", "--out", tmp_path / "run",
    )  # fmt: skip
    assert program(*arguments)[0] == 0
    for name in ("a", "b"):
        (folder / "val" / name).rename(folder / "val" / f"{name}-")
    (folder / "val" / "a-").rename(folder / "val" / "b")
    (folder / "val" / "b-").rename(folder / "val" / "a")
    code, _, err = program(*arguments)
    assert code == 2
    assert "holds another comparison (different: the images)" in err
