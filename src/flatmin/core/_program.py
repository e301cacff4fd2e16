"""The vocabulary: what a method may ask for, and what it receives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor, nn

from flatmin.core._batch import Batch, all_examples
from flatmin.core._multiple import Entries as Entries

#: One entry per trainable parameter, in the optimizer's order; None: no gradient.
Gradients: TypeAlias = list[Tensor | None]

#: As `Gradients`, but read-only; None: this parameter stays where it is.
Move: TypeAlias = Entries

#: Tensors of the model that the optimizer does not train, and how far each moves.
Frozen: TypeAlias = tuple[tuple[Tensor, Tensor], ...]

#: The loss is the sum of two parts: one that is to be flat, and the rest.
Part: TypeAlias = Literal["flat", "rest"]


class Point(NamedTuple):
    """A point ``w + eps`` to evaluate that is not the step's perturbation.

    Attributes:
        eps: how far it is from ``w``.
        frozen: tensors that the optimizer does not train, and how far each moves. The
            first request of a step must name all of them that the step moves.
    """

    eps: Move
    frozen: Frozen = ()


class Ascent(NamedTuple):
    """The step's perturbation, with the norm of the gradient that led to it.

    `flatmin.Statistics` reports the pass at this point. In a step that climbs in
    several moves, all but the last go to a `Point`.

    Attributes:
        eps: the perturbation. The engine drops its reference before the pass. A
            program that drops its own too frees the memory for the pass.
        norm: the dual norm of the gradient, 0-dim; one per ball if there are several.
        ok: 0-dim bool; False if the gradient was zero or not finite, so that
            ``eps`` is 0.
        frozen: as for `Point`.
    """

    eps: Move
    norm: Tensor
    ok: Tensor
    frozen: Frozen = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to the engine: the gradient at ``w``, or at ``w + eps``.

    What replicas do with the gradient they find depends on what it is for:

    * ``Ask()``: it is descended as it is, so all replicas average it.
    * ``Ask(climbs=True)``: it is climbed, so the replicas that share one perturbation
      (the scope) average it, and the others need not.
    * ``Ask(alone=True)``: it is combined with others, so it is not averaged. The
      engine averages what the method returns if the last pass was not averaged.

    Attributes:
        at: where to take the gradient: None is ``w`` itself, an `Ascent` is the step's
            perturbation, and a `Point` is any other place.
        batch: the examples the pass needs.
        climbs: True if a perturbation is made of this gradient.
        along: if given, the pass is for the product of the Hessian with this, instead
            of the gradient.
        alone: True if the method wants the gradient of this replica's own examples.
        each: True if the method wants the loss of each example, in `Step.losses`.
        backward: False if it wants only these losses; there is no gradient then.
        part: which part of the loss the gradient is of; None is all of it. The loop
            passes the parts to ``probe.total``.

    Raises:
        ValueError: both ``climbs`` and ``alone`` are set.
    """

    at: Point | Ascent | None = None
    batch: Batch = all_examples
    climbs: bool = False
    along: Gradients | None = None
    alone: bool = False
    each: bool = False
    backward: bool = True
    part: Part | None = None

    def __post_init__(self) -> None:
        if self.climbs and self.alone:
            raise ValueError(
                "a gradient is averaged by those who climb together (climbs=True) or "
                "by nobody (alone=True), not both. Give Ask() one of the two."
            )

    def there(self) -> Ask:
        """Return the request as it stands once the weights have moved to ``at``."""
        return replace(self, at=None)


