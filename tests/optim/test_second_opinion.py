"""Other people's SAM on the same problems."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from optax.contrib import sam as optax_sam
from torch import Tensor, nn

from flatmin import SAM
from tests.problems import Quadratic, batch, descend, gradient, loss_of, mlp, sam_steps

X, Y = batch(torch.float64)


@pytest.fixture(autouse=True)
def float64() -> Any:
    jax.config.update("jax_platforms", "cpu")
    with jax.enable_x64(True):
        yield


def with_optax(loss: Any, params: Any, *, rho: float, lr: float, steps: int) -> Any:
    """``steps`` of optax's SAM, which sees the gradient function itself."""
    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(rho))
    optimizer = optax_sam(
        optax.sgd(lr, momentum=0.9), adversary, sync_period=2, opaque_mode=True
    )
    state = optimizer.init(params)
    slope = jax.grad(loss)
    for _ in range(steps):
        updates, state = optimizer.update(
            slope(params), state, params, grad_fn=lambda p, _: slope(p)
        )
        params = optax.apply_updates(params, updates)
    return params


def base_of(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def close(mine: Tensor, theirs: Any) -> None:
    torch.testing.assert_close(
        mine.detach(), torch.from_numpy(np.array(theirs)), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_optax_agrees_on_a_quadratic(rho: float) -> None:
    model = Quadratic()
    a, w = jnp.asarray(model.a.numpy()), jnp.asarray(model.w.detach().numpy())
    theirs = with_optax(lambda v: v @ a @ v / 2, w, rho=rho, lr=0.05, steps=10)
    optimizer = SAM(base_of(model, 0.05), model, rho=rho)
    for _ in range(10):
        descend(optimizer, model)
        optimizer.step()
    close(model.w, theirs)


def test_optax_agrees_on_a_network() -> None:
    model = mlp()
    x, y = jnp.asarray(X.numpy()), jnp.asarray(Y.numpy())

    def loss(w: list[Any]) -> Any:
        hidden = jnp.tanh(x @ w[0].T + w[1])
        out = jax.nn.log_softmax(hidden @ w[2].T + w[3])
        return -out[jnp.arange(len(y)), y].mean()

    w = [jnp.asarray(p.detach().numpy()) for p in model.parameters()]
    theirs = with_optax(loss, w, rho=0.1, lr=0.1, steps=8)
    sam_steps(SAM(base_of(model, 0.1), model, rho=0.1), model, (X, Y), 8)
    for p, their in zip(model.parameters(), theirs, strict=True):
        close(p, their)


def dual_vector(y: list[Tensor]) -> list[Tensor]:
    """As in google-research/sam: divided by the global l2 norm."""
    length = torch.stack([torch.vdot(t.flatten(), t.flatten()) for t in y]).sum().sqrt()
    return [t / length for t in y]


def test_the_official_rule_agrees_on_a_network() -> None:
    model, rho = mlp(), 0.05
    w = [p.detach().clone() for p in model.parameters()]
    loss_of(model, (X, Y)).backward()
    climb = dual_vector([gradient(p).clone() for p in model.parameters()])
    with torch.no_grad():
        for p, d in zip(model.parameters(), climb, strict=True):
            p.add_(rho * d)
    model.zero_grad()
    loss_of(model, (X, Y)).backward()
    official = [gradient(p).clone() for p in model.parameters()]
    with torch.no_grad():
        for p, t in zip(model.parameters(), w, strict=True):
            p.copy_(t)
    for _ in SAM(base_of(model, 0.1), model, rho=rho).probes():
        loss_of(model, (X, Y)).backward()
    for p, g in zip(model.parameters(), official, strict=True):
        torch.testing.assert_close(gradient(p), g, rtol=1e-12, atol=1e-15)
