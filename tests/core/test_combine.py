"""What is descended: combinations of two gradients, and what they leave behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin.core import Combine, Gradients, Memory, Step, combine

DRAW = torch.Generator().manual_seed(0)
SHAPES = [(3, 2), (4,), ()]
G = [torch.randn(s, generator=DRAW, dtype=torch.float64) for s in SHAPES]
G_EPS = [torch.randn(s, generator=DRAW, dtype=torch.float64) for s in SHAPES]


def step(lr: Any = 0.1) -> Step:
    w = [torch.zeros_like(x) for x in G]
    groups = [{"sam_rho": 0.1, "lr": lr}, {"sam_rho": 0.1, "lr": 0.5}]
    return Step(index=0, model=nn.Identity(), w=w, groups=groups, group_of=[0, 0, 1])


def flat(a: Gradients) -> Tensor:
    return torch.cat([x.flatten() for x in a if x is not None])


def result(rule: Combine, g: list[Tensor] = G, e: list[Tensor] = G_EPS) -> Tensor:
    return flat(rule(step(), [*g] if rule.needs_g else [], [*e]))


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("c", "d"), [(0.2, 0.8), (-8.0, 9.0), (1.0, 0.0)])
def test_a_mixture(c: float, d: float) -> None:
    close(result(combine.Mixed(c, d)), c * flat([*G]) + d * flat([*G_EPS]))


def test_a_mixture_without_g_does_not_keep_it() -> None:
    rule = combine.Mixed(0.0, 1.0)
    assert not rule.needs_g
    found = rule(step(), [], [*G_EPS])
    assert all(x is y for x, y in zip(found, G_EPS, strict=True))
    close(result(combine.Mixed(0.0, 0.5)), flat([*G_EPS]) / 2)


def test_an_affine_rule_is_given_the_three_products() -> None:
    seen: list[Tensor] = []

    def rule(gg: Tensor, ge: Tensor, ee: Tensor) -> tuple[Tensor, float]:
        seen.extend([gg, ge, ee])
        return gg, 2.0

    g, e = flat([*G]), flat([*G_EPS])
    close(result(combine.Affine(rule)), (g @ g) * g + 2 * e)
    close(torch.stack(seen), torch.stack([g @ g, g @ e, e @ e]))


def test_minus_the_orthogonal_part() -> None:
    g, e = flat([*G]), flat([*G_EPS])
    across = g - (g @ e) / (e @ e) * e
    assert abs(across @ e) < 1e-13
    close(result(combine.minus_orthogonal(0.3)), e - 0.3 * across)
    assert torch.equal(result(combine.minus_orthogonal(0.0)), e)


def test_the_length_of_g() -> None:
    found = result(combine.renormed())
    close(found.norm(), flat([*G]).norm())
    close(found / found.norm(), flat([*G_EPS]) / flat([*G_EPS]).norm())


@pytest.mark.parametrize("rule", [combine.minus_orthogonal(0.3), combine.renormed()])
def test_zeros_stay_finite(rule: combine.Affine) -> None:
    zeros = [torch.zeros_like(x) for x in G]
    for g, e in ((zeros, G_EPS), (G, zeros), (zeros, zeros)):
        assert result(rule, g, e).isfinite().all()


def test_centring_after_the_fact() -> None:
    [matrix, vector, scalar] = combine.Centred()(step(), [], [*G_EPS])
    assert matrix is not None
    close(matrix, G_EPS[0] - G_EPS[0].mean(1, keepdim=True))
    assert vector is G_EPS[1]
    assert scalar is G_EPS[2]


def test_sharpness_is_pushed_at_each_groups_rate() -> None:
    pushed: list[Gradients] = []

    class Watched(Memory):
        def push(self, move: Gradients) -> None:
            pushed.append(move)

    now = step(torch.tensor(0.2, dtype=torch.float64))
    now = Step(0, now.model, now.w, now.groups, now.group_of, Watched())
    found = combine.Decoupled(9.0)(now, [*G], [*G_EPS[:2], None])
    for x, y in zip(found, G, strict=True):
        assert x is not None
        assert torch.equal(x, y)
    [move] = pushed
    for rate, x, g, e in zip(
        [0.2, 0.2, 0.5], move, G, [*G_EPS[:2], torch.zeros(())], strict=True
    ):
        assert x is not None
        close(x, -9 * rate * (e - g))


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_an_overflow_in_what_is_pushed_shows_in_what_is_descended(bad: float) -> None:
    broken = [x.clone() for x in G_EPS]
    broken[1][2] = bad
    assert not result(combine.Decoupled(9.0), G, broken).isfinite().all()


def test_what_is_remembered_is_a_copy() -> None:
    now = step()
    e: Gradients = [G_EPS[0].clone(), None, G_EPS[2].clone()]
    assert combine.Remembered()(now, [], e) is e
    for x in e:
        if x is not None:
            x.zero_()
    kept = now.memory.recall("stale")
    assert kept is not None
    assert kept[1] is None
    assert torch.equal(flat(kept), flat([G_EPS[0], G_EPS[2]]))


def test_a_memory_holds_names_apart() -> None:
    memory = Memory()
    assert memory.recall("a") is None
    assert memory.number("a") is None
    memory.keep("a", [G[0], None])
    memory.keep("b", [None, G[1]])
    memory.note("a", 0.5)
    memory.push([G[0]])
    assert memory.recall("a") == [G[0], None]
    assert memory.recall("b") == [None, G[1]]
    assert memory.number("a") == 0.5
    assert memory.number("b") is None


def test_a_memory_pulls_nothing_before_it_is_told_to() -> None:
    memory = Memory()
    assert not memory.pulled
    memory.pull([None], [0.5])
    assert memory.pulled
