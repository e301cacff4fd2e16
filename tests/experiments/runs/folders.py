"""Folders of runs as ``flatmin train`` leaves them, with and without training."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import flip_labels, load, prepared
from flatmin.experiments.jobs import Request, train_all
from flatmin.experiments.models import build
from flatmin.experiments.runs.asked import Asked, sign
from flatmin.experiments.runs.record import Run


def experiment(**fields: Any) -> Experiment:
    """A small network on 16 of scikit-learn's digits, with noise in their labels."""
    values: dict[str, Any] = {
        "data": "digits",
        "train_examples": 16,
        "noise": 0.4,
        "augment": (),
    }
    values |= {"model": "resnet-8", "batch_size": 8}
    return Experiment.model_validate({**values, **fields})


def leave(folder: Path, one: Experiment) -> nn.Module:
    """A finished run; returns its model."""
    data = prepared(load("digits", folder), one)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build(one.model, 10, 1)
        model(torch.randn(64, 1, 8, 8))  # Running statistics that are not the first.
    run = Run(folder)
    run.claim(one, data)
    run.keep_labels(flip_labels(data.train.y, one.noise, 10, one.seed))
    found = {"test_error": 50.0, "gradient_examples": 32}
    line = {"epoch": 1, "step": 2, **found}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    run.finish(model.state_dict(), {**found, "seconds": 1.5})
    return model.eval()


def of_recipe(root: Path) -> Path:
    """Make ``root`` a folder of runs."""
    sign(root, Asked(recipe="table4", seeds=1))
    return root


#: Figure 1 in a second: a small network on the digits, with noise in their labels.
SMALL = (
    "data=digits",
    "model=small-convnet",
    'model_options={"width": 4}',
    "augment=[]",
    "noise=0.4",
    "m=null",
    "batch_size=64",
    "epochs=1",
    "device=cpu",
    "flatness_rho=0.5",
)


def train_digits(root: Path, *settings: str, name: str = "figure1") -> Path:
    """Train figure1 on the digits, or with other settings; the folder of its runs."""
    chosen = {one.partition("=")[0]: one for one in (*SMALL, *settings)}
    request = Request(name, (*chosen.values(),), root=root, data=root / "data")
    assert train_all(request, Console(file=io.StringIO()))
    return root / "figure1"