@dataclass(slots=True)
class Carried:
    """What is carried to the next step: by one loop, or by all loops of a step.

    Attributes:
        kept: an entry per parameter, by name.
        noted: numbers, by name.
        loops: how many loops each of the names comes from.
        pushes: moves after the base optimizer's step.
        pull: an anchor, and the share of the step that is left.
        dropped: names to forget.
    """

    kept: dict[str, Gradients] = field(default_factory=dict[str, Gradients])
    noted: dict[str, float] = field(default_factory=dict[str, float])
    loops: dict[str, int] = field(default_factory=dict[str, int])
    pushes: list[Gradients] = field(default_factory=list[Gradients])
    pull: tuple[Gradients, Sequence[Tensor | float | None]] | None = None
    dropped: set[str] = field(default_factory=set[str])

    def add(self, loop: Carried) -> None:
        """Take what a further loop of the step carries into the means and sums."""
        for name, values in loop.kept.items():
            n = self._counted(name)
            pairs = zip(self.kept.get(name, values), values, strict=True)
            self.kept[name] = values if n == 1 else [_mean(*xs, n) for xs in pairs]
        for name, value in loop.noted.items():
            n = self._counted(name)
            old = self.noted.get(name, value)
            self.noted[name] = value if value == old else old + (value - old) / n
        self.pushes += loop.pushes
        self.pull = self.pull if loop.pull is None else loop.pull
        self.dropped |= loop.dropped

    def _counted(self, name: str) -> int:
        self.loops[name] = self.loops.get(name, 0) + 1
        return self.loops[name]


def _mean(mean: Tensor | None, x: Tensor | None, n: int) -> Tensor | None:
    """The mean of n entries, from that of all but the last; None is zero.

    It is exact if all are equal, as weights are that every loop keeps.
    """
    if mean is None:
        return x if x is None else x / n
    return mean - mean / n if x is None else mean + (x - mean) / n


class Memory:
    """What a method carries from step to step, by name: an entry per parameter.

    Values go into the optimizer's state, and so into its checkpoints, once the step
    that made them has been taken. A method or one of its joints declares the names in
    its `Traits`: ``remembers`` for these and ``notes`` for numbers. A distributed
    checkpoint loads only what a new optimizer's state already has an entry for.

    Where a step accumulates over loops, each of its micro-batches keeps values of its
    own. Then their mean is carried on: it has the scale of one micro-batch's gradient,
    like those that the next step combines it with.
    """

    def __init__(self) -> None:
        self._loop = Carried()

    def recall(self, name: str) -> Gradients | None:
        """Return what was kept last under this name; None if nothing was."""
        return self._loop.kept.get(name)

    def of_this_step(self, name: str) -> Gradients | None:
        """Return the mean of what earlier loops of the same step have kept."""
        del name
        return None

    def keep(self, name: str, values: Gradients) -> None:
        """Carry these on, in the parameters' order; None where there is nothing.

        What the method returns may be scaled and clipped in place, so keep a clone of
        it and not the same tensors. In the mean over micro-batches None is zero.
        """
        self._loop.kept[name] = values

    def drop(self, name: str) -> None:
        """Forget what was kept under this name in earlier steps, for all parameters.

        A parameter without a gradient keeps nothing in a step, and would go on with
        what it kept long ago.
        """
        self._loop.dropped.add(name)

    def number(self, name: str) -> float | None:
        """Return the number noted last under this name; None if there is none."""
        return self._loop.noted.get(name)

    def note(self, name: str, value: float) -> None:
        """Carry a number on, which must be the same on all processes."""
        self._loop.noted[name] = value

    def push(self, move: Gradients) -> None:
        """Add this to the weights once the base optimizer has made its step."""
        self._loop.pushes.append(move)

    @property
    def pulled(self) -> bool:
        """Whether `pull` will change the move of this step."""
        return self._loop.pull is not None

    def pull(self, anchor: Gradients, shares: Sequence[Tensor | float | None]) -> None:
        """After the base optimizer's step, ``w <- anchor + share (w - anchor)``.

        Args:
            anchor: an entry per parameter.
            shares: likewise, a number or a tensor of the parameter's shape; above 1
                stretches the step, and None leaves it as it is.
        """
        self._loop.pull = anchor, shares


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

    def per_parameter(self, values: Sequence[float]) -> list[float]:
        """For every entry of ``w``, the value of its group."""
        return [values[k] for k in self.group_of]


#: Yields requests, is sent gradients, returns the vector to descend.
Program: TypeAlias = Generator[Ask, Gradients, Gradients]


def plain() -> Program:
    """The base optimizer's own step: one gradient, at ``w``."""
    return (yield Ask())


def translated(
    program: Program, change: Callable[[Ask, Gradients], Gradients]
) -> Program:
    """Run a program, but send it ``change(ask, g)`` instead of each gradient g."""
    ask = next(program)
    while True:
        g = yield ask
        try:
            ask = program.send(change(ask, g))
        except StopIteration as done:
            return done.value
