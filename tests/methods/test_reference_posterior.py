"""bSAM against its formula, and what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from flatmin import SAM
from flatmin.methods import (
    bsam,
)
from tests.methods.against import (
    STEPS,
    Pair,
    close,
    each_of,
    passes,
)
from tests.problems import Quadratic, gradient
from tests.reference import chosen

BAYES: dict[str, Any] = {
    "n": 50,
    "precision": 5.0,
    "betas": (0.8, 0.9),
    "damping": 0.2,
    "start": 0.7,
}


def noise_of(optimizer: SAM, pair: Pair, away: list[Tensor]) -> list[Tensor]:
    """z, from how far the first pass is from ``w``."""
    s = [
        pair.base.state[p].get("sam_scale", torch.full_like(p, BAYES["start"]))
        for p in pair.net.parameters()
    ]
    return [e * (BAYES["n"] * t).sqrt() for e, t in zip(away, s, strict=True)]


@pytest.mark.parametrize("rhos", [(1.0, 1.0), (1.0, 0.3)], ids=["one", "two"])
def test_bsam_equals_its_formula(rhos: tuple[float, float]) -> None:
    pair = Pair(groups=(rhos, (0.0, 0.0)), rho=0.05)
    groups = [
        {"params": group["params"], "sam_rho": group["sam_rho"]}
        for group in pair.base.param_groups
    ]
    pair.base = torch.optim.SGD(groups, lr=0.2)
    optimizer = bsam(pair.base, pair.net, rho=0.05, **BAYES)
    noise: list[list[Tensor]] = []
    for k in range(STEPS):
        steps = passes(optimizer, pair.net, k)
        noise.append(noise_of(optimizer, pair, next(steps)))
        list(steps)
    losses = [each_of(pair, k) for k in range(STEPS)]
    w, m, s = chosen.bsam(losses, pair.start, noise, lr=0.2, rho=pair.rhos, **BAYES)
    parameters = list(pair.net.parameters())
    close([*parameters], w)
    close([pair.base.state[p]["sam_mean"] for p in parameters], m)
    close([pair.base.state[p]["sam_scale"] for p in parameters], s)
    z = torch.cat([t.flatten() for step in noise for t in step])
    assert z.mean().abs() < 4 / len(z) ** 0.5
    assert z.var() == pytest.approx(1, abs=4 * (2 / len(z)) ** 0.5)


def test_bsam_on_a_zero_gradient_descends_its_prior() -> None:
    model = Quadratic()
    w = model.w.detach().clone()
    optimizer = bsam(torch.optim.SGD(model.parameters(), lr=0.1), model, **BAYES)
    for probe in optimizer.probes():
        probe.backward(0 * model())
    torch.testing.assert_close(gradient(model.w), (1 - 0.8) * 5 / 50 * w / 0.7)
    assert optimizer.unperturbed_steps == 1
    optimizer.step()
    s = torch.full_like(w, 0.9 * 0.7 + (1 - 0.9) * (0.2 + 5 / 50))
    torch.testing.assert_close(optimizer.state[model.w]["sam_scale"], s)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_bsam_climbs_nothing_infinite_and_does_not_learn_it(bad: float) -> None:
    model = Quadratic()
    w = model.w.detach().clone()
    optimizer = bsam(torch.optim.SGD(model.parameters(), lr=0.1), model, **BAYES)
    for probe in optimizer.probes():
        if probe.index == 1:
            assert torch.equal(model.w.detach(), w)
        probe.backward(model() * (bad if probe.index == 0 else 1.0))
    assert optimizer.unperturbed_steps == 1
    optimizer.step()
    s = optimizer.state[model.w]["sam_scale"]
    assert torch.equal(s, torch.full_like(s, 0.7))


def test_the_norm_of_bsam_is_that_of_the_gradient_it_climbs() -> None:
    model = Quadratic()
    optimizer = bsam(torch.optim.SGD(model.parameters(), lr=0.1), model, **BAYES)
    found: list[Tensor] = []
    for probe in optimizer.probes():
        model().backward()
        found.append(gradient(model.w).clone())
        del probe
    torch.testing.assert_close(optimizer.statistics.grad_norm, found[0].norm())


@pytest.mark.parametrize(
    "base", [{"momentum": 0.9}, {"weight_decay": 1e-3}], ids=["momentum", "decay"]
)
def test_bsam_refuses_a_base_that_does_its_work_again(base: dict[str, Any]) -> None:
    model = Quadratic()
    with pytest.raises(ValueError, match=r"needs a base of torch\.optim\.SGD"):
        bsam(torch.optim.SGD(model.parameters(), lr=0.1, **base), model, n=9)
    with pytest.raises(ValueError, match="got AdamW with another momentum"):
        bsam(torch.optim.AdamW(model.parameters()), model, n=9)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"precision": -1.0}, "precision must be in [0, inf)"),
        ({"damping": -0.1}, "damping must be in [0, inf)"),
        ({"betas": (0.9, 1.1)}, "betas[1] must be in [0, 1)"),
        ({"start": 0.0}, "start must be in (0, inf)"),
    ],
)
def test_impossible_settings_of_bsam_are_refused(
    bad: dict[str, Any], words: str
) -> None:
    model = Quadratic()
    with pytest.raises(ValueError, match=re.escape(words)):
        bsam(torch.optim.SGD(model.parameters(), lr=0.1), model, **{**BAYES, **bad})
