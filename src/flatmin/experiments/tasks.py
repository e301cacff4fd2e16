"""What a network is trained for: to tell images or sentences apart, or to forecast.

A task defines the loss, the numbers of a test, and the settings that it excludes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

if TYPE_CHECKING:
    from flatmin.experiments.config import Experiment

#: The label of fillers in a test batch; all processes then make equally many passes.
IGNORED = -100

#: What is predicted where outputs are not finite; no class has this number.
NO_CLASS = -1


class Tested(NamedTuple):
    """How a classifier does on some images or sentences.

    Attributes:
        error: share of wrong predictions, per cent.
        top5_error: share of examples whose class is none of the five likeliest,
            likewise.
        loss: mean cross entropy.
        ece: expected calibration error, per cent: how far the share of right answers
            is from the confidence in them, in `_BINS` bins of confidence (Guo et al.
            2017, arXiv:1706.04599).
    """

    error: float
    top5_error: float
    loss: float
    ece: float

    def line(self, part: str) -> dict[str, float]:
        """The numbers under the names that files have for them.

        Args:
            part: what was tested on: ``"test"``, ``"train"``, or ``"last"`` for the
                last weights on the test images.
        """
        top5 = {"top5_error": self.top5_error} if part == "test" else {}
        rest = {f"{part}_loss": self.loss, f"{part}_ece": self.ece}
        return {f"{part}_error": self.error, **top5, **rest}


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

    def likeliest(self, outputs: Tensor) -> list[Tensor]:
        """Return a list of the likeliest classes ``[n]``; empty for a forecast.

        An example whose outputs are not finite has `NO_CLASS`. Forecasts would take
        more room than the weights and the series together.
        """
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
    tests = ("test_error", "top5_error", "test_loss", "test_ece")
    criterion = staticmethod(cross_entropy)

    def said(self, part: str, score: float) -> str:
        return f"{part} error {score:.2f} %"

    def losses(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        y = y.to(outputs.dtype) if y.is_floating_point() else y
        return cross_entropy(outputs, y, reduction="none", label_smoothing=smoothing)

    def wrong(self, outputs: Tensor, y: Tensor) -> list[Tensor]:
        likely = y if y.dim() == 1 else y.argmax(1)
        return [(likeliest(outputs) != likely).sum()]

    def likeliest(self, outputs: Tensor) -> list[Tensor]:
        return [likeliest(outputs)]

    def sums(self, outputs: Tensor, y: Tensor) -> Tensor:
        first, real = likeliest(outputs), counted(y)
        right, known = first == y, first != NO_CLASS
        five = outputs.topk(min(5, outputs.shape[1])).indices
        # Of more than five equal outputs, the likeliest need not be among the five.
        hits = right | (five == y[:, None]).any(1) & known
        loss = cross_entropy(outputs, y, ignore_index=IGNORED, reduction="sum")
        numbers = [right.sum(), hits.sum(), loss, real.sum()]
        return torch.cat([_gaps(outputs, right, real), torch.stack(numbers)])

    def tested(self, sums: list[float]) -> Tested:
        *gaps, first, five, loss, n = sums
        errors = 100 * (n - first) / n, 100 * (n - five) / n
        return Tested(*errors, loss / n, 100 * sum(map(abs, gaps)) / n)


def likeliest(outputs: Tensor) -> Tensor:
    """Return the likeliest class of each example ``[n]``, int64.

    An example whose outputs are not all finite, as those of a network that has
    diverged, has `NO_CLASS`: the largest of NaN would be class 0.

    Args:
        outputs: ``[n, classes]``.
    """
    known = outputs.isfinite().all(1)
    return torch.where(known, outputs.argmax(1), NO_CLASS)


#: Bins of confidence, equally wide.
_BINS = 15


def _gaps(outputs: Tensor, right: Tensor, real: Tensor) -> Tensor:
    """Sum, in each bin of confidence, what right answers exceed the confidence by.

    Args:
        outputs: ``[n, classes]``.
        right: whether the likeliest class is the example's ``[n]``.
        real: whether an example counts ``[n]``.

    Returns:
        ``[bins]``, in float32 or more.
    """
    more = torch.promote_types(outputs.dtype, torch.float32)
    confidence = outputs.to(more).softmax(1).amax(1)
    # The upper end of a bin belongs to it. NaN, of a network that has diverged, stays.
    at = (confidence * _BINS).ceil().nan_to_num(1).clamp(1, _BINS) - 1
    inside = at[:, None] == torch.arange(_BINS, device=at.device)
    gaps = (right.to(more) - confidence)[:, None]
    return torch.where(inside & real[:, None], gaps, 0).sum(0)


class _Read(_Classify):
    """The same, of sentences."""

    examples = "sentences"


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

    def likeliest(self, outputs: Tensor) -> list[Tensor]:
        del outputs
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

#: Which class a sentence belongs to.
READ: Task = _Read()

#: How a series goes on.
FORECAST: Task = _Forecast()


def task_of(experiment: Experiment) -> Task:
    """Return the task that horizon and tokens ask for; without both, that of images."""
    if experiment.horizon is not None:
        return FORECAST
    return CLASSIFY if experiment.tokens is None else READ


def diverged(result: Mapping[str, Any]) -> bool:
    """Whether a stored result is of a network whose losses are not finite.

    Args:
        result: as files have it: None for a number that is not finite.
    """
    losses = [result.get(name, 0.0) for name in ("test_loss", "train_loss")]
    return None in losses or result.get("test_mse") == WORST


def failures(results: Sequence[Mapping[str, Any]]) -> str:
    """Return `` (2 of 3 diverged)`` for tables, or nothing if none has."""
    n = sum(map(diverged, results))
    return f" ({n} of {len(results)} diverged)" if n else ""


def counted(y: Tensor) -> Tensor:
    """Mark the examples that are no fillers, bool ``[n]``."""
    return (y != IGNORED).flatten(1).any(1) if y.dim() > 1 else y != IGNORED


def check_task(experiment: Experiment) -> None:
    """Refuse settings that have no meaning for the task of an experiment.

    Raises:
        ValueError: one is set; the message says how to unset it.
    """
    one = experiment
    if one.horizon is not None and one.tokens is not None:
        raise ValueError(
            f"horizon {one.horizon} asks for a forecast, and tokens {one.tokens} for "
            "sentences. Use tokens=null, or horizon=null"
        )
    if one.horizon is not None:
        _refuse(f"horizon {one.horizon} asks for a forecast", _not_of_series(one))
    if one.tokens is not None:
        _refuse(f"tokens {one.tokens} asks for sentences", _only_of_images(one))


def _refuse(asked: str, excluded: Iterator[tuple[str, str]]) -> None:
    for line, why in excluded:
        raise ValueError(f"{asked}, and {why}. Use {line}")


def _not_of_series(one: Experiment) -> Iterator[tuple[str, str]]:
    """Yield what to set instead, and why, for each setting that a forecast excludes."""
    yield from _only_of_images(one)
    if one.noise or one.noisy_validation or one.true_class:
        line = "noise=0 noisy_validation=false true_class=false"
        yield line, "a series has no labels that noise could change"
    if one.bootstrap:
        yield "bootstrap=false", "there are no classes to predict for a second training"
    if one.label_smoothing:
        yield "label_smoothing=0", "the squared error has no labels to smooth"


def _only_of_images(one: Experiment) -> Iterator[tuple[str, str]]:
    """Yield the same for each setting that only images have."""
    if one.augment:
        yield "augment=[]", "only images are augmented"
    if one.mixup is not None:
        yield "mixup=null", "only images are mixed"
    if one.image_size is not None:
        yield "image_size=null", "only images have pixels"
    if one.channels_last:
        yield "channels_last=false", "only images have channels to put last"
    if one.freeze_norm:
        yield "freeze_norm=false", "only networks of images have BatchNorm here"
