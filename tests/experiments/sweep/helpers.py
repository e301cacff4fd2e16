"""Sweeps of one cell, in seconds, and what they leave."""

import io
import os
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from rich.console import Console
from sqlalchemy.pool import NullPool

import flatmin
from flatmin.experiments.jobs import Request

CELL = "table4/noise-40/sam"
RHOS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]

#: Three steps, of which a checkpoint follows each.
EPOCHS = "epochs=3"


def smoke(out: Path, *settings: str, name: str = CELL) -> Request:
    return Request(name, settings, small=True, root=out)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=80)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def home(out: Path) -> Path:
    return out / "sweep" / CELL


def trials(out: Path) -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{home(out) / 'study.db'}"
    # A pool would leave its connections open.
    storage = RDBStorage(url, {"poolclass": NullPool})
    return optuna.load_study(study_name=None, storage=storage).trials


def starts(out: Path) -> dict[float, int]:
    """How often each point's run was started."""
    return {
        rho: len((folder / "seed-0" / "environment.jsonl").read_text().splitlines())
        for rho in RHOS
        if (folder := home(out) / f"rho-{rho}").exists()
    }


def surroundings() -> dict[str, str]:
    """The package under test, for another process."""
    here = str(Path(str(flatmin.__file__)).parent.parent)
    return {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
