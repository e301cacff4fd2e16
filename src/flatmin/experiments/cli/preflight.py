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
    from flatmin.experiments.compare.images import read
    from flatmin.experiments.compare.preflight import checked
    from flatmin.experiments.compare.request import Asked
    from flatmin.experiments.launch import launched

    asked = Asked(what, model, weights, optimizer, tuple(settings or ()))
    comparison = asked.comparison()
    fabric, found = launched(comparison.experiment), []
    sets = read(comparison, data)
    for one in comparison.settings:
        for finding in checked(fabric, comparison, one, sets[one.name]):
            found.append({"setting": one.label, **asdict(finding)})
    if as_json:
        print_json(found)
        return
    for line in found:
        say(f"{line['level']}: {line['setting']}: {line['sentence']}")
