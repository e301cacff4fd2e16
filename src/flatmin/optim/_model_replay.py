"""Rewinds what the passes of a step change in a model, beside the perturbation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flatmin.optim._frozen import FrozenReplay
from flatmin.optim._lazy import LazyReplay
from flatmin.optim._replay import RandomReplay
from flatmin.optim._snapshot import Snapshot
from flatmin.optim._tensor_copy import TensorCopy
from flatmin.optim._trained import TrainedReplay
from flatmin.optim._weights import Weights


class ModelReplay:
    """Buffers, attributes, modules, and parameters that a forward pass changes.

    Args:
        model: the model.
        weights: moves its parameters.
        streams: the random streams, if they are replayed.
    """

    def __init__(
        self, model: nn.Module, weights: Weights, streams: RandomReplay | None
    ) -> None:
        self._model = model
        self._start = self._end = Snapshot(model, {}, [])
        self._buffers, self._left = TensorCopy(), TensorCopy()
        self._frozen = FrozenReplay(self._name_of)
        self._trained = TrainedReplay(weights, self._name_of)
        self._lazy = LazyReplay(self._made, streams)
        self._late: list[TensorCopy] = []
        self._fresh = False

    def begin(self, parameters: Sequence[Tensor], trained: Sequence[Tensor]) -> None:
        del parameters
        now = self._end.again() if self._end.modules else Snapshot.of(self._model)
        self._start = now
        self._buffers.save(now.buffers)
        self._late = []
        self._frozen.begin(_others(now, trained), trained)
        self._trained.begin(trained)
        self._lazy.begin(now.modules)

    def keep(self) -> None:
        self._lazy.keep()
        self._end, self._fresh = self._start.again(), True
        self._left.save(self._end.buffers)
        try:
            self._trained.keep()
            self._frozen.keep()
        except RuntimeError:
            self._back(changed=True)
            raise

    def rewind(self) -> None:
        # Right after the first pass we know whether it has changed anything.
        self._back(changed=self._end is not self._start or not self._fresh)
        self._fresh = False
        self._trained.put()
        self._lazy.rewind()

    def finish(self) -> None:
        # This removes hooks of ours that did not fire, too.
        self._end.put()
        self._left.load()
        self._frozen.finish()
        self._trained.put()

    def stop(self) -> None:
        # A hook of ours that stays would be taken for a part of the model.
        self._lazy.finish()

    def _back(self, *, changed: bool) -> None:
        if changed:
            self._start.put()
        self._buffers.load()
        for copy in self._late:
            copy.load()
        self._frozen.rewind()

    def _made(self, module: nn.Module) -> None:
        """A lazy module has its parameters now: later passes start from here."""
        self._start = self._start.with_now(module)
        copy = TensorCopy()
        copy.save(list(module.buffers(recurse=False)))
        self._late.append(copy)

    def _name_of(self, t: Tensor) -> str:
        for name, p in self._model.named_parameters(remove_duplicate=False):
            if p is t:
                return f"the parameter {name!r}"
        return "a tensor"


def _others(now: Snapshot, trained: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that neither the optimizer moves nor a buffer holds."""
    known = {id(t) for t in [*now.buffers, *trained]}
    every = {id(t): t for t in [*now.parameters, *now.tensors]}
    return [t for k, t in every.items() if k not in known and not is_lazy(t)]
