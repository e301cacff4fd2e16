"""From the command line of ``flatmin compare`` to a `Comparison`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from flatmin.experiments.compare.plan import Comparison
from flatmin.experiments.compare.recipes import digits, folder
from flatmin.experiments.config import Experiment, parsed, validated
from flatmin.experiments.errors import BadInput
from flatmin.experiments.paths import expanded

#: The data that is used without a folder.
DIGITS = "digits"

#: Fields that the comparison sets itself.
_DECIDED = (
    *("data", "horizon", "lookback", "tokens", "method", "rho", "seed"),
    *("validation", "noisy_validation", "ema"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of the command line.

    Attributes:
        what: ``"digits"``, or a folder of images.
        model: name of a network of timm's, for a folder.
        weights: a file of its weights, ``"none"`` to train from scratch, or None for
            timm's own.
        optimizer: the base optimizer, for a folder.
        settings: ``field=value``, of `Comparison` or `Experiment`.
    """

    what: str = DIGITS
    model: str = "resnet18"
    weights: str | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    settings: tuple[str, ...] = ()

    def comparison(self) -> Comparison:
        """Return the comparison that was asked for.

        Raises:
            BadInput: there is no such folder, or a setting is refused.
        """
        return changed(self._recipe(), self.settings)

    def _recipe(self) -> Comparison:
        if self.what == DIGITS:
            return digits()
        path = expanded(self.what)
        if not path.is_dir():
            raise BadInput(
                f"no such folder: {self.what}. Give a folder of images, or {DIGITS!r}."
            )
        return folder(path, self.model, self.weights, self.optimizer)


def changed(what: Comparison, settings: Iterable[str]) -> Comparison:
    """Apply ``field=value`` settings to a comparison; values are JSON, or plain text.

    Fields are those of `Comparison`, and those of `Experiment` that it does not set.
    ``noise`` takes one or several shares of label noise, each of which is a setting.

    Raises:
        BadInput: a setting names no field, or its value is refused.
    """
    own = Comparison.model_fields.keys() - {"experiment", "settings"}
    free = {name for name in Experiment.model_fields if name not in _DECIDED}
    given = parsed(settings, sorted(own | free))
    noise = given.pop("noise", None)
    values = what.model_dump()
    if noise is not None:
        values["settings"] = _noises(noise)
    for name, value in given.items():
        if name in own:
            values[name] = value
            continue
        values["experiment"][name] = value
        for setting in values["settings"]:
            setting["fields"].pop(name, None)
    values["experiment"] = validated(Experiment, values["experiment"]).model_dump()
    return validated(Comparison, values)


def _noises(shares: Any) -> list[dict[str, Any]]:
    several = shares if isinstance(shares, list) else [shares]
    if not several or not all(map(_is_share, several)):
        raise BadInput(f"noise: must be shares from 0 to below 1, got {shares!r}.")
    if len(set(several)) < len(several):
        raise BadInput(f"noise names a share twice: {shares!r}.")
    return [
        {
            "name": f"noise-{100 * share:g}",
            "label": f"{100 * share:g} % label noise",
            "fields": {"noise": share},
        }
        for share in several
    ]


def _is_share(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < 1
