"""Table 2: ImageNet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes import _notes
from flatmin.experiments.recipes._recipe import Cell, Metric, Recipe, rows, sam, sgd

NETWORKS = ("ResNet-50", "ResNet-101", "ResNet-152")
EPOCHS = (100, 200, 400)
ERRORS: tuple[tuple[str, str, Metric], ...] = (
    ("top-1", "top-1", "test_error"),
    ("top-5", "top-5", "top5_error"),
)

#: Three networks with three lengths; SAM top-1 and top-5, SGD top-1 and top-5.
PRINTED = """
22.5±.1   6.28±.08 22.9±.1   6.62±.11
21.4±.1   5.82±.03 22.3±.1   6.37±.04
20.9±.1   5.51±.03 22.3±.1   6.40±.06
20.2±.1   5.12±.03 21.2±.1   5.66±.05
19.4±.1   4.76±.03 20.9±.1   5.66±.04
19.0±<.01 4.65±.05 22.3±.1   6.41±.06
19.2±<.01 4.69±.04 20.4±<.0  5.39±.06
18.5±.1   4.37±.03 20.3±.2   5.39±.07
18.4±<.01 4.35±.04 20.9±<.0  5.84±.07
"""


def table2() -> Recipe:
    """Test error on ImageNet of three ResNets, top-1 and top-5."""
    return Recipe(
        name="table2",
        title="ImageNet, test error in %",
        headings=("network", "epochs", "method", "error"),
        cells=tuple(_cells()),
        notes=(
            "SGD has rows of its own for each length. For equal cost, compare SAM's n "
            "epochs with 2 n epochs of SGD, or with the better of both. The "
            'paper\'s text "20.3 % to 18.4 %" for ResNet-152 compares SGD of 200 '
            "epochs with SAM of 400: four times the gradients. At equal cost it is "
            "20.3 % to 18.5 %.",
            'The paper prints "±<.0" in two cells, which is kept.',
            "Each core perturbs by its own examples: 4096 on 32 cores make m = 128.",
            "The paper searched rho with ResNet-50 and 100 epochs: 0.05.",
            "Networks and initial weights are those of timm. The paper "
            "does not mention a warm-up of the learning rate; there is none here.",
            _notes.SGD,
            _notes.DECAY,
        ),
    )


def _cells() -> Iterator[Cell]:
    settings = product(NETWORKS, EPOCHS)
    for (network, epochs), line in zip(settings, rows(PRINTED), strict=True):
        base = Experiment(
            data="imagenet",
            image_size=224,
            augment=("random_resized_crop", "flip"),
            model=network.lower().replace("-", ""),
            weights="none",
            m=128,
            lr=1.0,
            weight_decay=1e-4,
            label_smoothing=0.1,
            batch_size=4096,
            epochs=epochs,
            flatness_rho=None,
        )
        arms = {"SAM": sam(base, 0.05), "SGD": sgd(base, lengths=(1,))}
        columns = product(arms, ERRORS)
        for (method, (slug, label, metric)), number in zip(columns, line, strict=True):
            folder = f"table2/{network.lower()}/{epochs}-epochs/{method.lower()}"
            yield Cell(
                name=f"{folder}/{slug}",
                labels=(network, str(epochs), method, label),
                arms=arms[method],
                metric=metric,
                paper=number,
                folder=folder,
            )
