"""Change a recipe's settings, note what differs from the paper, or make it tiny."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from flatmin.experiments.config import (
    FIELDS,
    MOST_SEEDS,
    Experiment,
    parsed,
    validated,
)
from flatmin.experiments.errors import BadInput, shown
from flatmin.experiments.recipes._recipe import Recipe

#: Fields that mean nothing to the base optimizer alone.
_OF_METHODS = ("rho", "method_options")

#: Fields that do not change an experiment's numbers, but for rounding.
_ELSEWHERE = ("device", "strategy", "evaluate_every", "channels_last")

#: How many names a message lists.
_MOST = 4


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


def changed(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Apply ``field=value`` settings to every arm of every cell of ``recipe``.

    Values are JSON, or plain text. ``seeds`` is a field of the recipe, all others are
    fields of `Experiment`. ``rho`` and ``method_options`` leave SGD alone. A field in
    which the recipe's cells or arms differ cannot be set, because their labels would
    become wrong: choose a part in which it is the same everywhere. What differs from
    the paper is added to ``scale``.

    Raises:
        BadInput: a setting has no ``=``, names no field or one in which cells differ,
            has no effect, or its value is refused.

    Example:
        >>> from flatmin.experiments.recipes import changed, recipe
        >>> changed(recipe("table4/noise-80/sam"), ["epochs=30", "seeds=1"]).scale
        'epochs 30 instead of 200, seeds 1 instead of 5'
    """
    given = parsed(settings, FIELDS)
    if "seed" in given:
        raise BadInput("seed: a recipe runs seeds 0, 1 and so on; set seeds.")
    if "length" in given:
        raise BadInput("length: it tells arms apart, in folders too; set epochs.")
    seeds = _seeds(given.pop("seeds", recipe.seeds))
    for field in given:
        _check(recipe, field, given)
    try:
        cells = tuple(
            replace(cell, arms=tuple(_changed(arm, given) for arm in cell.arms))
            for cell in recipe.cells
        )
    except BadInput:
        raise
    except ValueError as refused:
        raise BadInput(f"{refused}.") from None
    new = replace(recipe, cells=cells, seeds=seeds)
    words = [] if recipe.scale == "paper" else [recipe.scale]
    words += _differences(recipe, new, given)
    return replace(new, scale=", ".join(words) or "paper")


def _seeds(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_SEEDS:
        raise BadInput(
            f"seeds: must be a whole number from 1 to {MOST_SEEDS}, got {shown(value)}."
        )
    return value


def _check(recipe: Recipe, field: str, given: dict[str, Any]) -> None:
    """Refuse a field in which cells differ, or which has no effect on any of them."""
    arms = [(cell.name, arm) for cell in recipe.cells for arm in cell.arms]
    known = [
        (name, getattr(arm, field))
        for name, arm in arms
        if _concerns(field, arm, given)
    ]
    if not known:
        raise BadInput(f"{field} means nothing to any cell that was chosen.")
    lasting = next((arm.steps for _, arm in arms if arm.steps is not None), None)
    if field == "epochs" and lasting is not None and "steps" not in given:
        raise BadInput(
            f"epochs means nothing where training lasts {lasting} steps. "
            "Set steps, or steps=null too."
        )
    values = list(dict.fromkeys(_words(value) for _, value in known))
    if len(values) > 1:
        apart = f"{field} tells the cells of {recipe.name} apart: {_some(values)}."
        raise BadInput(f"{apart} {_advice(recipe, known)}")


def _advice(recipe: Recipe, known: list[tuple[str, Any]]) -> str:
    """Name the largest parts in which a field is the same everywhere."""
    parts: list[str] = []
    for prefix in recipe.prefixes():
        inside = [v for name, v in known if f"{name}/".startswith(f"{prefix}/")]
        covered = any(prefix.startswith(f"{part}/") for part in parts)
        if inside and not covered and all(v == inside[0] for v in inside):
            parts.append(prefix)
    if not parts:
        return "It cannot be set."
    return f"Choose a part in which it is the same: {_some(parts)}."


def _changed(arm: Experiment, given: dict[str, Any]) -> Experiment:
    values = {k: v for k, v in given.items() if _concerns(k, arm, given)}
    return validated(Experiment, {**arm.model_dump(), **values})


def _concerns(field: str, arm: Experiment, given: dict[str, Any]) -> bool:
    return field not in _OF_METHODS or given.get("method", arm.method) != "sgd"


def _differences(old: Recipe, new: Recipe, given: dict[str, Any]) -> Iterator[str]:
    pairs = [
        (before, after)
        for one, other in zip(old.cells, new.cells, strict=True)
        for before, after in zip(one.arms, other.arms, strict=True)
    ]
    for field in given:
        values = [(getattr(a, field), getattr(b, field)) for a, b in pairs]
        differs = [(a, b) for a, b in values if a != b]
        if differs and field not in _ELSEWHERE:
            before, after = differs[0]
            yield f"{field} {_words(after)} instead of {_words(before)}"
    if new.seeds != old.seeds:
        yield f"seeds {new.seeds} instead of {old.seeds}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST])
    return f"{shown} and {len(names) - _MOST} more" if len(names) > _MOST else shown


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(_words, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)


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
