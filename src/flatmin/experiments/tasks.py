"""What a network is trained for: to tell classes apart, or to forecast series.

A task defines the loss, the numbers of a test, and the settings that it excludes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

if TYPE_CHECKING:
    from flatmin.experiments.config import Experiment

#: The label of fillers in a test batch; all processes then make equally many passes.
IGNORED = -100


class Tested(NamedTuple):
    """How a classifier does on some images.

    Attributes:
        error: share of wrong predictions, per cent.
        top5_error: share of images whose class is none of the five likeliest,
            likewise.
        loss: mean cross entropy.
    """

    error: float
    top5_error: float
    loss: float

    def line(self, part: str) -> dict[str, float]:
        """The numbers under the names that files have for them.

        Args:
            part: what was tested on: ``"test"``, ``"train"``, or ``"last"`` for the
                last weights on the test images.
        """
        top5 = {"top5_error": self.top5_error} if part == "test" else {}
        return {f"{part}_error": self.error, **top5, f"{part}_loss": self.loss}


class Forecasted(NamedTuple):
    """How a forecaster does on some windows of a standardised series.

    Attributes:
        mse: mean squared error, over windows, channels and steps; `WORST` if it is
            more, or NaN.
        mae: mean absolute error, likewise.
    """

    mse: float
    mae: float

    def line(self, part: str) -> dict[str, float]:
        """As of `Tested.line`."""
        return {f"{part}_mse": self.mse, f"{part}_mae": self.mae}


class Task(Protocol):
    """What the training loop asks a task for."""

    @property
    def examples(self) -> str:
        """What messages call the examples."""
        ...

    @property
    def score(self) -> str:
        """The number of a test by which runs are compared; less is better."""
        ...

    @property
    def tests(self) -> tuple[str, ...]:
        """The names of all numbers of a test."""
        ...

    def said(self, part: str, score: float) -> str:
        """The score in words: ``test error 3.21 %``."""
        ...

    def losses(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """The loss of each example ``[n]``."""
        ...

    @property
    def criterion(self) -> Callable[..., Tensor]:
        """The mean loss, without smoothing: what sharpness is measured of."""
        ...

    def wrong(self, outputs: Tensor, y: Tensor) -> list[Tensor]:
        """Return a list of the number of wrong predictions; empty for a forecast."""
        ...

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return what a batch adds to a test; the number of its examples comes last."""
        ...

    def tested(self, sums: list[float]) -> Tested | Forecasted:
        """The numbers of a test, from the sums over all of its batches."""
        ...


class _Classify:
    """Cross entropy, and the share of wrong answers."""

    examples = "images"
    score = "test_error"
    tests = ("test_error", "top5_error", "test_loss")
    criterion = staticmethod(cross_entropy)

    def said(self, part: str, score: float) -> str:
        return f"{part} error {score:.2f} %"

    def losses(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        y = y.to(outputs.dtype) if y.is_floating_point() else y
        return cross_entropy(outputs, y, reduction="none", label_smoothing=smoothing)

    def wrong(self, outputs: Tensor, y: Tensor) -> list[Tensor]:
        likely = y if y.dim() == 1 else y.argmax(1)
        return [(outputs.argmax(1) != likely).sum()]

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        best = outputs.topk(min(5, outputs.shape[1])).indices
        hits, real = best == y[:, None], counted(y)
        loss = cross_entropy(outputs, y, ignore_index=IGNORED, reduction="sum")
        return torch.stack(
            [hits[:, :1].any(1).sum(), hits.any(1).sum(), loss, real.sum()]
        )

    def tested(self, sums: list[float]) -> Tested:
        first, five, loss, n = sums
        return Tested(100 * (n - first) / n, 100 * (n - five) / n, loss / n)


#: The error of a training that has diverged: files have no infinity, and sweeps compare
#: finite errors.
WORST = 1e9


class _Forecast:
    """Mean squared error of windows ``[n, channels, horizon]``."""

    examples = "windows"
    score = "test_mse"
    tests = ("test_mse", "test_mae")
    criterion = staticmethod(mse_loss)

    def said(self, part: str, score: float) -> str:
        return f"{part} MSE {score:.4f}"

    def losses(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        del smoothing  # check_forecast refuses it.
        off = mse_loss(outputs, y.to(outputs.dtype), reduction="none")
        return off.flatten(1).mean(1)

    def wrong(self, outputs: Tensor, y: Tensor) -> list[Tensor]:
        del outputs, y
        return []

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        real = counted(y)
        there, truth = outputs[real], y[real].to(outputs.dtype)
        squares = mse_loss(there, truth, reduction="none").flatten(1).mean(1)
        sizes = l1_loss(there, truth, reduction="none").flatten(1).mean(1)
        return torch.stack([squares.sum(), sizes.sum(), real.sum()])

    def tested(self, sums: list[float]) -> Forecasted:
        squares, sizes, n = sums
        return Forecasted(_finite(squares / n), _finite(sizes / n))


def _finite(error: float) -> float:
    return WORST if math.isnan(error) else min(error, WORST)


#: Which class an image shows.
CLASSIFY: Task = _Classify()

#: How a series goes on.
FORECAST: Task = _Forecast()


def task_of(experiment: Experiment) -> Task:
    """Return the forecast if there is a horizon, else the classification."""
    return CLASSIFY if experiment.horizon is None else FORECAST


def counted(y: Tensor) -> Tensor:
    """Mark the examples that are no fillers, bool ``[n]``."""
    return (y != IGNORED).flatten(1).any(1) if y.dim() > 1 else y != IGNORED


def check_forecast(experiment: Experiment) -> None:
    """Refuse settings of a forecast that only images and their labels have.

    Raises:
        ValueError: one is set; the message says how to unset it.
    """
    for line, why in _excluded(experiment):
        raise ValueError(
            f"horizon {experiment.horizon} asks for a forecast, and {why}. Use {line}"
        )


def _excluded(one: Experiment) -> Iterator[tuple[str, str]]:
    """Yield what to set instead, and why, for each setting that a forecast excludes."""
    if one.augment:
        yield "augment=[]", "a series is not augmented"
    if one.mixup is not None:
        yield "mixup=null", "windows are not mixed"
    if one.noise or one.noisy_validation or one.true_class:
        line = "noise=0 noisy_validation=false true_class=false"
        yield line, "a series has no labels that noise could change"
    if one.bootstrap:
        yield "bootstrap=false", "there are no classes to predict for a second training"
    if one.label_smoothing:
        yield "label_smoothing=0", "the squared error has no labels to smooth"
    if one.image_size is not None:
        yield "image_size=null", "a series has no pixels"
    if one.channels_last:
        yield "channels_last=false", "a series has no convolutions of images"
    if one.freeze_norm:
        yield "freeze_norm=false", "its networks have no BatchNorm"
