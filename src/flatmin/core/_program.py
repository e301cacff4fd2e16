"""The vocabulary: what a method may ask for, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from flatmin.core._checks import part

#: One entry per trainable parameter, in the optimizer's order; None: no gradient.
Gradients: TypeAlias = list[Tensor | None]

#: Which of ``n`` examples a pass needs: an index for the first axis, or None for all.
Batch: TypeAlias = Callable[[int], slice | Tensor | None]


def whole(n: int) -> None:
    """Every example: the ascent sees what the descent sees."""
    del n


def fraction(share: float) -> Batch:
    """The first examples, so much of the batch, and one at least."""
    return partial(_first, part("share", share))


def highest(values: Tensor, share: float) -> Batch:
    """The examples with the highest values, so much of the batch, and one at least.

    Args:
        values: one for each example.
        share: of the batch.
    """
    best = values.topk(max(1, round(part("share", share) * len(values)))).indices
    return partial(_these, best.sort().values, len(values))


def _first(share: float, n: int) -> slice:
    return slice(0, max(1, round(share * n)))


def _these(index: Tensor, among: int, n: int) -> Tensor:
    if n != among:
        raise ValueError(
            f"this pass needs examples that were chosen among {among}, got {n}. Give "
            "probe.take() the same batch in every pass of a step."
        )
    return index


class Ascent(NamedTuple):
    """A perturbation and what was learned on the way to it.

    Attributes:
        eps: the perturbation, one entry per parameter, None where nothing moves. The
            engine empties this list once the weights have moved, so that its memory
            serves the pass.
        norm: the dual norm of the gradient, 0-dim; one per ball if there are several.
        ok: 0-dim bool; False if the gradient was zero or not finite, so that
            ``eps`` is 0.
    """

    eps: Gradients
    norm: Tensor
    ok: Tensor


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the engine: the gradient at ``w``, or at ``w + eps``.

    Attributes:
        at: where to stand; None is ``w`` itself.
        batch: the examples the pass needs.
        climbs: True if the gradient serves the ascent: whoever shares one perturbation
            shares it, and replicas need not average it.
        along: if given, the pass is for the product of the Hessian with this, instead
            of the gradient.
        alone: True if the method wants this replica's gradient for other reasons.
            If the last pass was not averaged, what the method returns will be.
        each: True if the method wants the loss of each example, in `Step.losses`.
        backward: False if it wants nothing but these; there is no gradient then.
    """

    at: Ascent | None = None
    batch: Batch = whole
    climbs: bool = False
    along: Gradients | None = None
    alone: bool = False
    each: bool = False
    backward: bool = True


class Memory:
    """What a method carries from step to step, by name: an entry per parameter.

    It is kept in the optimizer's state, and so in its checkpoints, once the step that
    made it has been taken. A method, or a joint of it, says in ``remembers`` under
    which names, and in ``notes`` those of its numbers: a distributed checkpoint loads
    what a new optimizer's state has an entry for.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Gradients] = {}
        self._noted: dict[str, float] = {}
        self._pushes: list[Gradients] = []
        self._pulls: list[tuple[Gradients, float]] = []

    def recall(self, name: str) -> Gradients | None:
        """What was kept last; None if nothing was."""
        return self._kept.get(name)

    def keep(self, name: str, values: Gradients) -> None:
        """Carry these on, in the parameters' order; None where there is nothing."""
        self._kept[name] = values

    def number(self, name: str) -> float | None:
        """What was noted last; None if nothing was."""
        return self._noted.get(name)

    def note(self, name: str, value: float) -> None:
        """Carry a number on, alike on all processes."""
        self._noted[name] = value

    def push(self, move: Gradients) -> None:
        """Add this to the weights once the base optimizer has made its step."""
        self._pushes.append(move)

    def pull(self, anchor: Gradients, share: float) -> None:
        """After the base optimizer's step, ``w <- anchor + share (w - anchor)``."""
        self._pulls.append((anchor, share))


@dataclass(frozen=True, slots=True)
class Step:
    """What a method knows about the step it is in.

    Attributes:
        index: how many steps the base optimizer has made.
        model: the model, unperturbed whenever the method looks at it.
        w: the trainable parameters of the optimizer.
        groups: the optimizer's parameter groups.
        group_of: for every entry of ``w``, the index of its group.
        memory: what the method kept in earlier steps.
        state: the base optimizer's state, by parameter; to be read.
        agree: the mean of a 0-dim tensor over all replicas, for decisions that they
            have to make alike.
        mean: the mean of gradients over all replicas, for what they have to remember
            alike.
        losses: for each pass that asked for it, the loss of each of its examples.
    """

    index: int
    model: nn.Module
    w: list[Tensor]
    groups: list[dict[str, Any]]
    group_of: list[int] = field(default_factory=list[int])
    memory: Memory = field(default_factory=Memory)
    state: Mapping[Tensor, dict[str, Any]] = field(
        default_factory=dict[Tensor, dict[str, Any]]
    )
    agree: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    mean: Callable[[Gradients], Gradients] = field(default=lambda g: g)
    losses: list[Tensor] = field(default_factory=list[Tensor])


#: Yields requests, is sent gradients, returns the vector to descend.
Program: TypeAlias = Generator[Ask, Gradients, Gradients]

#: A method: one program per step.
Method: TypeAlias = Callable[[Step], Program]
