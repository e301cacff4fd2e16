"""Networks that were trained elsewhere: weights in files, and a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from flatmin.experiments.config import Experiment, validated
from flatmin.experiments.datasets import DataSet, folder_in_memory
from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import SCRATCH, build, input_size, restore
from flatmin.experiments.runs.images import Inputs, described
from flatmin.experiments.runs.opened import Finished


@dataclass(frozen=True, slots=True)
class Network:
    """What the command line says of the networks.

    Attributes:
        model: the name that all of them have, see `flatmin.experiments.models.build`.
        classes: how many outputs they have; None for one per class of the images.
        size: side to which images are brought, in pixels; None for the side with which
            timm's weights of this name were trained.
    """

    model: str
    classes: int | None = None
    size: int | None = None

    def experiment(self, images: Path) -> Experiment:
        """Return an experiment in place of the training, which is not known.

        Raises:
            BadInput: the size cannot be that of images, or is not known.
        """
        found = validated(
            Experiment,
            {
                "data": str(images),
                "model": self.model,
                "image_size": self.size,
                "augment": (),
                "method": "sgd",
                "batch_size": 1,
                "flatness_rho": None,
            },
        )
        if (size := input_size(found)) is None:
            raise BadInput(f"give the side of {self.model}'s images: --image-size N.")
        return found.model_copy(update={"image_size": size})


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights, in place of a `flatmin.experiments.runs.record.Run`.

    Attributes:
        folder: the file.
        experiment: in place of its training.
        data: on which it is measured.
    """

    folder: Path
    experiment: Experiment
    data: DataSet

    @property
    def images(self) -> Inputs:
        """How its images become the network's input."""
        return described(self.data, self.experiment)

    def labels(self) -> Tensor:
        """Return the labels of the images ``[n]``, int64."""
        return self.data.train.y

    def model(self) -> nn.Module:
        """Return the network with these weights, in evaluation mode, on the CPU.

        Raises:
            BadInput: there is no such network, or the weights are missing, damaged, or
                another network's.
        """
        one, data = self.experiment, self.data
        network = build(one.model, len(data.classes), len(data.mean), SCRATCH)
        restore(network, self.folder)
        return network.eval()


class Measured(Finished):
    """A network from elsewhere whose loss can be measured."""

    __slots__ = ()

    @property
    def method(self) -> str:
        """The name of its file."""
        return self.folder.name

    @property
    def title(self) -> str:
        """The name in pictures, which is the same."""
        return self.method

    @property
    def words(self) -> dict[str, str | int | float]:
        """What tables show; seed and noise are not known."""
        return {"method": self.method}


def elsewhere(files: Sequence[Path], images: Path, network: Network) -> list[Finished]:
    """Open networks with the weights in some files, in the files' order.

    Args:
        files: state dicts, ``.safetensors`` or written by ``torch.save``.
        images: a folder, ``CLASS/*`` or ``train/CLASS/*``; the loss is that on all its
            images. The network's outputs are the classes in the order of their names.
        network: whose weights these are.

    Raises:
        BadInput: a file is given twice, the images are not there or too many for the
            memory, or the network has fewer outputs than there are classes.
    """
    paths = [file.resolve() for file in files]
    for path in paths:
        if paths.count(path) > 1:
            raise BadInput(f"{path} is given twice.")
        if not path.is_file():
            raise BadInput(f"no such file of weights: {path}")
    # A bare name could be that of a data set, which has a normalisation of its own.
    images = images.resolve()
    one = network.experiment(images)
    data = folder_in_memory(images, one.image_size or 0, network.classes)
    return [Measured(Weights(path, one, data), lambda: data) for path in paths]
