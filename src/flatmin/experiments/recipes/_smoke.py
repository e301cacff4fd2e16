"""Make a recipe take seconds: the same cells, the smallest networks, few images."""

from __future__ import annotations

import math
from dataclasses import replace

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes._recipe import Recipe

#: The smallest network of the same kind, and the images it gets, in pixels.
_SMALLEST: dict[str, tuple[str, int | None]] = {
    "resnet-": ("resnet-8", 16),
    "wrn-40-10-no-bn": ("wrn-10-1-no-bn", 16),
    "wrn-": ("wrn-10-1", 16),
    "shake-shake-": ("shake-shake-8-2x8d", 16),
    "pyramidnet-272-shakedrop": ("pyramidnet-11-shakedrop", 16),
    "pyramidnet-": ("pyramidnet-11", 16),
    "resnet": ("test_resnet.r160_in1k", 32),
    "tf_efficientnet_": ("test_efficientnet.r160_in1k", 32),
    "samformer": ("samformer", None),
    "minilm-": ("bert-tiny", None),
    "bert-": ("bert-tiny", None),
}
_BATCH = 8
_STEPS = 2


def smoke(recipe: Recipe) -> Recipe:
    """Reduce every cell to two steps and one seed, to test the code and nothing else.

    Data set, augmentation, noise and method are the recipe's. Networks start from
    random weights. Groups of ``m`` examples are 1 or 4 of a batch of 8. Spectra are
    measured after the 1st, 2nd, ... of as many epochs. Sharpness after training is not
    measured, because it would take longer than the training.
    """
    cells = tuple(
        replace(cell, arms=tuple(_smallest(arm) for arm in cell.arms))
        for cell in recipe.cells
    )
    return replace(recipe, cells=cells, seeds=1, scale="smoke")


def _smallest(arm: Experiment) -> Experiment:
    kind = next(kind for kind in _SMALLEST if arm.model.startswith(kind))
    model, side = _SMALLEST[kind]
    moments = len(arm.spectrum_at)
    values = {
        "model": model,
        "model_options": {},
        "weights": "none",
        "image_size": side,
        "train_examples": _STEPS * _BATCH,
        "batch_size": _BATCH,
        "m": _group(arm),
        "epochs": max(moments, 1),
        "spectrum_at": tuple(range(1, moments + 1)),
        "steps": None if arm.steps is None else _STEPS,
        "flatness_rho": None,
    }
    return Experiment.model_validate({**arm.model_dump(), **values})


def _group(arm: Experiment) -> int | None:
    """Return the new ``m``: at most half of the batch, if that was so before."""
    if arm.m is None or arm.m == arm.batch_size:
        return arm.m and _BATCH
    return math.gcd(arm.m, _BATCH // 2)
