"""Weights that a forward pass changes itself: ``max_norm`` of an embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from flatmin.optim._tensor_copy import Mark, TensorCopy, marks
from flatmin.optim._weights import Weights


class TrainedReplay:
    """Keeps the first pass's change of the weights, and undoes that of later ones.

    The gradient was measured at the changed weights, so they are ``w``: perturbations
    start from there. A weight that a later pass moves is restored in any case. One that
    stays at ``w`` must not be changed again.

    Args:
        weights: moves the parameters.
        name_of: the name of a parameter, for the message.
    """

    def __init__(self, weights: Weights, name_of: Callable[[Tensor], str]) -> None:
        self._weights = weights
        self._name_of = name_of
        self._end = TensorCopy()
        self._steps = 0
        self._trained: Sequence[Tensor] = ()
        self._marks: list[Mark] = []

    def begin(self, trained: Sequence[Tensor]) -> None:
        """Before the first pass."""
        self._steps += 1
        self._trained = trained
        self._marks = marks(trained)
        self._weights.watch = True
        self._weights.look = self._steps & (self._steps - 1) == 0
        self._weights.away, self._weights.touched = [], []

    def keep(self) -> None:
        """After the first pass: remember which weights it changed.

        Raises:
            RuntimeError: it changed weights that stood at ``w + eps``.
        """
        self._weights.watch = False
        if self._weights.touched:
            raise RuntimeError(self._sentence(self._weights.touched[0]))
        away = {id(p) for p in self._weights.away}
        rows = zip(self._trained, marks(self._trained), self._marks, strict=True)
        self._end.save([p for p, m, then in rows if m != then and id(p) not in away])

    def put(self) -> None:
        """Set the changed weights to what the first pass left."""
        self._end.load()

    def _sentence(self, p: Tensor) -> str:
        return (
            f"the forward pass changes {self._name_of(p)} in place, and this method's "
            "first pass is not at w, so what it changed would be lost. Change the "
            "parameter after optimizer.step(), outside of forward, or use a method "
            "that starts at w."
        )
