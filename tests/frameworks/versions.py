"""Frameworks in folders of their own: the oldest that we support, and heavy ones.

A folder is filled by ``pip install --no-deps --target`` and goes first on the path of a
new process. What else the framework imports comes from the environment, or is listed
here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.frameworks.cells import Cell

ROOT = Path(__file__).parents[2]

#: Module of hosts -> an extra of flatmin's, whose lower bounds are the oldest versions.
EXTRAS = {
    "accelerate_host": "accelerate",
    "lightning_host": "lightning",
    "skorch_host": "skorch",
    "transformers_host": "transformers",
}
#: The oldest of the others.
OLDEST = {
    "fastai_host": ["fastai==2.8.1"],
    "ignite_host": ["pytorch-ignite==0.5.1"],
    "timm_host": ["timm==1.0.9"],
}
#: The newest of those that are not installed with the development extra.
NEWEST = {
    "composer_host": ["mosaicml==0.32.1"],
    "fastai_host": ["fastai==2.8.12"],
}
#: What they import besides, and the environment does not have in that version.
BESIDES = {
    "accelerate": ["huggingface_hub<2", "httpx", "httpcore", "h11", "anyio"],
    "transformers": ["tokenizers==0.22.*"],
    "fastai==2.8.1": ["fastcore==1.8.1", "plum-dispatch==2.5.7"],
    "fastai==2.8.12": ["fastcore==2.2.41", "plum-dispatch==2.9.0"],
    "fastai": [
        "beartype",
        "fastdownload",
        "fastprogress<1.1",
        "fasttransform",
        "pandas",
        "pytz",
        "tzdata",
    ],
    "mosaicml": [
        "arrow",
        "backoff",
        "coolname",
        "docker",
        "gql",
        "graphql-core",
        "importlib-metadata<9",
        "mosaicml-cli",
        "prompt_toolkit",
        "py-cpuinfo",
        "pytorch-ranger",
        "questionary",
        "ruamel.yaml",
        "tabulate",
        "tenacity",
        "torch_optimizer",
        "validators",
        "websocket-client",
        "websockets",
        "wcwidth",
        "zipp",
    ],
}


def oldest(module: str) -> list[str]:
    """The requirements of the oldest version that a module's hosts must run with."""
    if module not in EXTRAS:
        return OLDEST[module]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = project["optional-dependencies"][EXTRAS[module]]
    return [bound.replace(">=", "==") for bound in bounds]


def install(requirements: list[str], folder: Path) -> Path:
    """Fill a folder with these packages, and with what they import besides."""
    names = [re.split("[=<>]", required)[0] for required in requirements]
    more = [m for key in (*requirements, *names) for m in BESIDES.get(key, [])]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-warn-conflicts", "--target", str(folder)]
    done = subprocess.run(
        [*pip, *options, *requirements, *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def run(module: str, *options: str, folder: Path | None = None) -> list[Cell]:
    """The cells of a module, in a new process.

    Args:
        module: a module of `tests.frameworks`.
        options: for ``python -m tests.frameworks.cells``.
        folder: goes first on the path.
    """
    path = [str(p) for p in (folder, ROOT / "src", ROOT) if p is not None]
    with tempfile.TemporaryDirectory() as home:
        out = Path(home, "cells.json")
        command = ["-W", "ignore", "-m", "tests.frameworks.cells", module, str(out)]
        done = subprocess.run(
            [sys.executable, *command, *options],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path),
                # Matplotlib and torchvision write caches to the home folder.
                "MPLCONFIGDIR": home,
                "OMP_NUM_THREADS": "1",
            },
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [Cell(**cell) for cell in json.loads(out.read_text())]
