"""optax's SAM as a program of its own: ``with_optax.py PROBLEM IN.npz OUT.npz``.

IN may have a ``period`` other than 2, and ``seen`` if the updates of the ascent are
seen and not made in an inner loop.

It runs in its own process, because JAX warns at every later fork of the process that
imported it, and the loaders of other tests fork. It never imports flatmin.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import sam

STEPS = {"quadratic": 10, "network": 8}


def quadratic(w: list[Any], given: dict[str, Any]) -> Any:
    return w[0] @ given["a"] @ w[0] / 2


def network(w: list[Any], given: dict[str, Any]) -> Any:
    x, y = given["x"], given["y"]
    hidden = jnp.tanh(x @ w[0].T + w[1])
    out = jax.nn.log_softmax(hidden @ w[2].T + w[3])
    return -out[jnp.arange(len(y)), y].mean()


def descend(slope: Any, w: list[Any], given: dict[str, Any], steps: int) -> list[Any]:
    """``steps`` of optax's SAM, which is given the gradient function, or gradients."""
    rho, lr = float(given["rho"]), float(given["lr"])
    period, seen = int(given.get("period", 2)), "seen" in given
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
    base = optax.sgd(lr, momentum=0.9)
    optimizer = sam(base, adversary, sync_period=period, opaque_mode=not seen)
    at: Any = w
    state = optimizer.init(at)
    for _ in range(steps * (period if seen else 1)):
        updates, state = optimizer.update(
            slope(at), state, at, grad_fn=lambda p, _: slope(p)
        )
        at = optax.apply_updates(at, updates)
    return at


def main(problem: str, source: str, target: str) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    given = {name: jnp.asarray(value) for name, value in np.load(source).items()}
    w = [given[name] for name in sorted(given) if name.startswith("w")]
    loss = {"quadratic": quadratic, "network": network}[problem]
    slope = jax.grad(lambda v: loss(v, given))
    np.savez(target, *map(np.asarray, descend(slope, w, given, STEPS[problem])))


main(*sys.argv[1:])
