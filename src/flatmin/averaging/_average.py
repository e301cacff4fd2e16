"""The base of all averages: reading weights, lending them to the model, saving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from flatmin.averaging._lending import changed_weights, put, restored
from flatmin.averaging._spectral import estimate
from flatmin.averaging._tensors import (
    Named,
    beside,
    check_like,
    check_made,
    check_same,
    tensors_of,
)
from flatmin.core._away import are_away
from flatmin.diagnostics._still import collecting, still

#: Averages whose values a model has now, inside of `Average.applied`.
_LENT: WeakSet[Average] = WeakSet()


class Average(ABC):
    """An average of a model's weights, beside the training loop.

    It reads the weights in `update`, and writes to them only in `applied`, `transfer`
    and, for a while, `refresh`. Parameters, and buffers that hold real numbers, are
    averaged in float32 at least; of other buffers, the latest are kept.

    Attributes:
        model: whose weights are averaged.
        updates: how many times `update` was called.
    """

    #: Whether the average is too far from each of its members for their mean running
    #: statistics to be its own.
    _spread = True

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"model is a torch.nn.Module, got {type(model).__name__}. Write "
                f"{type(self).__name__}(model)."
            )
        self.model = model
        self.updates = 0
        self._statistics: dict[str, Tensor] = {}
        self._lent: list[Tensor] = []

    @torch.no_grad()
    @torch.inference_mode(False)
    def update(self) -> None:
        """Take the weights as they are now into the average: call it after a step.

        Raises:
            RuntimeError: a layer has no weights before its first forward pass; the
                weights are at ``w + eps``, inside of a `probes` loop, or
                are the average itself, inside of `applied`; or the model has other
                tensors than at the last update.
        """
        now = tensors_of(self.model)
        check_made(now)
        if self._is_away():
            raise RuntimeError("update() inside of applied(). Call it after the block.")
        self._check_at_w("update")
        self._take(now)
        self.updates += 1
        self._statistics = {}

    @contextmanager
    def applied(self) -> Generator[None]:
        """Within, the model has the average; afterwards its own weights, bit for bit.

        Example:
            >>> import torch, flatmin
            >>> model = torch.nn.Linear(4, 2)
            >>> average = flatmin.averaging.EMA(model)
            >>> average.update()
            >>> with average.applied():
            ...     out = model(torch.randn(3, 4))

        Raises:
            RuntimeError: nothing was averaged yet; the model has other tensors than at
                the last update; the average has no running statistics of its own (see
                `refresh`); weights are other ones at the end of the block.
        """
        found = self._checked()
        with self._lent_to_model(found) as own:
            yield
            # By value: what measures sharpness moves the weights and puts them back.
            changed = changed_weights(self.model, own, found)
        if changed:
            raise RuntimeError(
                f"{changed[0]} was changed inside of applied(): the change is lost. "
                "Train outside of the block, or call transfer() to go on from the "
                "average."
            )

    def transfer(self) -> None:
        """Give the model the average for good; its own weights are gone.

        At the end of training this gives the network to keep. Called at the end of
        every epoch, it turns `EMA` into the switching average (Switch EMA).

        Raises:
            RuntimeError: as `applied`.

        Reference: Li et al. Switch EMA: A Free Lunch for Better Flatness and Sharpness.
        2024, arXiv:2402.09240.
        """
        found = self._checked()
        self._check_free()
        self._check_at_w("transfer")
        put(self.model, found)
        estimate(self.model)

    def refresh(self, batches: Iterable[Any]) -> None:
        """Estimate BatchNorm's running statistics anew, for the averaged weights.

        The mean over ``batches`` takes the place of the average of the statistics, but
        for layers that ``model.train()`` leaves in evaluation mode. Random streams, and
        the model, are left as they were.

        Args:
            batches: inputs, or tuples or lists that begin with them, as
                `torch.optim.swa_utils.update_bn` takes them; batches on the model's
                device, shuffled as in training.

        Raises:
            RuntimeError: nothing was averaged yet, or the model has other tensors than
                at the last update.
            ValueError: there are no batches.
        """
        with self._lent_to_model(self._found()), still(self.model):
            _measure(self.model, batches)
            self._statistics = {
                name: t.clone() for name, t in _running(self.model).items()
            }

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs: tensors, numbers and names only."""
        kept = {"kind": type(self).__name__, "updates": self.updates}
        return {**kept, "statistics": dict(self._statistics), **self._state()}

    @torch.inference_mode(False)
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: the state is of another model, or of another kind of average.
        """
        kind = type(self).__name__
        if state.get("kind", kind) != kind:
            raise ValueError(
                f"this is no state of {kind}: it is that of {state['kind']}. Build a "
                f"{state['kind']} to load it."
            )
        try:
            tensors = [*self._saved(state)]
            statistics, updates = state["statistics"], int(state["updates"])
        except KeyError as error:
            raise ValueError(
                f"this is no state of {kind}: it has no {error}. Give "
                "what its state_dict() returned."
            ) from None
        for named in tensors:
            check_like(self.model, named)
        if statistics:
            check_like(self.model, {**tensors_of(self.model), **statistics})
        self._load(state)
        self.updates = updates
        self._statistics = beside(self.model, statistics)

    @abstractmethod
    def _take(self, now: Named) -> None:
        """Move the average towards the weights as they are now."""

    @abstractmethod
    def _mean(self) -> Named:
        """The average, by name."""

    @abstractmethod
    def _state(self) -> dict[str, Any]: ...

    @abstractmethod
    def _saved(self, state: Mapping[str, Any]) -> Iterable[Named]:
        """The tensors of a saved state, to be compared with the model's."""

    @abstractmethod
    def _load(self, state: Mapping[str, Any]) -> None: ...

    def _found(self) -> Named:
        if not self.updates:
            raise RuntimeError(
                "nothing was averaged yet. Call update() after each step of the "
                "training, or of its last part."
            )
        found = self._mean()
        check_same(found, tensors_of(self.model))
        return found

    def _checked(self) -> Named:
        found = self._found()
        if self._spread and not self._statistics and _running(self.model):
            raise RuntimeError(
                f"the model has BatchNorm layers, and {type(self).__name__} no running "
                "statistics that fit its weights. Call average.refresh(batches) with "
                "training batches after the last update()."
            )
        return {**found, **self._statistics}

    def _is_away(self) -> bool:
        """Whether the model, a wrapper of it or a part of it has an average now."""
        ours = set(map(id, tensors_of(self.model).values()))
        return any(id(t) in ours for average in _LENT for t in average._lent)

    def _check_free(self) -> None:
        if self._is_away():
            raise RuntimeError(
                "the model has an average already, inside of applied(). Leave that "
                "block first."
            )

    def _check_at_w(self, name: str) -> None:
        if are_away(tensors_of(self.model).values()):
            raise RuntimeError(
                f"{name}() inside of a probes() loop, where the weights are at w + "
                "eps. Call it after optimizer.step()."
            )

    @contextmanager
    def _lent_to_model(self, found: Named) -> Generator[Named]:
        """Within, the model has these tensors; afterwards its own; yields copies."""
        self._check_free()
        self._lent = _own_of(self.model)
        _LENT.add(self)
        try:
            with restored(self.model) as own:
                put(self.model, found)
                estimate(self.model)
                yield own
        finally:
            _LENT.discard(self)
            self._lent = []


