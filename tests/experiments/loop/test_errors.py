"""Files that are damaged, disks that are full: one line, and nothing is lost."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from flatmin.experiments import state, train
from flatmin.experiments.datasets import DataSet, Files, ImageFiles
from flatmin.experiments.errors import BadInput
from flatmin.experiments.jobs import Request, jobs, train_all
from flatmin.experiments.runs import files, record
from flatmin.experiments.runs.record import Run
from tests.experiments.helpers import Program
from tests.experiments.loop.problems import pictures, same, small, trained

EXPERIMENT = small(epochs=3)
ROOT = Path(__file__).parents[3]


class Left(Exception):
    pass


@pytest.fixture
def data() -> DataSet:
    return pictures()


@pytest.fixture
def begun(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was left after 7 of 9 steps, with a checkpoint after the 6th."""
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)

    def leave(step: int, steps: int) -> None:
        del steps
        if step == 7:
            raise Left

    with pytest.raises(Left):
        trained(EXPERIMENT, tmp_path / "run", data, tick=leave)
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    """All but TensorBoard's, of which every start has one of its own."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }


def finishes(folder: Path, data: DataSet) -> None:
    whole = trained(EXPERIMENT, folder.parent / "whole", data)
    found = trained(EXPERIMENT, folder, data)
    assert same(found.weights(), whole.weights())


@pytest.mark.parametrize("damage", [b"", b"no checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_named(
    damage: bytes, begun: Path, data: DataSet
) -> None:
    (begun / "checkpoint" / "step-6" / "rank-0.pt").write_bytes(damage)
    before = contents(begun)
    with pytest.raises(BadInput, match=r"rank-0\.pt is damaged .* Remove .*\.json"):
        trained(EXPERIMENT, begun, data)
    assert contents(begun) == before
    (begun / "checkpoint.json").unlink()
    finishes(begun, data)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("run-by-a-checkpoint",))


def test_a_checkpoint_cannot_run_code(
    begun: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Payload(), begun / "checkpoint" / "step-6" / "rank-0.pt")
    with pytest.raises(BadInput, match=r"rank-0\.pt is damaged"):
        trained(EXPERIMENT, begun, data)
    assert not (tmp_path / "run-by-a-checkpoint").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"step": 6}', '{"step": "x"}'])
def test_a_damaged_note_of_the_checkpoint_is_named(
    damage: str, begun: Path, data: DataSet
) -> None:
    (begun / "checkpoint.json").write_text(damage)
    before = contents(begun)
    with pytest.raises(BadInput, match=r"checkpoint\.json is damaged\. Remove it"):
        trained(EXPERIMENT, begun, data)
    assert contents(begun) == before
    (begun / "checkpoint.json").unlink()
    finishes(begun, data)


def test_a_checkpoint_that_has_gone_is_named(begun: Path, data: DataSet) -> None:
    (begun / "checkpoint" / "step-6" / "rank-0.pt").unlink()
    with pytest.raises(BadInput, match="FileNotFoundError"):
        trained(EXPERIMENT, begun, data)


@pytest.mark.parametrize("damage", ["{", "3", "[]", '{"step": 3}'])
def test_a_damaged_line_of_metrics_is_named_and_the_others_stay(
    damage: str, begun: Path, data: DataSet
) -> None:
    path = begun / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([damage, *lines[1:]]) + "\n")
    before = contents(begun)
    with pytest.raises(BadInput, match=r"metrics\.jsonl, line 1, is damaged"):
        trained(EXPERIMENT, begun, data)
    assert contents(begun) == before
    path.write_text("\n".join(lines) + "\n")
    finishes(begun, data)
    assert [m["step"] for m in Run(begun).metrics()] == [3, 6, 9]


def test_a_last_line_that_was_cut_short_comes_again(begun: Path, data: DataSet) -> None:
    path = begun / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"epoch": 3, "st')
    finishes(begun, data)
    assert [m["step"] for m in Run(begun).metrics()] == [3, 6, 9]


@pytest.mark.parametrize("damage", ["", "{", "[]", "7"])
def test_a_damaged_result_is_named(damage: str, begun: Path, data: DataSet) -> None:
    (begun / "result.json").write_text(damage)
    before = contents(begun)
    with pytest.raises(BadInput, match=r"result\.json is damaged\. Remove it"):
        trained(EXPERIMENT, begun, data)
    assert contents(begun) == before
    (begun / "result.json").unlink()
    finishes(begun, data)


@pytest.mark.parametrize("call", range(1, 6))
def test_a_disk_that_is_full_at_any_write_loses_nothing(
    call: int, begun: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics that are kept, labels, predictions, the weights, the result."""
    calls = 0
    real = record.write

    def full(path: Path, content: bytes | str) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 1e9)
    with monkeypatch.context() as patch:
        patch.setattr(record, "write", full)
        patch.setattr(files, "write", full)
        with pytest.raises(BadInput, match=r"run: No space left on device.*continues"):
            trained(EXPERIMENT, begun, data)
    assert calls == call
    assert (begun / "checkpoint.json").exists()
    finishes(begun, data)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 3 MiB; where nothing can be mounted, a limit to files."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not mounted:
        (place / "limited").touch()
    yield place
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_a_real_disk_that_is_full_stops_the_program_with_one_line(disk: Path) -> None:
    """A network of 310 kB, and its momentum, in two checkpoints and a file."""
    limited = (disk / "limited").exists()
    if not limited:
        (disk / "ballast").write_bytes(b"x" * (3 * 2**20 - 600_000))
    code = (
        "from flatmin.experiments import train; train.CHECKPOINT_EVERY = 0\n"
        "from flatmin.__main__ import main; main()"
    )
    runs = disk / "runs"
    what = ["train", "figure3-middle/m-4/rho-0.05", "--smoke", "--out", str(runs)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    def start(*, full: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *what, "--set", "steps=3"],
            preexec_fn=limit if full and limited else None,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    done = start(full=True)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("flatmin: ")
    assert "No space left" in line or "File too large" in line
    (disk / "ballast").unlink(missing_ok=True)
    again = start(full=False)
    assert again.returncode == 0, again.stderr
    (job,) = jobs(
        Request(
            "figure3-middle/m-4/rho-0.05", ("steps=3",), small=True, root=runs
        ).recipe(),
        runs,
    )[:1]
    assert Run(job.folder).result() is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table99"], "unknown recipe 'table99'"),
        (["c4", "--set", "rho"], "--set needs FIELD=VALUE"),
        (["c4", "--set", "lr=-1"], "lr: Input should be greater than 0"),
        (["c4", "--smoke", "--set", "m=3"], "not a multiple of m 3"),
        (["c4", "--smoke", "--set", "batch_size=20"], "a batch of 20 is more than"),
        (["c4", "--smoke", "--set", "strategy=fsdp"], "needs several processes"),
        (["c4", "--smoke", "--set", "precision=bf16-true"], "weights of 32 bits"),
    ],
)
def test_a_wrong_configuration_is_one_line(
    arguments: list[str], message: str, program: Program, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "runs", "--data", tmp_path / "data")
    if "bf16-true" in arguments[-1]:
        arguments = [*arguments, "--set", "flatness_rho=0.1"]
    code, _, err = program("train", *arguments, *out)
    assert code == 2
    (line,) = err.splitlines()
    assert message in line


