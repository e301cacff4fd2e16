"""Methods with another ball, or only for some parameters: ASAM, USAM, SAM-ON."""

from __future__ import annotations

import math
from typing import Any

from comparison import Load, Row, convnet, normed, without_biases
from extraction import taken
from loops import ascent_descent, base, custom, ours
from plain import davda54, understanding

from flatmin import methods
from flatmin.core import LpBall, filters, scales

samsung = taken(
    "asam.py",
    "ASAM",
    lambda kind, m: kind(base(m), m, rho=0.5, eta=0.01),
    ascent_descent,
)


def sam_on(name: str, **options: Any) -> Load:
    return taken(
        "sam_on.py",
        name,
        lambda kind, m: kind(base(m), m, only_norm=True, **options),
        ascent_descent,
        needs=() if name == "ASAM_ON" else ("ASAM_ON",),
    )


everything_scaled = davda54(rho=0.5, adaptive=True)
ours_without_eta = ours(methods.asam, rho=0.5, eta=0.0)
FIVE, LAYERS = "inputs five times as large", "layers with 'norm' in their names"

ROWS = [
    Row("asam", "SamsungLabs/ASAM", samsung, ours(methods.asam), network=convnet),
    Row(
        "asam",
        "davda54/sam",
        everything_scaled,
        ours_without_eta,
        "eta=0",
        "theirs scales biases as well; the ASAM authors' code does not",
    ),
    Row(
        "asam",
        "davda54/sam",
        everything_scaled,
        ours_without_eta,
        "eta=0; a network without biases",
        network=without_biases,
    ),
    Row(
        "usam",
        "tml-epfl/understanding-sam",
        understanding(0.1, 0.1, norm=False),
        ours(methods.usam, rho=0.1),
        FIVE,
        "theirs cuts eps at length rho, so that a gradient longer than 1 is shortened",
        scale=5.0,
    ),
    Row(
        "usam",
        "tml-epfl/understanding-sam",
        understanding(math.inf, 0.1, norm=False),
        ours(methods.usam, rho=0.1),
        f"{FIVE}; step_size=0.1 and a ball of infinite radius",
        scale=5.0,
    ),
    Row(
        "sam_on",
        "mueller-mp/SAM-ON",
        sam_on("SAM_ON", rho=0.5),
        ours(methods.sam_on, rho=0.5),
        LAYERS,
        "ours go by type",
        network=normed,
    ),
    Row(
        "sam_on, p = inf, adaptive",
        "mueller-mp/SAM-ON",
        sam_on("ASAM_ON", rho=0.05, p="infinity", eta=0.01),
        ours(
            custom(
                scale=scales.Adaptive(0.01),
                metric=LpBall(math.inf),
                filter=filters.within(*filters.NORMS),
            ),
            rho=0.05,
        ),
        f"{LAYERS}; ours from parts",
        network=normed,
    ),
]
