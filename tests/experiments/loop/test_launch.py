"""Environments that torchrun did not set: one line and exit code 2."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import torch

from flatmin.experiments import launch
from flatmin.experiments.config import Experiment
from flatmin.experiments.errors import BadInput
from flatmin.experiments.launch import launched, share_of_threads, world_size
from tests.experiments.helpers import Program

NUMBERS = ("abc", "0", "-2", "", "1.5", "²")


@pytest.mark.parametrize("text", NUMBERS)
def test_a_world_size_that_is_no_number_is_named(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(BadInput, match=f"WORLD_SIZE={text} is no number of processes"):
        world_size()


@pytest.mark.parametrize("text", NUMBERS)
def test_a_local_size_that_is_no_number_is_named(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", text)
    with pytest.raises(BadInput, match=f"LOCAL_WORLD_SIZE={text} is no number"):
        launched(Experiment(device="cpu"))


@pytest.mark.parametrize(("world", "local"), [("2", "3"), ("4", "3"), ("1", "2")])
def test_machines_with_different_numbers_of_processes_are_refused(
    world: str, local: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    with pytest.raises(BadInput, match=f"={local} does not divide WORLD_SIZE={world}"):
        launched(Experiment(device="cpu"))


def test_a_local_size_that_does_not_divide_is_found_before_anything_is_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(BadInput, match="=3 does not divide WORLD_SIZE=4"):
        launch._local_size(4)


def test_several_processes_without_a_local_size_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(BadInput, match="LOCAL_WORLD_SIZE is not set"):
        launched(Experiment(device="cpu"))


@pytest.mark.parametrize(
    "verb", [("train", "c4", "--smoke"), ("train", "c4", "--smoke", "--dry-run")]
)
def test_the_program_says_it_in_one_line(
    verb: tuple[str, ...],
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "abc")
    code, _, err = program(*verb, "--out", tmp_path / "runs")
    assert code == 2
    (line,) = err.splitlines()
    assert "WORLD_SIZE=abc is no number of processes. torchrun sets it" in line
    assert list(tmp_path.iterdir()) == []


def test_processes_share_the_threads_and_this_one_has_them_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        for processes, share in ((1, 6), (2, 3), (4, 1), (9, 1)):
            with suppress(KeyboardInterrupt), share_of_threads(processes):
                assert torch.get_num_threads() == share
                raise KeyboardInterrupt
            assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)
