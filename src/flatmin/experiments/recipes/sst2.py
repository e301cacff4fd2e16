"""Sentences of film reviews: a small network from scratch, and MiniLM fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes._recipe import Cell, Recipe, sam, sgd

#: What ``flatmin sweep`` tries.
RHOS = (0.02, 0.05, 0.1, 0.2)

#: The networks: their names in the table, and how they are trained.
_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-tiny": ("BERT-tiny, from scratch", {"lr": 1e-3, "epochs": 5, "warmup": 0.5}),
    "minilm-l6": (
        "MiniLM, fine-tuned",
        {"lr": 5e-5, "epochs": 3, "warmup": 0.3, "train_examples": 1_000},
    ),
}


def sst2() -> Recipe:
    """Test error on SST-2 of a network from scratch and of a pretrained one."""
    return Recipe(
        name="sst2",
        title="SST-2, test error",
        headings=("network", "method"),
        cells=tuple(_cells()),
        notes=(
            "No paper has these numbers. The settings of AdamW are common ones.",
            "MiniLM is fine-tuned on 1,000 of the 6,920 training sentences. Its "
            "weights are those of all-MiniLM-L6-v2, from Hugging Face's hub, or from a "
            "file with --set weights=FILE.",
            "AdamW alone is trained for the epochs of SAM and for twice as many, and "
            "the better mean is reported, since a step of SAM takes two gradients.",
            "Any validation above 0 tests on the 872 sentences that are published for "
            "it.",
        ),
        scale="a recipe of flatmin's own",
        rhos=RHOS,
    )


def _base(network: str, fields: dict[str, Any]) -> Experiment:
    values = {
        "data": "sst2",
        "tokens": 64,
        "augment": (),
        "model": network,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "batch_size": 32,
        "flatness_rho": None,
    }
    return Experiment.model_validate({**values, **fields})


def _cells() -> Iterator[Cell]:
    for network, (label, fields) in _NETWORKS.items():
        base = _base(network, fields)
        for slug, name, arms in (
            ("adamw", "AdamW", sgd(base)),
            ("sam", "SAM", sam(base, 0.05)),
        ):
            yield Cell(f"sst2/{network}/{slug}", (label, name), arms)
