"""What a comparison is: a frozen, validated record, and how its fields are set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flatmin.experiments.errors import BadInput, unknown
from flatmin.experiments.settings import parsed, validated

#: The data set that comes with scikit-learn: nothing to download.
DIGITS = "digits"


class Arm(BaseModel):
    """One way to train, to be compared with the others.

    Attributes:
        name: how tables and folders call it.
        label: how pictures call it.
        method: of the experiment: SAM around SGD, or SGD alone.
        length: epochs in multiples of the comparison's.
        cost: gradients per example and epoch.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    label: str
    method: Literal["sgd", "sam"]
    length: int
    cost: int


ARMS = (
    Arm(name="sgd", label="SGD", method="sgd", length=1, cost=1),
    Arm(name="sgd-2x", label="SGD 2x epochs", method="sgd", length=2, cost=1),
    Arm(name="sam", label="SAM", method="sam", length=1, cost=2),
)


class Comparison(BaseModel):
    """Everything that decides the numbers of ``flatmin compare``.

    The optimization settings are those of the paper's CIFAR experiments where it
    states them (learning rate 0.1, momentum 0.9, weight decay 5e-4, cosine schedule,
    rho from its grid), scaled to a data set of a thousand images.

    Attributes:
        data: ``"digits"`` or the absolute path of an image folder.
        image_size: side to which the images of a folder are resized, in pixels.
        test_share: share of a folder without train/test split that becomes the test.
        noise: shares of training labels that are replaced by another class.
        seeds: runs per arm; each has its own initialisation, order and noise.
        epochs: of SGD and of SAM; the second SGD arm gets twice as many.
        batch_size: examples per step; slightly more where it does not divide the set.
        lr: at the start of the cosine schedule.
        momentum: of SGD.
        weight_decay: of SGD, not part of SAM's perturbation.
        rho: SAM's radius; ``benchmarks/choose_rho.py`` chose it on validation data.
        width: channels of the network's first stage.
        sharpness_rho: radius at which sharpness is measured after training.
        landscape_points: grid points along each axis of a landscape; 0 draws none.
        device: where to train.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    data: str = DIGITS
    image_size: int = Field(default=32, ge=8, le=512)
    test_share: float = Field(default=0.2, gt=0, lt=1)
    noise: tuple[float, ...] = Field(default=(0.4, 0.0), min_length=1)
    seeds: int = Field(default=3, ge=1)
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    rho: float = Field(default=0.5, ge=0)
    width: int = Field(default=32, ge=1)
    sharpness_rho: float = Field(default=0.5, gt=0)
    landscape_points: int = Field(default=21, ge=0, le=101)
    device: Literal["cpu", "cuda", "mps"] = "cpu"

    def model_post_init(self, context: Any, /) -> None:
        """Refuse noise that hides all labels or repeats, and planes of one point."""
        del context
        if not all(0 <= share < 1 for share in self.noise):
            raise ValueError(f"noise must be shares in [0, 1), got {self.noise}")
        if len(set(self.noise)) < len(self.noise):
            raise ValueError(f"noise names a share twice: {self.noise}")
        if self.landscape_points == 1:
            raise ValueError("landscape_points must be 0, or at least 2, got 1")


def digits() -> Comparison:
    """Handwritten digits, 900 training images, 40 % label noise and none."""
    return Comparison()


RECIPES = {"digits": digits}


def recipe(name: str) -> Comparison:
    """The recipe of that name.

    Raises:
        BadInput: there is none.
    """
    if name not in RECIPES:
        raise BadInput(unknown("recipe", name, RECIPES))
    return RECIPES[name]()


def changed(base: Comparison, settings: Iterable[str]) -> Comparison:
    """``base`` with ``field=value`` settings applied; values are JSON, or words.

    Raises:
        BadInput: a setting has no ``=``, names no field, or its value is refused.
    """
    given = parsed(settings, Comparison.model_fields)
    return validated(Comparison, {**base.model_dump(), **given})


def with_data(base: Comparison, folder: Path) -> Comparison:
    """``base`` on the images of a folder."""
    return base.model_copy(update={"data": str(folder.resolve())})
