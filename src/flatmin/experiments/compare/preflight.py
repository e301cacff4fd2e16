"""Checks before a comparison: could SAM help here at all? Nothing is written."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from flatmin.experiments import prepare
from flatmin.experiments.batches import Batch
from flatmin.experiments.compare.plan import ARMS, BASE, Comparison, Setting
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, findings, prepared
from flatmin.experiments.models import SCRATCH
from flatmin.experiments.models.registry import is_timms
from flatmin.experiments.tasks import likeliest
from flatmin.experiments.train import Training

#: Steps of the base before the radius is tried, and seconds for them.
_WARMUP, _PATIENCE = 5, 4.0

#: Images that the base has to fit, seconds it has, and the error that counts as fitted.
_FIT_IMAGES, _FIT_SECONDS, _FIT_ERROR = 256, 20.0, 0.05

#: Rises of the loss, relative to it, and shares of the summed learning rates matter
#: only from here on.
_RISE, _TAIL = 1e-3, 0.05

#: Held-out images per class that are needed to tell settings apart.
_HELD = 5

#: Most that may be left of BatchNorm's initial statistics when the last weights are
#: tested.
_LEFT = 0.05

#: More examples per perturbation than this are worth a note.
_MOST_EXAMPLES = 512


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        level: ``"ok"``, ``"note"`` or ``"warning"``.
        check: the name of the check.
        sentence: what was found, with the numbers it rests on.
    """

    level: Literal["ok", "note", "warning"]
    check: str
    sentence: str


def checked(
    fabric: Fabric, what: Comparison, setting: Setting, data: DataSet
) -> list[Finding]:
    """Run all checks of a setting, in about a minute.

    Args:
        fabric: of this process.
        what: the comparison.
        setting: of the comparison.
        data: the images of the setting.

    Raises:
        BadInput: the setting does not fit the data or the network.
    """
    base = what.search(what.candidates(setting, BASE)[-1], len(data.train.y), 0)
    training = Training(fabric, base, data)
    for arm in ARMS[1:]:
        prepare.optimizer(what.candidates(setting, arm)[0], nn.Linear(1, 1))
    _warm_up(training)
    return [
        *_cheap(training, what, setting, data),
        *(Finding("note", "images", one) for one in findings(data)),
        fits(fabric, what, setting, data),
    ]


def warnings(
    training: Training, what: Comparison, setting: Setting, data: DataSet
) -> list[str]:
    """Return the warnings of the checks that take seconds.

    Args:
        training: of the base, after a few steps; no more are taken.
        what: the comparison.
        setting: of the comparison.
        data: the images of the setting.
    """
    found = _cheap(training, what, setting, data)
    return [one.sentence for one in found if one.level == "warning"]


def _cheap(
    training: Training, what: Comparison, setting: Setting, data: DataSet
) -> list[Finding]:
    groups = next(training.batches.train(0))
    rates = [training.schedule.lr_lambdas[0](i) for i in range(training.steps)]
    return [
        *(rise(training, groups, rho, len(data.classes)) for rho in what.rhos),
        *gate(what.common(setting), rates),
        group_size(training.model, len(groups[0][0])),
        *running_statistics(training),
        held_out(what, setting, data),
    ]


def _warm_up(training: Training) -> None:
    prepare.train_mode(training.experiment, training.model)
    until = time.perf_counter() + _PATIENCE
    for groups in islice(training.batches.train(0), min(_WARMUP, training.steps)):
        training.step(groups)
        if time.perf_counter() > until:
            break


def rise(
    training: Training, groups: Sequence[Batch], rho: float, classes: int
) -> Finding:
    """Does the loss at ``w + eps`` rise by an amount that matters?

    Args:
        training: its weights are restored afterwards.
        groups: each has a perturbation of its own; two are measured.
        rho: the radius.
        classes: of the data.
    """
    measured = [_rise(training, x, y, rho) for x, y in groups[:2]]
    columns = zip(*measured, strict=True)
    loss, more, norm = (sum(column) / len(measured) for column in columns)
    text = f"rho {rho:g} raises the training loss of {loss:.4g} by {more:.3g}"
    if norm < 0.5 * rho:
        return Finding(
            "warning",
            "rho",
            f"{text}: of the perturbation only a norm of {norm:.3g} is left after "
            "rounding to the weights' precision. Keep the weights in 32 bits.",
        )
    if not math.isfinite(more) or more > math.log(classes):
        return Finding(
            "warning",
            "rho",
            f"{text}, more than the loss of guessing, {math.log(classes):.3g}: "
            "rho is too large.",
        )
    if more < _RISE * loss:
        return Finding(
            "warning", "rho", f"{text}, below 0.1 % of it: rho is too small to matter."
        )
    return Finding("ok", "rho", f"{text}.")


def _rise(
    training: Training, x: Tensor, y: Tensor, rho: float
) -> tuple[float, float, float]:
    """Return loss, rise at ``w + eps``, and norm of eps after the weights' rounding."""
    weights = [p for p in training.model.parameters() if p.requires_grad]
    torch.manual_seed(0)  # Dropout is the same in both passes.
    loss = training.loss(_outputs(training, x), y).mean()
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    pairs = [(p, g) for p, g in zip(weights, slopes, strict=True) if g is not None]
    length = math.sqrt(sum(float(g.float().square().sum()) for _, g in pairs))
    before, moved = [p.detach().clone() for p, _ in pairs], 0.0
    with torch.no_grad():
        for (p, g), old in zip(pairs, before, strict=True):
            p.add_(g * (rho / max(length, 1e-12)))
            moved += float((p.float() - old.float()).square().sum())
        torch.manual_seed(0)
        there = training.loss(_outputs(training, x), y).mean()
        for (p, _), old in zip(pairs, before, strict=True):
            p.copy_(old)
    here = float(loss.detach())
    return here, float(there) - here, math.sqrt(moved)


