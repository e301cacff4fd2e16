"""The two comparisons: on the embedded digits, and on any folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flatmin.experiments.compare.plan import Comparison, Setting
from flatmin.experiments.config import Experiment

#: Learning rate and weight decay of fine-tuning, and of training from scratch.
_TUNING = {"sgd": (0.01, 1e-4), "adamw": (3e-4, 0.05)}
_SCRATCH = {"sgd": (0.1, 5e-4), "adamw": (1e-3, 0.05)}


def digits() -> Comparison:
    """Compare on scikit-learn's digits, with many wrong labels and with few images.

    The optimization settings are those of the paper's CIFAR experiments where it
    states them (learning rate 0.1, momentum 0.9, weight decay 5e-4, cosine schedule),
    on a network and a data set of a thousandth of the size.
    """
    experiment = Experiment(
        data="digits",
        augment=(),
        model="small-convnet",
        model_options={"width": 16},
        lr=0.1,
        batch_size=64,
        epochs=30,
        device="cpu",
        flatness_rho=0.2,
    )
    few = {"train_examples": 100, "batch_size": 32, "epochs": 60}
    return Comparison(
        experiment=experiment,
        settings=(
            Setting(name="noise-40", label="40 % label noise", fields={"noise": 0.4}),
            Setting(name="few", label="100 training images", fields=few),
        ),
        seeds=4,
        lrs=(1, 2),
        rhos=(0.2, 0.5),
    )


def folder(
    path: Path, model: str, weights: str | None, optimizer: Literal["sgd", "adamw"]
) -> Comparison:
    """Compare on a folder of the user's images, without label noise.

    Learning rates and weight decay are common ones for fine-tuning and for training
    from scratch; the base tries half and twice the learning rate too.

    Args:
        path: of the folder.
        model: name of a network of timm's.
        weights: a file of its weights, ``"none"`` to train from scratch, or None for
            timm's own.
        optimizer: the base optimizer.
    """
    scratch = weights == "none"
    lr, decay = (_SCRATCH if scratch else _TUNING)[optimizer]
    experiment = Experiment(
        data=str(path.resolve()),
        model=model,
        weights=weights,
        channels_last=True,
        augment=("random_resized_crop", "flip"),
        optimizer=optimizer,
        lr=lr,
        weight_decay=decay,
        batch_size=32,
        epochs=30 if scratch else 8,
        flatness_rho=None,
    )
    as_it_is = Setting(name="as-it-is", label=path.resolve().name)
    return Comparison(
        experiment=experiment,
        settings=(as_it_is,),
        search_seeds=1,
        landscape_points=0,
    )
