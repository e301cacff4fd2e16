"""``flatmin export``: a trained network for others, and how to load it again.

FOLDER/
model.safetensors    the weights
config.json          the network's name and options, its images, how it was trained
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import nn

import flatmin
from flatmin.experiments.errors import BadInput
from flatmin.experiments.models.registry import is_timms
from flatmin.experiments.runs.files import check, read_json, write, write_json
from flatmin.experiments.runs.images import Images, Transform, Window
from flatmin.experiments.runs.network import packed, restored
from flatmin.experiments.runs.record import EXPORTED, Run

#: What messages advise about a damaged export.
_AGAIN = "Export the run again."


class Exported(BaseModel):
    """``config.json`` of an exported network.

    Attributes:
        flatmin: the version that exported it.
        architecture: the network's name, see ``flatmin.experiments.models.build``.
        timm: whether it is one of timm's.
        options: for the function that builds it.
        images: how images become its input.
        experiment: how it was trained, by field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    flatmin: str
    architecture: str
    timm: bool
    options: dict[str, Any]
    images: Images
    experiment: dict[str, Any]


class Loaded(NamedTuple):
    """A trained network, ready for images.

    Attributes:
        model: in evaluation mode, on the CPU.
        classes: their names, in the order of the model's outputs.
        transform: from a PIL image to the model's input, without a batch.
    """

    model: nn.Module
    classes: tuple[str, ...]
    transform: Transform


def load(folder: Path) -> Loaded:
    """Load the network of a finished run, or of a folder that ``flatmin export`` wrote.

    Raises:
        BadInput: the folder is neither, is damaged, or is of an older flatmin.
    """
    if (folder / EXPORTED).is_file():
        return _loaded(*_read(folder))
    run, images = _finished(folder)
    return _loaded(run.model(), images)


def export(folder: Path, out: Path) -> None:
    """Write a finished run's network for use elsewhere.

    Args:
        folder: of the run.
        out: where ``model.safetensors`` and ``config.json`` go; empty, or not there.

    Raises:
        BadInput: the run is not finished, or damaged, or ``out`` holds something.
    """
    run, images = _finished(folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is not an empty folder. Choose another with --out.")
    one, weights = run.experiment, run.model().state_dict()
    record = Exported(
        flatmin=flatmin.__version__,
        architecture=one.model,
        timm=is_timms(one.model),
        options=one.model_options,
        images=images,
        experiment=one.model_dump(mode="json"),
    )
    write(out / EXPORTED, packed(weights))
    write_json(out / "config.json", record.model_dump(mode="json"))


def snippet(out: Path) -> str:
    """Return a program that classifies a picture with an exported network."""
    return f"""\
import torch
from PIL import Image

from flatmin.experiments import load

model, classes, transform = load({str(out)!r})
with open("picture.png", "rb") as file, Image.open(file) as picture, torch.no_grad():
    shares = model(transform(picture)[None]).softmax(1)[0]
best = int(shares.argmax())
print(f"{{classes[best]}}: {{100 * shares[best]:.1f}} %")
"""


def _finished(folder: Path) -> tuple[Run, Images]:
    """Return a run that can be exported, and how images become its input."""
    run = Run(folder)
    if not run.begun and not run.finished:
        raise BadInput(
            f"{folder} is neither a run of flatmin train nor what flatmin export wrote."
        )
    run.check()
    if not run.finished:
        raise BadInput(
            f"{folder} is not finished. The command that began it continues it."
        )
    images = run.images
    if not isinstance(images, Images):
        does = "forecasts a series" if isinstance(images, Window) else "reads sentences"
        raise BadInput(
            f"{folder} {does}, and what is exported classifies pictures. "
            f"Take the weights from {folder / 'weights.safetensors'}."
        )
    return run, images


def _read(folder: Path) -> tuple[nn.Module, Images]:
    path = folder / "config.json"
    stored = read_json(path, _AGAIN)
    if stored is None:
        raise BadInput(f"{path} is missing. {_AGAIN}")
    one = check(Exported, stored, path, _AGAIN)
    weights = folder / EXPORTED
    model = restored(one.architecture, one.options, one.images, weights, _AGAIN)
    return model, one.images


def _loaded(model: nn.Module, images: Images) -> Loaded:
    dtype = next(model.parameters()).dtype
    return Loaded(model, images.classes, Transform(images, dtype))
