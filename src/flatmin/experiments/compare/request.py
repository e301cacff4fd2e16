"""From the command line of ``flatmin compare`` to a `Comparison`, by two recipes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flatmin.experiments.compare.plan import Comparison, Setting
from flatmin.experiments.config import Experiment, parsed, validated
from flatmin.experiments.errors import BadInput, expanded

#: The data that is used without a folder.
DIGITS = "digits"

#: Fields that the comparison sets itself.
_DECIDED = (
    *("data", "horizon", "lookback", "tokens", "method", "rho", "seed"),
    *("validation", "noisy_validation", "ema", "steps", "length"),
)


#: Learning rate and weight decay of fine-tuning, and of training from scratch.
_TUNING = {"sgd": (0.01, 1e-4), "adamw": (3e-4, 0.05)}
_SCRATCH = {"sgd": (0.1, 5e-4), "adamw": (1e-3, 0.05)}


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
            self._check_digits()
            return digits()
        path = expanded(self.what)
        if not path.is_dir():
            raise BadInput(
                f"no such folder: {self.what}. Give a folder of images, or {DIGITS!r}."
            )
        return folder(path, self.model, self.weights, self.optimizer)

    def _check_digits(self) -> None:
        if (self.model, self.weights, self.optimizer) != ("resnet18", None, "sgd"):
            raise BadInput(
                "the digits have a network of their own: --model, --weights and "
                "--optimizer are for a folder of images. Use --set optimizer=adamw."
            )


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
        if name == "train_examples" and any(
            name in setting["fields"] for setting in values["settings"]
        ):
            raise BadInput(
                "train_examples: one of the settings is a number of training images. "
                "Compare a folder of images with fewer of them."
            )
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


def digits() -> Comparison:
    """Compare on scikit-learn's digits, with many wrong labels and with few images.

    The optimization settings are those of the paper's CIFAR experiments where it
    states them (learning rate 0.1, momentum 0.9, weight decay 5e-4, cosine schedule),
    on a network and a data set of a thousandth of the size.
    """
    experiment = Experiment(
        data="digits",
        augment=(),
        model="small-convnet",
        model_options={"width": 16},
        lr=0.1,
        batch_size=64,
        epochs=30,
        device="cpu",
        flatness_rho=0.2,
    )
    few = {"train_examples": 100, "batch_size": 32, "epochs": 60}
    return Comparison(
        experiment=experiment,
        settings=(
            Setting(name="noise-40", label="40 % label noise", fields={"noise": 0.4}),
            Setting(name="few", label="100 training images", fields=few),
        ),
        seeds=4,
        lrs=(1, 2),
        rhos=(0.2, 0.5),
    )


def folder(
    path: Path, model: str, weights: str | None, optimizer: Literal["sgd", "adamw"]
) -> Comparison:
    """Compare on a folder of the user's images, without label noise.

    Learning rates and weight decay are common ones for fine-tuning and for training
    from scratch; the base tries half and twice the learning rate too.

    Args:
        path: of the folder.
        model: name of a network of timm's.
        weights: a file of its weights, ``"none"`` to train from scratch, or None for
            timm's own.
        optimizer: the base optimizer.
    """
    scratch = weights == "none"
    lr, decay = (_SCRATCH if scratch else _TUNING)[optimizer]
    experiment = Experiment(
        data=str(path.resolve()),
        model=model,
        weights=weights,
        channels_last=True,
        augment=("random_resized_crop", "flip"),
        optimizer=optimizer,
        lr=lr,
        weight_decay=decay,
        batch_size=32,
        epochs=30 if scratch else 8,
        flatness_rho=None,
    )
    as_it_is = Setting(name="as-it-is", label=path.resolve().name)
    return Comparison(
        experiment=experiment,
        settings=(as_it_is,),
        search_seeds=1,
        landscape_points=0,
    )
