"""Series of numbers: the electricity transformer data, and windows of any series."""

from __future__ import annotations

import csv
import hashlib
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Generator, Tensor

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets._fetch import Remote, damaged, fetch, reading
from flatmin.experiments.datasets._types import DataSet, Parts, Series, data_set
from flatmin.experiments.errors import BadInput

_ETTH1 = Remote(
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv",
    "8381763947c85f4be6ac456c508460d6",
)

#: Hours of a month of 30 days, as Informer (arXiv:2012.07436) counts them.
_MONTH = 30 * 24

#: Months to train on, to validate on and to test on; what comes later is not used.
MONTHS = (12, 4, 4)

#: Series of the data set: six loads, and the temperature of the oil.
_CHANNELS = 7

#: Training windows of a made-up series; there are half as many to test on.
_MADE_UP = 24


def etth1(folder: Path) -> Parts:
    """Read two years of a transformer, hour by hour.

    The file, ``ETTh1.csv`` or compressed ``ETTh1.csv.xz``, is read from ``folder`` or
    from the folder above. If it is in neither, it is downloaded into ``folder``.
    """
    places = [place / _ETTH1.name for place in (folder, folder.parent)]
    found = [path for plain in places for path in (plain, _compressed(plain))]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        fetch("ETTh1", [_ETTH1], folder)
        path = places[0]
    with reading(path):
        text = path.read_bytes()
        text = lzma.decompress(text) if path.suffix == ".xz" else text
    # Not `check`: the checksum is that of the file before it was compressed.
    if hashlib.md5(text, usedforsecurity=False).hexdigest() != _ETTH1.md5:
        raise damaged(path, f"the MD5 checksum of {_ETTH1.name} is not {_ETTH1.md5}")
    with reading(path):
        values = _numbers(text.decode())
    return parts(values, tuple(_MONTH * months for months in MONTHS))


def parts(values: Tensor, lengths: tuple[int, ...]) -> Parts:
    """Cut a series into steps to train on, to validate on and to test on.

    Args:
        values: ``[channels, time]``.
        lengths: steps of each part, one after the other from the beginning on.
    """
    steps = torch.arange(sum(lengths)).split(list(lengths))
    train, held, test = (Series(values, part) for part in steps)
    split = f"the {lengths[2]:,} steps after training and validation"
    return Parts(train, test, (), split, held)


def windows_of(data: DataSet, experiment: Experiment) -> DataSet:
    """Return a series with the windows of a forecast.

    A window belongs to the part that holds all the steps it forecasts. The steps it
    shows may be earlier: the first windows of validation and test show the end of the
    part before.

    Raises:
        BadInput: a part is shorter than a window.
    """
    named = {"train": data.train, "test": data.test, "validation": data.validation}
    return replace(data, **dict(_windowed(data.name, named, experiment)))


def _windowed(
    name: str, named: dict[str, object], experiment: Experiment
) -> Iterator[tuple[str, Series]]:
    lookback, horizon = experiment.lookback, experiment.horizon or 0
    for part, split in named.items():
        if not isinstance(split, Series):
            continue
        y = split.y
        y = y[(y >= lookback) & (y + horizon <= y[-1] + 1)]
        if not len(y):
            raise BadInput(
                f"the {part} part of {name} has {len(split.y):,} steps, too few for a "
                f"window of lookback {lookback} and horizon {horizon}. Shorten them."
            )
        yield part, replace(split, y=y)


def made_up_series(experiment: Experiment, windows: int = _MADE_UP) -> DataSet:
    """Make waves with noise, always the same, long enough for a few windows per part.

    Args:
        experiment: how long windows are.
        windows: to train on.
    """
    horizon = experiment.horizon or 1
    shorter = horizon + _MADE_UP // 2 - 1
    lengths = (experiment.lookback + horizon + windows - 1, shorter, shorter)
    time = torch.arange(sum(lengths), dtype=torch.float64)
    period = torch.linspace(12, 36, _CHANNELS, dtype=torch.float64)[:, None]
    seed = Generator().manual_seed(0)
    noise = torch.randn(_CHANNELS, len(time), generator=seed, dtype=torch.float64)
    values = 10 + 3 * torch.sin(2 * torch.pi * time / period) + 0.1 * noise
    cut = parts(values, lengths)._replace(split="a made-up series")
    return data_set(experiment.data, cut, None)


def _compressed(path: Path) -> Path:
    return path.with_name(f"{path.name}.xz")


def _numbers(text: str) -> Tensor:
    """Read a table with a heading and a date in each row, as ``[channels, time]``."""
    heading, *rows = csv.reader(text.splitlines())
    if len(heading) != 1 + _CHANNELS:
        raise ValueError(f"{len(heading) - 1} series, not {_CHANNELS}")
    values = [[float(word) for word in row[1:]] for row in rows]
    return torch.tensor(values, dtype=torch.float64).T.contiguous()


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of a standardised series, which overlap and are cut when they are read.

    Attributes:
        values: the series ``[channels, time]``, float32, on the device.
        y: the first step of each window's forecast ``[n]``, int64, on the CPU.
        lookback: steps before it that are shown.
        horizon: steps that are forecast.
    """

    values: Tensor
    y: Tensor
    lookback: int
    horizon: int

    @classmethod
    def of(
        cls,
        series: Series,
        y: Tensor,
        statistics: tuple[Sequence[float], Sequence[float]],
        experiment: Experiment,
        device: torch.device,
    ) -> Self:
        """Standardise a series, and remember where its windows are.

        Args:
            series: as it was measured.
            y: the first step of each window's forecast.
            statistics: mean and standard deviation of each channel.
            experiment: how long windows are.
            device: where they are read.
        """
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in statistics)
        values = ((series.values - mean[:, None]) / std[:, None]).float().to(device)
        lookback, horizon = experiment.lookback, experiment.horizon
        assert horizon is not None
        return cls(values, y.cpu(), lookback, horizon)

    def read(
        self, parts: list[tuple[Tensor, int]], change: object = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The windows of each part, copied from a view of the series.

        Args:
            parts: indices into ``y``, each with a seed that is not needed.
            change: not used: a series is not augmented.

        Yields:
            What is shown ``[n, channels, lookback]``, and what follows
            ``[n, channels, horizon]``.
        """
        del change
        whole = self.values.unfold(1, self.lookback + self.horizon, 1)
        for index, _ in parts:
            first = (self.y[index] - self.lookback).to(whole.device)
            window = whole[:, first].transpose(0, 1)
            yield window[..., : self.lookback], window[..., self.lookback :]
