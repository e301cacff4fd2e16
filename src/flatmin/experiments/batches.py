"""Batches for training: the same images in the same order, wherever a run continues.

The unit is a group: the examples that share one perturbation. A group's augmentation
depends only on seed, epoch, step and its place in the batch. A run that was interrupted
or is spread over other processes therefore sees the same images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from flatmin.experiments import augment
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import (
    DataSet,
    Files,
    Sentences,
    Series,
    Split,
    Tensors,
    Windows,
)
from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import input_size, normalisation
from flatmin.experiments.readers import Change, Part, Readers
from flatmin.experiments.tasks import IGNORED, task_of

#: Images and labels; for mixup, a distribution over the classes for each image. Of a
#: series: what came before, and what comes next. Of sentences: their word pieces.
Batch = tuple[Tensor, Tensor]

#: Side of an image from a file, in pixels, if the experiment does not say.
IMAGE_SIZE = 224

#: Most images per pass without gradients. Large images are faster in smaller batches,
#: whose activations stay in the caches.
_TEST_BATCH, _FEWEST, _TEST_PIXELS = 512, 32, 512 * 32**2


def steps_of_epoch(experiment: Experiment, examples: int) -> int:
    """Return how many whole batches training examples make.

    Raises:
        BadInput: there are fewer than one batch has.
    """
    if steps := examples // experiment.batch_size:
        return steps
    raise BadInput(
        f"a batch of {experiment.batch_size} is more than the {examples} training "
        f"{task_of(experiment).examples}. Use --set batch_size=..."
    )


@dataclass(frozen=True, slots=True)
class Share:
    """Which process this is, and of how many."""

    rank: int = 0
    world: int = 1


class Batches:
    """The batches that one process reads of a data set, on its device.

    Args:
        data: the images.
        y: the labels that are trained ``[n]``; noise, for instance, makes them differ
            from those of ``data``.
        experiment: batch size, groups, seed, augmentation.
        device: where the batches go.
        share: this process's.

    Raises:
        BadInput: batches cannot be cut into equal groups for all processes, or there
            are fewer images than a batch has.
    """

    def __init__(
        self,
        data: DataSet,
        y: Tensor,
        experiment: Experiment,
        device: torch.device,
        share: Share,
    ) -> None:
        self.experiment, self.share, self.device = experiment, share, device
        self._parts = _parts(experiment, share.world)
        self.groups = self._parts // share.world
        self.steps = steps_of_epoch(experiment, len(y))
        self.y = y
        self._classes = len(data.classes)
        if "auto_augment" in experiment.augment and data.policy is None:
            raise BadInput(f"AutoAugment has no policy for {experiment.data}.")
        mean, std = normalisation(experiment, data)
        self._mean = torch.tensor(mean, device=device)[:, None, None]
        self._std = torch.tensor(std, device=device)[:, None, None]
        self._side = input_size(experiment)
        own = data.train.x.shape[-1] if isinstance(data.train, Tensors) else IMAGE_SIZE
        size = self._side or own
        self._change = partial(_on_bytes, experiment.augment, data.policy, size)
        fitting = max(_TEST_PIXELS // size**2, _FEWEST)
        # Windows and sentences are read as the network takes them.
        self._ready = isinstance(data.train, Series | Sentences)
        self._tested = _TEST_BATCH if self._ready else min(fitting, _TEST_BATCH)
        splits = {"train": data.train, "test": data.test}
        files = {k: s.images for k, s in splits.items() if isinstance(s, Files)}
        self._readers = Readers(files, size, pin_memory=device.type == "cuda")
        self._train = self._source("train", data.train, y, data)
        self._test = self._source("test", data.test, data.test.y, data)

    def _source(self, name: str, split: Split, y: Tensor, data: DataSet) -> _Source:
        if isinstance(split, Series):
            statistics = (data.mean, data.std)
            return Windows.of(split, y, statistics, self.experiment, self.device)
        if isinstance(split, Tensors):
            return _Memory(split.x.to(self.device), y.to(self.device))
        if isinstance(split, Sentences):
            return _Pieces(split.x, y.cpu(), self.device)
        return _Disk(self._readers, name, y, self.device)

    def train(self, epoch: int, first: int = 0) -> Iterator[list[Batch]]:
        """Yield this process's groups of each step of an epoch, from ``first`` on.

        The last images of the epoch's order, too few for a batch, are left out.
        """
        shuffle = Generator().manual_seed(self._seed("order", epoch))
        order = torch.randperm(len(self.y), generator=shuffle)
        size = self.experiment.batch_size
        mine = range(self.share.rank, self._parts, self.share.world)
        parts: list[Part] = []
        for step in range(first, self.steps):
            batch = order[step * size : (step + 1) * size]
            cut = batch.tensor_split(self._parts)
            parts += [(cut[k], self._seed("bytes", epoch, step, k)) for k in mine]
        read = self._train.read(parts, self._change)
        for step in range(first, self.steps):
            seeds = [self._seed("pixels", epoch, step, k) for k in mine]
            yield [self._finished(*next(read), seed) for seed in seeds]

    def plain(self) -> Iterator[Batch]:
        """This process's part of the training images, not augmented."""
        return self._without_gradients(self._train, self.share)

    def alone(self) -> Iterator[Batch]:
        """All training images in their order, not augmented, on every process."""
        return self._without_gradients(self._train, Share())

    def test(self) -> Iterator[Batch]:
        """This process's part of the test images; fillers have the label `IGNORED`."""
        return self._without_gradients(self._test, self.share)

    @property
    def examples(self) -> int:
        """How many examples of a group this process has."""
        return self.experiment.batch_size // self._parts

    def few(self, fewest: int) -> Tensor:
        """Return a test image as the network gets it, or two if a pass has at least."""
        n = min(2, fewest, len(self._test.y))
        x, _ = next(self._test.read([(torch.arange(n), 0)]))
        return self._standard(x)

    def _without_gradients(self, source: _Source, share: Share) -> Iterator[Batch]:
        n = len(source.y)
        mine = torch.arange(share.rank, n, share.world)
        filled = F.pad(mine, (0, -(-n // share.world) - len(mine)))
        real = torch.arange(len(filled)) < len(mine)
        parts = [(part, 0) for part in filled.split(self._tested)]
        counted = real.to(self.device).split(self._tested)
        for (x, y), here in zip(source.read(parts), counted, strict=True):
            rows = here.view(-1, *(1,) * (y.dim() - 1))
            yield self._standard(x), torch.where(rows, y, IGNORED)

    def _finished(self, x: Tensor, y: Tensor, seed: int) -> Batch:
        """Apply the changes that act on a whole group, in the SAM code's order."""
        if self._ready:
            return x, y
        chosen, generator = self.experiment.augment, Generator().manual_seed(seed)
        if "flip" in chosen:
            x = augment.flip(x, generator)
        x = x.float()
        if "crop" in chosen:
            x = augment.crop(x, generator)
        x = self._standard(x)
        if "cutout" in chosen:
            x = augment.cutout(x, generator)
        if self.experiment.mixup is not None:
            alpha = self.experiment.mixup
            return augment.mixup(x, y, self._classes, generator, alpha)
        return x, y

    def _standard(self, x: Tensor) -> Tensor:
        if self._ready:
            return x
        x = x.float() / 255
        size = self._side
        if size is not None and x.shape[-1] != size:
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        return (x - self._mean) / self._std

    def _seed(self, what: str, *place: int) -> int:
        """Return the seed of the draws for an epoch, or for a part of one of its steps.

        It is hashed, because torch's CPU generators ignore all but the lowest 32 bits.
        """
        name = repr((self.experiment.seed, what, *place)).encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())


def as_input(x: Tensor, kind: torch.dtype) -> Tensor:
    """Return images or windows in a network's dtype, and word pieces as they are."""
    return x.to(kind) if x.is_floating_point() else x


def _parts(experiment: Experiment, world: int) -> int:
    """Return how many parts a batch is cut into.

    A part is usually a group, which one process has. With sharded weights, all
    processes share each perturbation, and each has a part of every group.
    """
    size = experiment.batch_size
    sharers = world if experiment.strategy == "fsdp" else 1
    m = experiment.m or size * sharers // world
    parts = size * sharers // max(m, 1)
    if m == 0 or parts % world or parts * m != size * sharers or size % parts:
        raise BadInput(
            f"a batch of {size} does not make equal groups of "
            f"{experiment.m or 'examples'} for {world} processes."
        )
    return parts


def _on_bytes(
    chosen: tuple[str, ...],
    policy: augment.Policy | None,
    size: int,
    x: Tensor,
    generator: Generator,
) -> Tensor:
    """Apply the changes that act on uint8 images, image by image."""
    if "random_resized_crop" in chosen:
        x = augment.random_resized_crop(x, generator, size)
    if "auto_augment" in chosen and policy is not None:
        x = augment.auto_augment(x, generator, policy)
    if "rand_augment" in chosen:
        x = augment.rand_augment(x, generator)
    return x


class _Source(Protocol):
    @property
    def y(self) -> Tensor:
        """The labels ``[n]``."""
        ...

    def read(self, parts: list[Part], change: Change | None = None) -> Iterator[Batch]:
        """Yield the changed images and the labels of each part, on the device."""
        ...


@dataclass(frozen=True, slots=True)
class _Memory:
    """Images that are on the device."""

    x: Tensor
    y: Tensor

    def read(self, parts: list[Part], change: Change | None = None) -> Iterator[Batch]:
        for index, seed in parts:
            here = index.to(self.x.device)
            x, y = self.x[here], self.y[here]
            if change is not None:
                x = change(x, Generator().manual_seed(seed))
            yield x, y


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Sentences in memory, each batch as long as its longest."""

    x: Tensor
    y: Tensor
    device: torch.device

    def read(self, parts: list[Part], change: Change | None = None) -> Iterator[Batch]:
        del change
        for index, _ in parts:
            x = self.x[index]
            x = x[:, : int((x != 0).sum(1).max())]
            yield x.to(self.device), self.y[index].to(self.device)


@dataclass(frozen=True, slots=True)
class _Disk:
    """Images that other processes read and change."""

    readers: Readers
    split: str
    y: Tensor
    device: torch.device

    def read(self, parts: list[Part], change: Change | None = None) -> Iterator[Batch]:
        images = self.readers.read(self.split, parts, change)
        for x, (index, _) in zip(images, parts, strict=True):
            here = x.to(self.device, non_blocking=True)
            yield here, self.y[index].to(self.device)
