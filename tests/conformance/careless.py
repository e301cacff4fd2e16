"""SAMs that go wrong when something else than their own step is called."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.conformance.hand import Hand, Vector


class Unprotected(Hand):
    """Restores in the last line of the step, which an exception does not reach."""

    def passes(self, backward: Any) -> Any:
        value = super().passes(backward)
        with torch.no_grad():
            super().put_back(self.w, [])
        return value

    def climb(self, eps: Vector) -> None:
        self.w = [p.detach().clone() for p in self.parameters()]
        super().climb(eps)

    def put_back(self, w: list[Tensor], eps: Vector) -> None:
        pass


def save_state(optimizer: Hand) -> Any:
    """What torch's optimizers have, which a wrapper does not save alone."""
    states = [optimizer.base.state[p] for p in optimizer.parameters()]
    return [dict(state) for state in states]


def load_state(optimizer: Hand, states: Any) -> None:
    for p, state in zip(optimizer.parameters(), states, strict=True):
        optimizer.base.state[p].update(state)


class RestoresInStep(Unprotected):
    """The weights are put back by the step that the user may not call."""

    def passes(self, backward: Any) -> Any:
        return Hand.passes(self, backward)

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            Hand.put_back(self, self.w, [])
        self.base.step()


def own_step(optimizer: Hand, model: nn.Module, loss: Any) -> None:
    del model
    optimizer.passes(lambda: loss().backward())
    optimizer.step()


class UnscaledAgain(Hand):
    """GradScaler takes it for an optimizer that has nothing to do with its base."""

    _step_supports_amp_scaling = False


class Copying(Hand):
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__


def last_alone(optimizer: Hand, model: nn.Module, losses: list[Any]) -> None:
    """Every pass clears the gradients."""
    for loss in losses:
        optimizer.passes(lambda loss=loss: loss().backward())
    optimizer.base.step()
