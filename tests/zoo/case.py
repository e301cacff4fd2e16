"""A third-party model, what to feed it, and how its output becomes a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Inputs = Callable[[], dict[str, Any]]


class Case(NamedTuple):
    """One model to train.

    Attributes:
        model: has drawn its parameters.
        inputs: for each step, what makes the arguments of the model.
        loss: makes a scalar of the model's output.
        trained: whether a parameter of this name is the optimizer's.
        dtype: of the parameters.
    """

    model: nn.Module
    inputs: Sequence[Inputs]
    loss: Callable[[Any], Tensor]
    trained: Callable[[str], bool] = lambda name: True
    dtype: torch.dtype = torch.float64


def uneven(y: Tensor) -> Tensor:
    """A loss that neither a normalisation keeps constant, nor a head of zeros flat."""
    weight = torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype)
    return (y @ weight - 1).square().mean()


def first(output: Any) -> Tensor:
    """The loss of a model that returns several things, the first of which counts."""
    return uneven(output[0])


def tokens(n: int, length: int, name: str = "input_ids", **more: Inputs) -> Inputs:
    """Makes sentences of a vocabulary of 17, and what ``more`` makes."""

    def make() -> dict[str, Any]:
        given = {name: torch.randint(3, 17, (n, length))}
        for inputs in more.values():
            given |= inputs()
        return given

    return make


def normal(*shape: int, name: str = "x") -> Inputs:
    """Makes numbers of a normal distribution."""
    return lambda: {name: torch.randn(*shape)}


def images(n: int, size: int = 32, name: str = "x") -> Inputs:
    """Makes square images."""
    return normal(n, 3, size, size, name=name)


def hf(name: str, *args: Any, **options: Any) -> Any:
    """Builds a configuration or a model of transformers, which is imported late."""
    import transformers

    return getattr(transformers, name)(*args, **options)
