"""Processes that read image files, beside the one that trains."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from flatmin.experiments import augment
from flatmin.experiments.errors import BadInput

#: A change of uint8 images that all have one size.
Change = Callable[[Tensor, Generator], Tensor]

#: Indices of examples, and the seed of the draws for them.
Part = tuple[Tensor, int]

#: Processes that read files, for each that trains.
_READERS = 8


class Readers:
    """Processes that read the image files of a data set.

    They start with the first images that are asked for and stay until this object goes:
    where processes are spawned, starting one takes longer than a small epoch.

    Args:
        splits: of the data set, by name; each yields pairs of an image and a label.
        size: side of the images that come out, in pixels.
        pin_memory: whether the images go on to a GPU.
    """

    def __init__(self, splits: dict[str, Any], size: int, *, pin_memory: bool) -> None:
        self._pictures = _Pictures(splits, size)
        self._pin_memory = pin_memory
        self._idle: list[tuple[DataLoader[Tensor], _Order]] = []

    def read(
        self, split: str, parts: list[Part], change: Change | None = None
    ) -> Iterator[Tensor]:
        """Yield the images of each part as uint8 ``[n, 3, size, size]``.

        Raises:
            BadInput: a file is missing or is no image.
        """
        loader, order = self._idle.pop() if self._idle else self._started()
        order[:] = [_places(split, index, seed, change) for index, seed in parts]
        try:
            yield from loader
        except BadInput as error:
            # A reader's error arrives with its traceback as the message.
            raise BadInput(str(error).rpartition("BadInput: ")[2].strip()) from None
        finally:
            # What was asked for and not fetched is dropped when reading begins anew.
            self._idle.append((loader, order))

    def _started(self) -> tuple[DataLoader[Tensor], _Order]:
        order: _Order = []
        readers = min(_READERS, (os.cpu_count() or 1) - 1)
        loader = DataLoader(
            self._pictures,
            batch_sampler=order,
            num_workers=readers,
            persistent_workers=readers > 0,
            pin_memory=self._pin_memory,
            worker_init_fn=_begin,
            # The loader must not draw from the global stream, which the network uses.
            generator=Generator(),
        )
        return loader, order


#: Of an image: its split, its index there, and the change and the seed of its draws.
_Place = tuple[str, int, Change | None, int]

#: The places of each part.
_Order = list[list[_Place]]


def _places(
    split: str, index: Tensor, seed: int, change: Change | None
) -> list[_Place]:
    """Give each image a seed of its own, whichever process reads it."""
    drawn = torch.randint(2**62, (len(index),), generator=Generator().manual_seed(seed))
    pairs = zip(index.tolist(), drawn.tolist(), strict=True)
    return [(split, i, change, own) for i, own in pairs]


class _Pictures(Dataset[Tensor]):
    """Image files as uint8 ``[3, size, size]``."""

    def __init__(self, splits: dict[str, Any], size: int) -> None:
        self.splits, self.size = splits, size

    def __getitem__(self, place: _Place) -> Tensor:
        from torchvision.transforms.v2.functional import pil_to_tensor

        split, index, change, seed = place
        x = pil_to_tensor(self.splits[split][index][0])[None]
        if change is not None:
            x = change(x, Generator().manual_seed(seed))
        return augment.centre(x, self.size)[0]


def _begin(reader: int) -> None:
    del reader
    end_with_parent()


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, however it has.

    torch's readers ask who their parent is when they have started. Of a parent that was
    killed before, they would wait for work for ever.
    """
    Thread(target=_end_with_parent, daemon=True).start()


def end_with_input() -> None:
    """End this process as soon as its standard input ends.

    The process that started it holds the other end of a pipe, which closes however
    that process ends.
    """
    Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