def _own_of(model: nn.Module) -> list[Tensor]:
    """Return the tensors that tell a model from others.

    Two models may share a frozen part, which has the same value in both averages.
    """
    tensors = list(tensors_of(model).values())
    return [t for t in tensors if t.requires_grad] or tensors


@torch.no_grad()
def _measure(model: nn.Module, batches: Iterable[Any]) -> None:
    """Set running statistics to the means over batches.

    Raises:
        ValueError: there are no batches.
    """
    modes = {module: module.training for module in model.modules()}
    model.train()
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    count = 0
    try:
        with collecting(layers):
            for batch in batches if layers else ():
                model(batch[0] if isinstance(batch, list | tuple) else batch)
                count += 1
    finally:
        for module, training in modes.items():
            module.training = training
    if layers and not count:
        raise ValueError(
            "refresh() was given no batches. An iterator can be used once: give the "
            "loader itself, or a new iterator."
        )


def _running(model: nn.Module) -> dict[str, Tensor]:
    """BatchNorm's running statistics, by name; empty if no layer keeps any."""
    found: dict[str, Tensor] = {}
    # torch does not say what named_modules() yields.
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    for prefix, layer in modules:
        if isinstance(layer, _BatchNorm) and layer.track_running_stats:
            found |= dict(layer.named_buffers(prefix, recurse=False))
    return found
