from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flatmin.experiments.datasets import SETS
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


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files that tests have written: any checksum, any count, no download."""

    def there(path: Path, md5: str | None = None) -> bool:
        return Path(path).is_file()

    def never(url: str, *_: object) -> None:
        raise AssertionError(f"a download of {url}")

    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", there)
    monkeypatch.setattr("flatmin.experiments.datasets._fetch.download", never)
    for name, source in SETS.items():
        monkeypatch.setitem(SETS, name, replace(source, complete=False))
