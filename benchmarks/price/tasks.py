"""The tasks: data, network, base optimizer, and the radii that SAM may choose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arms import FEW, FEW_LOW, FEWEST, MANY, Tries

from flatmin.experiments.config import Experiment

#: Folders below ``--data``, and where their public originals are.
_CIFAR = "cifar10-jpeg"
_CLOTHING = "clothing"


@dataclass(frozen=True, slots=True)
class Task:
    """One task of the study.

    Attributes:
        words: its name in the table.
        fields: of its runs.
        rhos: radii of SAM, and of methods that climb like SAM.
        folder: of images below ``--data``; None for a data set that has a name.
        origin: where the public original of the folder is.
        tries: what validation chooses from.
    """

    words: str
    fields: dict[str, Any]
    rhos: tuple[float, ...]
    folder: str | None = None
    origin: str = ""
    tries: Tries = MANY

    def experiment(self, data: Path, weights: str | None = None) -> Experiment:
        """Return the base optimizer's run, with the task's own length and rate.

        Args:
            data: folder of the data sets.
            weights: a file for a pretrained network; None to download its weights.
        """
        named = {} if self.folder is None else {"data": str(data / self.folder)}
        values = {"method": "sgd", "flatness_rho": None, "device": "cpu"}
        changes = {**named, "weights": weights}
        return Experiment.model_validate({**values, **self.fields, **changes})


_DIGITS = {
    "data": "digits",
    "augment": (),
    "model": "small-convnet",
    "model_options": {"width": 16},
    "lr": 0.1,
    "batch_size": 64,
    "epochs": 30,
}

_RESNET = {
    "model": "resnet-8",
    "model_options": {"width": 32, "stem_stride": 2},
    "augment": ("flip", "crop"),
    "lr": 0.1,
    "batch_size": 128,
    "epochs": 60,
    "channels_last": True,
}

_FROM_CIFAR = (
    "https://www.cs.toronto.edu/~kriz/cifar.html, as train/CLASS, test/CLASS, and as "
    "validation/CLASS the last 500 training images of each class, by name"
)
_FROM_CLOTHING = "https://github.com/alexeygrigorev/clothing-dataset-small"

_FORECAST = {
    "data": "etth1",
    "model": "samformer",
    "augment": (),
    "optimizer": "adam",
    "lr": 1e-3,
    "weight_decay": 0.0,
    "batch_size": 256,
    "epochs": 30,
}

_SENTENCES = {
    "data": "sst2",
    "tokens": 64,
    "augment": (),
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "batch_size": 32,
}

TASKS: dict[str, Task] = {
    "digits": Task("digits", _DIGITS, (0.1, 0.2, 0.5)),
    "digits-few": Task(
        "digits, 100 training images",
        {**_DIGITS, "train_examples": 100, "batch_size": 32, "epochs": 60},
        (0.1, 0.2, 0.5),
    ),
    "digits-noise": Task(
        "digits, 40 % label noise", {**_DIGITS, "noise": 0.4}, (0.1, 0.2, 0.5)
    ),
    "cifar-5000": Task(
        "CIFAR-10, 5,000 training images",
        {**_RESNET, "train_examples": 5_000},
        (0.05, 0.1, 0.2),
        _CIFAR,
        _FROM_CIFAR,
        FEWEST,
    ),
    "cifar-5000-noise": Task(
        "CIFAR-10, 5,000 training images, 20 % label noise",
        {**_RESNET, "train_examples": 5_000, "noise": 0.2},
        (0.05, 0.1, 0.2),
        _CIFAR,
        _FROM_CIFAR,
        FEWEST,
    ),
    "cifar-20000": Task(
        "CIFAR-10, 20,000 training images",
        {**_RESNET, "train_examples": 20_000},
        (0.05, 0.1, 0.2),
        _CIFAR,
        _FROM_CIFAR,
        FEWEST,
    ),
    "clothing": Task(
        "clothing photographs, EfficientNet-Lite0 fine-tuned",
        {
            "model": "tf_efficientnet_lite0",
            "image_size": 112,
            "augment": ("random_resized_crop", "flip"),
            "channels_last": True,
            "freeze_norm": True,
            "lr": 0.01,
            "weight_decay": 1e-4,
            "batch_size": 32,
            "epochs": 6,
            "train_examples": 1_000,
        },
        (0.02, 0.05, 0.1),
        _CLOTHING,
        _FROM_CLOTHING,
        FEW,
    ),
    "etth1-96": Task(
        "ETTh1, 96 hours ahead, SAMformer",
        {**_FORECAST, "horizon": 96},
        (0.5, 0.7, 1),
        tries=FEW_LOW,
    ),
    "etth1-336": Task(
        "ETTh1, 336 hours ahead, SAMformer",
        {**_FORECAST, "horizon": 336},
        (0.5, 0.7, 1),
        tries=FEW_LOW,
    ),
    "sst2": Task(
        "SST-2, 1,000 training sentences, MiniLM fine-tuned",
        {
            **_SENTENCES,
            "tokens": 48,
            "model": "minilm-l6",
            "lr": 5e-5,
            "epochs": 2,
            "warmup": 0.2,
            "train_examples": 1_000,
        },
        (0.001, 0.003, 0.01, 0.02),
        tries=FEW,
    ),
    "sst2-scratch": Task(
        "SST-2, BERT-tiny from scratch",
        {**_SENTENCES, "model": "bert-tiny", "lr": 5e-4, "epochs": 4, "warmup": 0.4},
        (0.01, 0.02, 0.05, 0.1, 0.2),
        tries=FEW,
    ),
}
