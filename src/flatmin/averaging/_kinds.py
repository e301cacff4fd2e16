"""The averages: exponential, of all, and of the latest."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from flatmin.averaging._average import Average
from flatmin.averaging._spectral import singular_vectors
from flatmin.averaging._tensors import Named, averaged, beside, check_same, wide
from flatmin.core._checks import inside, integer


class _Running(Average):
    """An average that is one set of tensors, moved at each update."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._tensors: Named = {}

    @abstractmethod
    def _share(self) -> float:
        """The share of the present weights in the next average."""

    def _take(self, now: Named) -> None:
        if self.updates:
            check_same(self._tensors, now)
            latest = singular_vectors(self.model)
            averaged(self._tensors, now, self._share(), latest)
        else:
            self._tensors = {name: wide(t) for name, t in now.items()}

    def _mean(self) -> Named:
        return self._tensors

    def _state(self) -> dict[str, Any]:
        return {"average": dict(self._tensors)}

    def _saved(self, state: Mapping[str, Any]) -> Iterable[Named]:
        return [state["average"]] if state["updates"] else []

    def _load(self, state: Mapping[str, Any]) -> None:
        self._tensors = beside(self.model, state["average"])


class EMA(_Running):
    r"""The exponential moving average, after every step.

    .. math::
        \bar w \leftarrow \beta \bar w + (1 - \beta) w

    It begins with the weights at the first update. About the last
    :math:`1 / (1 - \beta)` steps count: choose it well below the length of the
    training. An average does not replace the decay of the learning rate. Running
    statistics are averaged like weights.

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> optimizer = flatmin.SAM(base, model)
        >>> average = flatmin.averaging.EMA(model, decay=0.99)
        >>> x, y = torch.randn(8, 4), torch.randint(2, (8,))
        >>> for _ in range(3):
        ...     for probe in optimizer.probes():
        ...         torch.nn.functional.cross_entropy(model(x), y).backward()
        ...     optimizer.step()
        ...     average.update()
        >>> with average.applied():
        ...     predicted = model(x).argmax(1)

    Args:
        model: whose weights are averaged.
        decay: beta, from 0 to below 1; 0.999 is the default of torch's AveragedModel
            (``get_ema_avg_fn``).

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: decay is out of range.

    Reference: Polyak, Juditsky. Acceleration of Stochastic Approximation by Averaging.
    1992. Ajroldi, Orvieto, Geiping. When, Where and Why to Average Weights? ICML 2025,
    arXiv:2502.06761. Beside SAM: Kaddour, Liu, Silva, Kusner. 2022, arXiv:2202.00661.
    """

    _spread = False

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        super().__init__(model)
        self.decay = inside("decay", decay, "[0, 1)", "0.999 is the default")

    def _share(self) -> float:
        return 1 - self.decay


class SWA(_Running):
    r"""Stochastic weight averaging: the mean of the weights at every update.

    .. math::
        \bar w = \frac{1}{n} \sum_{i=1}^n w_i

    Update it once per epoch in the last quarter or so of the training, with a learning
    rate that does not fall to zero. Networks with BatchNorm need `refresh` before it is
    used, because the mean is far from each of its members.

    Args:
        model: whose weights are averaged.

    Raises:
        TypeError: model is no module.

    Reference: Izmailov, Podoprikhin, Garipov, Vetrov, Wilson. Averaging Weights Leads
    to Wider Optima and Better Generalization. UAI 2018, arXiv:1803.05407.
    """

    def _share(self) -> float:
        return 1 / (self.updates + 1)


class LAWA(Average):
    r"""Latest weight averaging: the mean of the weights at the last k updates.

    Update it once per epoch, or a few times per epoch, from the beginning. It holds k
    copies of the weights. Networks with BatchNorm need `refresh` before it is used.

    Args:
        model: whose weights are averaged.
        k: how many updates count; 5 is our choice.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: k is below 1.

    Reference: Kaddour. Stop Wasting My Time! Saving Days of ImageNet and BERT Training
    with Latest Weight Averaging. 2022, arXiv:2209.14981.
    """

    def __init__(self, model: nn.Module, k: int = 5) -> None:
        super().__init__(model)
        self.k = integer("k", k, 1, "5 is the default")
        self._latest: deque[Named] = deque(maxlen=self.k)

    def _take(self, now: Named) -> None:
        if self._latest:
            check_same(self._latest[-1], now)
        self._latest.append({name: t.detach().clone() for name, t in now.items()})

    def _mean(self) -> Named:
        first, *others = self._latest
        mean = {name: wide(t) for name, t in first.items()}
        latest = singular_vectors(self.model)
        for n, one in enumerate(others, 2):
            averaged(mean, one, 1 / n, latest)
        return mean

    def _state(self) -> dict[str, Any]:
        return {"latest": [dict(one) for one in self._latest]}

    def _saved(self, state: Mapping[str, Any]) -> Iterable[Named]:
        return state["latest"]

    def _load(self, state: Mapping[str, Any]) -> None:
        copies = (beside(self.model, one) for one in state["latest"])
        self._latest = deque(copies, maxlen=self.k)
