"""Other people's SAM on the same problems."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from tests.problems import Quadratic, batch, descend, gradient, loss_of, mlp, sam_steps

X, Y = batch(torch.float64)
PROGRAM = Path(__file__).with_name("with_optax.py")


def with_optax(
    problem: str,
    folder: Path,
    model: nn.Module,
    given: dict[str, Tensor],
    **numbers: Any,
) -> list[Tensor]:
    """The weights after optax's steps from the weights of ``model``."""
    w = {f"w{i}": p.detach().numpy() for i, p in enumerate(model.parameters())}
    arrays = w | {name: value.numpy() for name, value in given.items()}
    np.savez(folder / "in.npz", **arrays, **numbers)
    command = [sys.executable, PROGRAM, problem, folder / "in.npz", folder / "out.npz"]
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=quiet, check=False
    )
    assert not done.returncode, done.stderr
    out = np.load(folder / "out.npz")
    return [torch.from_numpy(out[name]) for name in out.files]


def base_of(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def close(model: nn.Module, theirs: list[Tensor]) -> None:
    for w, their in zip(model.parameters(), theirs, strict=True):
        torch.testing.assert_close(w.detach(), their, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_optax_agrees_on_a_quadratic(rho: float, tmp_path: Path) -> None:
    model = Quadratic()
    given = {"a": model.a}
    theirs = with_optax("quadratic", tmp_path, model, given, rho=rho, lr=0.05)
    optimizer = SAM(base_of(model, 0.05), model, rho=rho)
    for _ in range(10):
        descend(optimizer, model)
        optimizer.step()
    close(model, theirs)


def test_optax_agrees_on_a_network(tmp_path: Path) -> None:
    model = mlp()
    given = {"x": X, "y": Y}
    theirs = with_optax("network", tmp_path, model, given, rho=0.1, lr=0.1)
    sam_steps(SAM(base_of(model, 0.1), model, rho=0.1), model, (X, Y), 8)
    close(model, theirs)


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
