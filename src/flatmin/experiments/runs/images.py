"""How data becomes a network's input: the record that a run stores, the transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from flatmin.experiments import augment
from flatmin.experiments.batches import IMAGE_SIZE
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, Files, Sentences, Series
from flatmin.experiments.datasets._images import rgb
from flatmin.experiments.models import input_size, normalisation

if TYPE_CHECKING:
    from PIL.Image import Image


#: A height or a width.
Pixels = Annotated[int, Field(ge=1)]


class _Standardised(BaseModel):
    """What is standardised with a mean and a deviation per channel."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must have one number per channel each, got "
                f"{len(self.mean)} and {len(self.std)}"
            )
        return self


class Images(_Standardised):
    """How images of a data set become a network's input.

    Attributes:
        classes: their names; a network's outputs are in this order.
        mean: per channel, of pixels from 0 to 1.
        std: standard deviation, likewise.
        size: height and width in pixels, as images are stored or cut out.
        side: to which images are then brought, in pixels; None to leave them.
        files: whether images are read from files, so that tests cut out the centre.
    """

    classes: tuple[str, ...] = Field(min_length=1)
    size: tuple[Pixels, Pixels]
    side: Pixels | None = None
    files: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Length of the output rows, and channels of the input."""
        return len(self.classes), len(self.mean)

    @property
    def options(self) -> dict[str, Any]:
        """More arguments of the function that builds the network."""
        return {}


class Window(_Standardised):
    """How a window of a series becomes a network's input.

    Attributes:
        mean: of each channel, which is subtracted first.
        std: of each channel, by which the result is divided.
        lookback: steps that are shown.
        horizon: steps that are forecast.
    """

    lookback: int = Field(ge=1)
    horizon: int = Field(ge=1)

    @property
    def shape(self) -> tuple[int, int]:
        """As of `Images.shape`."""
        return self.horizon, len(self.mean)

    @property
    def options(self) -> dict[str, Any]:
        """As of `Images.options`."""
        return {"lookback": self.lookback}


class Pieces(BaseModel):
    """How a sentence becomes a network's input.

    Attributes:
        classes: their names; a network's outputs are in this order.
        tokens: word pieces of BERT's vocabulary that are read, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: tuple[str, ...] = Field(min_length=1)
    tokens: int = Field(ge=2)

    @property
    def shape(self) -> tuple[int, int]:
        """As of `Images.shape`; sentences have no channels."""
        return len(self.classes), 0

    @property
    def options(self) -> dict[str, Any]:
        """As of `Images.options`."""
        return {}


#: How the data of a run becomes its network's input.
Inputs = Images | Window | Pieces


def _kind(value: Any) -> str:
    """Return which of `Inputs` a value is meant to be, by a field of it alone."""
    if isinstance(value, Inputs):
        return type(value).__name__
    fields = value if isinstance(value, dict) else {}
    if "horizon" in fields:
        return "Window"
    return "Pieces" if "tokens" in fields else "Images"


#: The same in files. An error is about the fields of one of them, not of all.
StoredInputs = Annotated[
    Annotated[Images, Tag("Images")]
    | Annotated[Window, Tag("Window")]
    | Annotated[Pieces, Tag("Pieces")],
    Discriminator(_kind),
]


def described(data: DataSet, experiment: Experiment) -> Inputs:
    """Describe how an experiment's test data becomes the network's input."""
    if isinstance(data.test, Sentences):
        assert experiment.tokens is not None
        return Pieces(classes=data.classes, tokens=experiment.tokens)
    if isinstance(data.test, Series):
        assert experiment.horizon is not None
        return Window(
            mean=data.mean,
            std=data.std,
            lookback=experiment.lookback,
            horizon=experiment.horizon,
        )
    side = input_size(experiment)
    if isinstance(data.test, Files):
        height = width = side or IMAGE_SIZE
    else:
        height, width = data.test.x.shape[2:]
    mean, std = normalisation(experiment, data)
    return Images(
        classes=data.classes,
        mean=mean,
        std=std,
        size=(height, width),
        side=side,
        files=isinstance(data.test, Files),
    )


@dataclass(frozen=True, slots=True)
class Transform:
    """From a picture to the network's input in tests.

    Attributes:
        images: what the network was tested on.
        dtype: of the network's weights.
    """

    images: Images
    dtype: torch.dtype = torch.float32

    def __call__(self, picture: Image) -> Tensor:
        """Return a picture as ``[channels, height, width]``.

        It is turned by its EXIF orientation; transparent pixels become white. Open TIFF
        files in binary mode and give Pillow the file: given a path, it mixes up the
        rows of turned ones.

        Raises:
            BadInput: its pixels are 32-bit numbers of unknown range.
        """
        from torchvision.transforms.v2.functional import pil_to_tensor

        grey = len(self.images.mean) == 1
        flat = rgb("the picture", picture).convert("L" if grey else "RGB")
        x = self._cut(pil_to_tensor(flat)[None]).float() / 255
        side = self.images.side
        if side is not None and x.shape[-1] != side:
            x = interpolate(x, (side, side), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(n)[:, None, None] for n in self._statistics)
        return ((x - mean) / std)[0].to(self.dtype)

    @property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.images.mean, self.images.std

    def _cut(self, x: Tensor) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop, resize

        size = list(self.images.size)
        if self.images.files:
            return augment.centre(x, size[0])
        if list(x.shape[-2:]) == size:
            return x
        return center_crop(resize(x, [min(size)], antialias=True), size)