def test_sharpness_of_images_in_files_is_refused_before_training(
    data: DataSet, tmp_path: Path
) -> None:
    names = [f"{i}.png" for i in range(len(data.train.y))]
    files = Files(ImageFiles(tmp_path, names, data.train.y), data.train.y)
    with pytest.raises(BadInput, match="sharpness and spectra need all images in mem"):
        trained(small(flatness_rho=0.1), tmp_path / "run", replace(data, train=files))
    assert not (tmp_path / "run").exists()


CELL = "table4/noise-40/sam"

#: Settings that a run cannot have, one of each kind.
REFUSED = (
    ("batch_size=20",),
    ("model=wrn-1",),
    ('model_options={"depth": 3}',),
    ("model=small-convnet", 'model_options={"width": 0}'),
    ("model=test_vit.r160_in1k", "image_size=24"),
    ('method_options={"decay": 1}',),
    ("method=late_sam",),
    ("warmup=1e300",),
    ("m=1", "model=test_resnet.r160_in1k"),
    ("m=2", "method=subset_sam", "model=test_resnet.r160_in1k"),
    ("m=2", "accumulate=2", "model=test_resnet.r160_in1k"),
    ("model=test_resnet.r160_in1k", 'model_options={"features_only": true}'),
    ("m=4", "method=bsam", 'method_options={"n": 8}'),
    ('augment=["auto_augment"]', "data=fashion-mnist"),
    ("flatness_rho=0.1", "precision=bf16-true"),
    ("train_examples=100000",),
    ("strategy=ddp",),
    ("device=mps",),
)


@pytest.mark.parametrize("settings", REFUSED, ids=" ".join)
def test_a_refused_setting_leaves_nothing_and_the_right_command_succeeds(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    right = Request(CELL, small=True, root=tmp_path / "runs")
    wrong = Request(CELL, settings, small=True, root=right.root)
    quiet = Console(file=StringIO())
    (job,) = jobs(right.recipe(), right.root)
    with pytest.raises(BadInput):
        train_all(wrong, quiet)
    assert not job.folder.exists()
    assert list(right.root.glob("*.json")) == []
    assert train_all(right, quiet)
    before = contents(job.folder)
    with pytest.raises(BadInput):
        train_all(wrong, quiet)
    assert contents(job.folder) == before


def test_other_settings_in_a_folder_are_refused_and_it_stays(tmp_path: Path) -> None:
    request = Request("c4", small=True, root=tmp_path / "runs")
    quiet = Console(file=StringIO())
    assert train_all(request, quiet)
    folders = [job.folder for job in jobs(request.recipe(), request.root)]
    before = [contents(folder) for folder in folders]
    other = Request("c4", ("lr=0.3",), small=True, root=tmp_path / "runs")
    with pytest.raises(BadInput, match=r"holds another experiment \(different: lr\)"):
        train_all(other, quiet)
    assert [contents(folder) for folder in folders] == before


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(
    begun: Path, data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, note = contents(begun / "checkpoint"), begun / "checkpoint.json"
    text = note.read_text()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(path: Path, content: bytes) -> None:
        assert path.parent.name == "step-7"
        path.parent.mkdir(parents=True)
        path.with_name(".part").write_bytes(content[:100])
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(train, "_ASK_EVERY", 1)
        patch.setattr(state, "write", refuse)
        with pytest.raises(BadInput, match="No space left on device"):
            trained(EXPERIMENT, begun, data)
    assert note.read_text() == text
    after = contents(begun / "checkpoint")
    assert {name: after[name] for name in before} == before
    finishes(begun, data)
