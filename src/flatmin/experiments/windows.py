"""Windows of a series: what came before a step, and what comes from there on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import Series


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
