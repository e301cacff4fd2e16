"""The network in JAX, trained with the authors' gradients and momentum."""

from __future__ import annotations

import copy
import typing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Record
from typing import Any

import torch
from comparison import CLASSES, Load
from extraction import extract
from loops import MOMENTUM, RATE, Batches, Run
from torch import Tensor, nn


def old_jax() -> Any:
    """Return jax.numpy in float64, and a jax with names that newer versions removed."""
    import jax

    jax.config.update("jax_enable_x64", True)
    tree_map = jax.tree_util.tree_map
    past = {"tree_map": tree_map, "tree_multimap": tree_map}
    now = {name: getattr(jax, name) for name in ("lax", "vmap", "tree_util", "random")}
    return jax.numpy, Record(value_and_grad=jax.value_and_grad, **past, **now)


def jax_loss(jnp: Any, w: list[Any], x: Any, hot: Any, decays: float = 0.0) -> Any:
    """Return the loss of `mlp`, plus weight decay."""
    logits = jnp.tanh(x @ w[0].T + w[1]) @ w[2].T + w[3]
    top = logits.max(axis=1, keepdims=True)
    log_sum = jnp.log(jnp.exp(logits - top).sum(axis=1)) + top[:, 0]
    penalty = decays / 2 * sum((p**2).sum() for p in w)
    return (log_sum - (logits * hot).sum(axis=1)).mean() + penalty


def read(jnp: Any, model: nn.Module) -> list[Any]:
    return [jnp.asarray(p.detach().numpy()) for p in model.parameters()]


def write(model: nn.Module, w: list[Any]) -> None:
    with torch.no_grad():
        for p, value in zip(model.parameters(), w, strict=True):
            p.copy_(torch.tensor(value.tolist(), dtype=p.dtype))


def arrays(jnp: Any, x: Tensor, y: Tensor) -> tuple[Any, Any]:
    hot = torch.nn.functional.one_hot(y, CLASSES)
    return jnp.asarray(x.numpy()), jnp.asarray(hot.numpy())


def jax_gradient(
    name: str, path: str, vector_in: str, config: Any, decays: float, **options: Any
) -> Load:
    """Train with the inner function of their step that returns the gradient."""

    def load(folder: Path) -> Run:
        jnp, jax = old_jax()
        batch: list[Any] = []

        def forward_and_loss(w: list[Any], true_gradient: bool = False) -> Any:
            del true_gradient
            return jax_loss(jnp, w, *batch, decays), (None, None)

        there = extract(folder / vector_in, "dual_vector", jax=jax, jnp=jnp)
        space = {"forward_and_loss": forward_and_loss, "FLAGS": config, "utli": there}
        space |= {"jax": jax, "jnp": jnp, "dual_vector": there.dual_vector}
        gradient = getattr(extract(folder / path, name, **space), name)

        def run(model: nn.Module, batches: Batches) -> None:
            w = read(jnp, model)
            v = [0.0 * p for p in w]
            for x, y in batches:
                batch[:] = arrays(jnp, x, y)
                _, g = gradient(w, **options)
                v = [MOMENTUM * a + b for a, b in zip(v, g, strict=True)]
                w = [a - RATE * b for a, b in zip(w, v, strict=True)]
            write(model, w)

        return run

    return load


#: Called with the step, the model and jax.numpy before each step.
Before = Callable[[int, nn.Module, Any], None]


def bayesian(
    name: str,
    *args: float,
    before: Before = lambda *_: None,
    space: dict[str, Any] | None = None,
    **options: float,
) -> Load:
    """Train with an optimizer of bayesian-sam, a pair of ``init`` and ``step``."""

    def load(folder: Path) -> Run:
        jnp, jax = old_jax()
        there = extract(
            folder / "optim.py",
            "TrainState",
            name,
            jax=jax,
            jnp=jnp,
            copy=copy,
            NamedTuple=typing.NamedTuple,
            **(space or {}),
        )

        def losses(w: list[Any], state: None, batch: Any, is_training: bool) -> Any:
            del is_training
            return jax_loss(jnp, w, *batch), state

        def run(model: nn.Module, batches: Batches) -> None:
            slope = jax.value_and_grad(losses, has_aux=True)
            init, step = getattr(there, name)(slope, *args, **options)
            state = init(read(jnp, model), None, jax.random.PRNGKey(0))
            for t, (x, y) in enumerate(batches):
                before(t, model, jnp)
                state, _ = step(state, arrays(jnp, x, y), 1.0)
            write(model, state.optstate["w"])

        return run

    return load
