"""``flatmin preflight``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from flatmin.experiments.cli.options import (
    Data,
    Images,
    Json,
    Model,
    Optimizer,
    Settings,
    Weights,
)
from flatmin.experiments.cli.output import print_json, say


def preflight(
    what: Images = "digits",
    model: Model = "resnet18",
    weights: Weights = None,
    optimizer: Optimizer = "sgd",
    settings: Settings = None,
    data: Data = Path("data"),
    as_json: Json = False,
) -> None:
    """Check within about a minute whether SAM can help; train nothing."""
    # Imported late: a wrong argument must not wait for torchvision.
    from flatmin.experiments.compare.preflight import checked
    from flatmin.experiments.compare.request import Asked
    from flatmin.experiments.datasets import images_of
    from flatmin.experiments.launch import launched

    asked = Asked(what, model, weights, optimizer, tuple(settings or ()))
    comparison = asked.comparison()
    fabric, found = launched(comparison.experiment), []
    for one in comparison.settings:
        images = images_of(comparison.common(one), data)
        for finding in checked(fabric, comparison, one, images):
            found.append({"setting": one.label, **asdict(finding)})
    if as_json:
        print_json(found)
        return
    for line in found:
        say(f"{line['level']}: {line['setting']}: {line['sentence']}")
