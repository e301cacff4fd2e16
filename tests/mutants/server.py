"""Runs named tests against a given copy of the package, in a fork per request.

torch and what else is not flatmin's take seconds to import and are the same for every
copy, so that this process has them already; the package itself it must never import.
A request is a line of JSON, ``[folder, [test, ...]]``; so is the answer,
``[exit code, output]``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from pathlib import Path

import hypothesis.strategies
import jinja2
import lightning_fabric
import lion_pytorch
import numpy as np
import optuna
import pydantic
import pytest
import rich.table
import scipy.stats
import sklearn.datasets
import timm
import torch._dynamo
import torch.utils.tensorboard
import torchvision.transforms.v2
import typer

_WARM = (
    hypothesis.strategies, jinja2, lightning_fabric, lion_pytorch, np, optuna, pydantic,
    rich.table, scipy.stats, sklearn.datasets, timm, torch, torchvision, typer,
)  # fmt: skip
_WARNING = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
_FLAGS = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist"]


def run(folder: str, tests: list[str], output: Path) -> None:
    """Never returns: the process ends with pytest's exit code."""
    code = 70
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.environ.update(FLATMIN_UNDER_TEST=folder, COLUMNS="400")
        sys.path.insert(0, folder)
        code = int(pytest.main([*_FLAGS, "-W", _WARNING, *tests]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    # pytest collects garbage at its end; what is here already is none.
    gc.freeze()
    for line in sys.stdin:
        assert "flatmin" not in sys.modules
        folder, tests = json.loads(line)
        output = Path(folder) / "output.txt"
        child = os.fork()
        if child == 0:
            run(folder, tests, output)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answer = json.dumps([code, output.read_text()])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
