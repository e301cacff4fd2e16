"""The networks of Table 1 and their settings, which Tables 6 and 9 print."""

from __future__ import annotations

from dataclasses import dataclass

from flatmin.experiments.config import (
    AUTO_AUGMENT,
    BASIC,
    CUTOUT,
    Augmentation,
    Experiment,
)
from flatmin.experiments.recipes._recipe import M

#: Name in paths, name in tables, and the augmentations.
AUGMENTATIONS: tuple[tuple[str, str, tuple[Augmentation, ...]], ...] = (
    ("basic", "Basic", BASIC),
    ("cutout", "Cutout", CUTOUT),
    ("aa", "AA", AUTO_AUGMENT),
)

#: Data set and its name in tables.
CIFAR = (("cifar10", "CIFAR-10"), ("cifar100", "CIFAR-100"))


@dataclass(frozen=True, slots=True)
class Row:
    """A network as Tables 1 and 6 have it.

    Attributes:
        slug: its name in paths.
        label: its name in tables.
        model: its name for ``flatmin.experiments.models.build``.
        epochs: of SAM.
        lr: learning rate on CIFAR-10 and on CIFAR-100.
        weight_decay: on both.
        rho: on CIFAR-10 and on CIFAR-100.
    """

    slug: str
    label: str
    model: str
    epochs: int
    lr: tuple[float, float]
    weight_decay: float
    rho: tuple[float, float]

    def base(self, k: int, augment: tuple[Augmentation, ...]) -> Experiment:
        """Return what SAM and SGD have in common on the k-th data set of `CIFAR`."""
        return Experiment(
            data=CIFAR[k][0],
            augment=augment,
            model=self.model,
            m=M,
            epochs=self.epochs,
            lr=self.lr[k],
            weight_decay=self.weight_decay,
        )


ROWS = (
    Row(
        "wrn-28-10-200",
        "WRN-28-10, 200 epochs",
        "wrn-28-10",
        200,
        (0.1, 0.1),
        0.0005,
        (0.05, 0.1),
    ),
    Row(
        "wrn-28-10-1800",
        "WRN-28-10, 1800 epochs",
        "wrn-28-10",
        1800,
        (0.05, 0.05),
        0.001,
        (0.05, 0.1),
    ),
    Row(
        "shake-shake",
        "Shake-Shake 26 2x96d",
        "shake-shake-26-2x96d",
        1800,
        (0.02, 0.02),
        0.001,
        (0.02, 0.05),
    ),
    Row(
        "pyramidnet",
        "PyramidNet",
        "pyramidnet-272",
        1800,
        (0.05, 0.05),
        0.0005,
        (0.05, 0.2),
    ),
    Row(
        "pyramidnet-shakedrop",
        "PyramidNet + ShakeDrop",
        "pyramidnet-272-shakedrop",
        1800,
        (0.02, 0.05),
        0.0005,
        (0.05, 0.05),
    ),
)
