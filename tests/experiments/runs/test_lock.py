"""Locks on folders."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs.files import Busy, in_turn, locked


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    hold = (
        "import sys; from pathlib import Path; "
        "from flatmin.experiments.runs.files import locked\n"
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


def test_an_error_within_lets_go(tmp_path: Path) -> None:
    for how in (locked, in_turn):
        with pytest.raises(KeyError), how(tmp_path):
            raise KeyError
    with locked(tmp_path):
        pass


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