def _outputs(training: Training, x: Tensor) -> Tensor:
    """What the network itself returns: Fabric's wrapper asks for its own backward."""
    precision = training.fabric.strategy.precision
    with training.fabric.autocast():
        return training.state.network(precision.convert_input(x)).float()


def gate(experiment: Experiment, rates: Sequence[float]) -> Iterator[Finding]:
    """Does the method climb within the schedule, while the learning rate is high?

    Args:
        experiment: the method's options tell when the method climbs.
        rates: the learning rate of each step of the run, in any unit.
    """
    options, steps, first = experiment.method_options, len(rates), 0
    if experiment.method == "late_sam":
        whole = options.get("steps", steps)
        first = round((1 - options.get("share", 0.125)) * whole)
    every = options.get("k", 1)
    if first >= steps or every > steps:
        yield Finding(
            "warning",
            "gate",
            f"SAM starts at step {first:,}, every {every:,} steps, and the run has "
            f"{steps:,}. Let the method's steps be those of the run.",
        )
        return
    tail = sum(rates[first:]) / sum(rates)
    yield Finding(
        "warning" if tail < _TAIL else "ok",
        "schedule",
        f"SAM is active from step {first:,} of {steps:,}; {tail:.1%} of the summed "
        "learning rates lie there.",
    )


def group_size(model: nn.Module, examples: int) -> Finding:
    """Is a perturbation made of neither too many nor too few examples?"""
    words = f"{examples:,} examples share a perturbation"
    norm = any(isinstance(m, _BatchNorm) for m in model.modules())
    if examples > _MOST_EXAMPLES:
        return Finding(
            "note",
            "m",
            f"{words}; fewer were better in the paper (sec. 4.1): set m.",
        )
    if examples <= 2 and norm:
        return Finding(
            "warning", "m", f"{words}, too few for BatchNorm's statistics: raise m."
        )
    return Finding("ok", "m", f"{words}.")


def running_statistics(training: Training) -> Iterator[Finding]:
    """Do BatchNorm's running statistics follow the weights within the run?"""
    one = training.experiment
    layers = [m for m in training.model.modules() if isinstance(m, _BatchNorm)]
    followed = [m for m in layers if m.running_mean is not None]
    rates = [m.momentum for m in followed if m.momentum is not None]
    if one.freeze_norm or not rates:
        return
    passes = training.batches.groups * one.accumulate
    left = (1 - min(rates)) ** (training.steps * passes)
    text = f"after the {training.steps:,} steps of the longest run, BatchNorm's running"
    text += f" statistics are still {left:.0%} those it began with"
    pretrained = one.weights != SCRATCH and (one.weights or is_timms(one.model))
    advice = "use --set freeze_norm=true" if pretrained else "train for more steps"
    few = left > _LEFT
    yield Finding(
        "warning" if few else "ok",
        "statistics",
        f"{text}: {advice}." if few else f"{text}.",
    )


def held_out(what: Comparison, setting: Setting, data: DataSet) -> Finding:
    """Are there enough held-out images to choose settings on?

    Args:
        what: the comparison.
        setting: of the comparison.
        data: the images of the setting.
    """
    one = what.search(what.candidates(setting, BASE)[0], len(data.train.y), seed=0)
    right = one.model_copy(update={"noisy_validation": False})
    y = prepared(data, right).test.y
    fewest = int(y.bincount(minlength=len(data.classes)).min())
    return Finding(
        "warning" if fewest < _HELD else "ok",
        "validation",
        f"settings are chosen on {len(y):,} images, {fewest} of the smallest class.",
    )


def fits(fabric: Fabric, what: Comparison, setting: Setting, data: DataSet) -> Finding:
    """Does the base fit a few training images within 20 seconds?

    Args:
        fabric: of this process.
        what: the comparison.
        setting: of the comparison.
        data: the images of the setting.
    """
    one = what.common(setting).model_copy(
        update={"method": "sgd", "epochs": 1000, "warmup": 0, "flatness_rho": None}
    )
    training = Training(fabric, one, data)
    count = max(1, _FIT_IMAGES // one.batch_size)
    batches = list(islice(training.batches.train(0), count))
    prepare.train_mode(one, training.model)
    until, steps, error = time.perf_counter() + _FIT_SECONDS, 0, 1.0
    while error > _FIT_ERROR and time.perf_counter() < until:
        for groups in batches:
            training.step(groups)
        steps += len(batches)
        error = _error(training, batches)
    images = sum(len(x) for groups in batches for x, _ in groups)
    text = f"the base reaches a training error of {error:.1%} on {images} images"
    text += f" after {steps:,} steps"
    if error <= _FIT_ERROR:
        return Finding("ok", "fit", f"{text}.")
    return Finding(
        "warning",
        "fit",
        f"{text}: a method that regularises cannot help a network that does not fit.",
    )


def _error(training: Training, batches: Sequence[Sequence[Batch]]) -> float:
    wrong = seen = 0
    with torch.no_grad():
        for x, y in (group for groups in batches for group in groups):
            likely = y if y.dim() == 1 else y.argmax(1)
            wrong += int((likeliest(training.model(x)) != likely).sum())
            seen += len(x)
    return wrong / seen
