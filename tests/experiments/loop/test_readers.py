"""Readers of image files: how long they stay, and what they leave behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from flatmin.experiments.datasets import ImageFiles
from flatmin.experiments.errors import BadInput
from flatmin.experiments.readers import Readers

#: Kills itself as soon as it has started a reader, which is still loading torch.
KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from threading import Thread
from tests.experiments.loop.test_readers import readers, parts

def die():
    while not (started := multiprocessing.active_children()):
        pass
    print(started[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    Thread(target=die).start()
    next(readers(Path(sys.argv[1])).read("train", parts()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        pixels = torch.full((20, 20, 3), 40 * i, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{i}.png")
    return tmp_path


def readers(folder: Path) -> Readers:
    images = ImageFiles(folder, [f"{i}.png" for i in range(6)], torch.zeros(6).long())
    return Readers({"train": images, "test": images}, 16, pin_memory=False)


def parts(n: int = 6) -> list[tuple[torch.Tensor, int]]:
    return [(torch.tensor([i]), i) for i in range(n)]


def shades(read: list[torch.Tensor]) -> list[int]:
    return [int(x[0, 0, 0, 0]) // 40 for x in read]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def children() -> set[int | None]:
    return {one.pid for one in multiprocessing.active_children()}


def test_readers_stay_from_one_epoch_to_the_next(folder: Path) -> None:
    others, seen = children(), set[int | None]()
    ours = readers(folder)
    for split in ("train", "test", "train"):
        assert shades(list(ours.read(split, parts()))) == [0, 1, 2, 3, 4, 5]
        seen |= children() - others
    assert len(seen) == 1


def test_readers_end_with_what_has_started_them(folder: Path) -> None:
    others, ours = children(), readers(folder)
    list(ours.read("train", parts()))
    assert children() > others
    del ours
    assert children() == others


def test_images_that_nobody_fetched_do_not_come_later(folder: Path) -> None:
    ours = readers(folder)
    assert shades([next(ours.read("train", parts()))]) == [0]
    assert shades(list(ours.read("train", parts()[3:]))) == [3, 4, 5]


def test_two_splits_are_read_in_turns(folder: Path) -> None:
    ours = readers(folder)
    pairs = zip(ours.read("train", parts()), ours.read("test", parts()), strict=True)
    for k, (x, y) in enumerate(pairs):
        assert shades([x, y]) == [k, k]


def test_reading_goes_on_after_a_file_that_is_missing(folder: Path) -> None:
    ours = readers(folder)
    (folder / "2.png").rename(folder / "away.png")
    with pytest.raises(BadInput, match=r"2\.png"):
        list(ours.read("train", parts()))
    (folder / "away.png").rename(folder / "2.png")
    assert shades(list(ours.read("train", parts()))) == [0, 1, 2, 3, 4, 5]


def test_a_reader_ends_with_a_process_killed_meanwhile(folder: Path) -> None:
    program = folder / "killed.py"
    program.write_text(KILLED)
    said = folder / "said"
    # Not into pipes: a reader that is left would keep them open.
    with said.open("w") as file:
        done = subprocess.run(
            [sys.executable, program, folder],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=file,
            check=False,
        )
    assert done.returncode == -signal.SIGKILL
    reader = int(said.read_text())
    deadline = time.monotonic() + 60
    while is_running(reader) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = is_running(reader)
    if left:
        os.kill(reader, signal.SIGKILL)
    assert not left


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended; nobody may collect it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
