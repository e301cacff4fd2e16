"""Folders of runs as ``flatmin train`` leaves them, without the training."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from flatmin.experiments.datasets import load, prepared
from flatmin.experiments.experiment import Experiment
from flatmin.experiments.models import build
from flatmin.experiments.noise import flip_labels


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


def leave(folder: Path, run: Experiment) -> nn.Module:
    """A finished run; returns its model."""
    data = prepared(load("digits", folder), run)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build(run.model, 10, 1)
        model(torch.randn(64, 1, 8, 8))  # Running statistics that are not the first.
    y = flip_labels(data.train.y, run.noise, 10, run.seed)
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "weights.safetensors")
    save_file({"y": y}, folder / "labels.safetensors")
    written = {"experiment": run.model_dump(mode="json"), "data_sha256": data.digest()}
    (folder / "config.json").write_text(json.dumps({**written, "world": 1}))
    (folder / "result.json").write_text('{"test_error": 1.0}')
    return model.eval()


def of_recipe(root: Path) -> Path:
    """Make ``root`` a folder of runs."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "recipe-table4.json").write_text("{}")
    return root
