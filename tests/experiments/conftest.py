import pytest
import torch

from tests.experiments.helpers import Program, run_program


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Several test processes with several threads each wait for one another.
    torch.set_num_threads(1)


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    return lambda *arguments: run_program(arguments, monkeypatch, capsys)
