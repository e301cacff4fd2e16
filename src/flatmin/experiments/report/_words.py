"""Write arms, settings and costs in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import EngFormatter

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes._recipe import Metric

if TYPE_CHECKING:
    from flatmin.experiments.report._numbers import Arm

#: Names of metrics in tables and figures.
QUANTITIES: dict[Metric, str] = {
    "test_error": "test error (%)",
    "test_accuracy": "test accuracy (%)",
    "top5_error": "top-5 error (%)",
    "test_mse": "test MSE",
    "error_sharpness": "error sharpness (%)",
    "lambda_max": "lambda max",
    "lambda_ratio": "lambda ratio",
}

#: Digits after the point, if not two.
_DIGITS: dict[Metric, int] = {"test_mse": 4}

#: How fields are written with their values.
_FIELDS = {
    "mixup": "alpha {}",
    "epochs": "{} epochs",
    "steps": "{} steps",
    "seeds": "{} seeds",
    "train_examples": "{} training images",
    "horizon": "{} steps ahead",
    "lookback": "{} steps back",
    "tokens": "{} word pieces",
    "image_size": "images of {} pixels",
    "batch_size": "batches of {}",
    "model": "network {}",
}

#: How None is written.
_UNSET = {
    "train_examples": "all",
    "image_size": "the data set's",
    "horizon": "no",
    "tokens": "no",
}


def arm(arm: Arm) -> str:
    """Name an arm by what differs in its cell, and its length: ``alpha 8, 400 epochs``.

    Settings and length are those of its runs, if it has any.
    """
    trained = arm.runs[0].config.experiment if arm.runs else arm.own
    told = [name for name in Experiment.model_fields if _tells(arm, name)]
    return ", ".join(
        [*(setting(k, getattr(trained, k)) for k in told), _length(trained)]
    )


def setting(name: str, value: Any) -> str:
    """Write a field of an experiment with its value: ``30 epochs``, ``rho 0.05``."""
    text = _FIELDS.get(name, f"{name} {{}}").format(shown(value, name))
    return text.removesuffix("s") if text.startswith("1 ") else text


def shown(value: Any, name: str = "") -> str:
    """Write a field's value alone."""
    if value is None:
        return _UNSET.get(name, "unset")
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def compact(count: float) -> str:
    """Write a count in thousands, millions and so on: ``1.2 M``."""
    return EngFormatter(places=1)(count).replace(".0", "").replace("G", "B")


def number(metric: Metric, value: float, sign: str = "") -> str:
    """Write a number as tables show it; always with its sign if ``sign`` is ``"+"``."""
    return f"{value:{sign}.{_DIGITS.get(metric, 2)}f}"


def _tells(arm: Arm, name: str) -> bool:
    values = [getattr(one, name) for one in arm.cell.arms]
    return name != "length" and any(value != values[0] for value in values)


def _length(trained: Experiment) -> str:
    name = "epochs" if trained.steps is None else "steps"
    return setting(name, getattr(trained, name) * trained.length)
