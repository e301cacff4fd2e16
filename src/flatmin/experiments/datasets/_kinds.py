"""What a data set holds, and whether an experiment asks for that."""

from __future__ import annotations

from typing import Literal

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets._types import Sentences, Series, Split
from flatmin.experiments.errors import BadInput

#: What a data set holds.
Kind = Literal["images", "sentences", "series"]

#: What to set for data that has no images.
_ASKED_WITH: dict[Kind, str] = {"series": "horizon=96", "sentences": "tokens=64"}

_HOLDS: dict[Kind, str] = {
    "images": "has images",
    "sentences": "has sentences",
    "series": "is a series",
}


def kind_of(split: Split) -> Kind:
    """Return what a loaded part holds."""
    if isinstance(split, Series):
        return "series"
    return "sentences" if isinstance(split, Sentences) else "images"


def check_kind(experiment: Experiment, name: str, kind: Kind) -> None:
    """Refuse data that an experiment does not ask for: a forecast of images, say.

    Args:
        experiment: asks for a forecast by ``horizon`` and for sentences by ``tokens``.
        name: of the data.
        kind: what it holds.

    Raises:
        BadInput: it is something else.
    """
    horizon, tokens = experiment.horizon, experiment.tokens
    if horizon is not None and kind != "series":
        raise BadInput(
            f"horizon {horizon} asks for a forecast, and {name} {_HOLDS[kind]}. "
            "Use --set data=etth1, or horizon=null."
        )
    if tokens is not None and kind != "sentences":
        raise BadInput(
            f"tokens {tokens} asks for sentences, and {name} {_HOLDS[kind]}. "
            "Use --set data=sst2, or tokens=null."
        )
    if horizon is None and tokens is None and kind != "images":
        raise BadInput(
            f"{name} {_HOLDS[kind]}. Use --set {_ASKED_WITH[kind]}, and a network for "
            "that."
        )
