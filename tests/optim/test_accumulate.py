"""One loop per micro-batch is m-SAM; several micro-batches in a loop are one SAM."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from flatmin import SAM, wsam
from tests.problems import Branching, batch, gradient, loss_of, mlp, passes, two_layers
from tests.reference.m_sam import m_sam_gradients

X, Y = batch(torch.float64)
RHO = 0.2


def sam(model: nn.Module) -> SAM:
    return SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=RHO)


def m_sam(optimizer: SAM, model: nn.Module, m: int) -> list[Tensor]:
    """What is descended if every ``m`` examples climb by themselves."""
    optimizer.zero_grad()
    for x, y in zip(X.split(m), Y.split(m), strict=True):
        for _ in optimizer.probes(accumulate=True):
            (F.cross_entropy(model(x), y) * len(x) / len(X)).backward()
    return [gradient(p) for p in model.parameters()]


def reference(model: nn.Module, m: int) -> list[Tensor]:
    names = [name for name, _ in model.named_parameters()]

    def loss(w: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        out = functional_call(model, dict(zip(names, w, strict=True)), (x,))
        return F.cross_entropy(out, y)

    return m_sam_gradients(loss, [*model.parameters()], X, Y, m=m, rho=RHO)


def close(mine: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6, 12])
def test_a_loop_per_micro_batch_is_m_sam(m: int) -> None:
    model = mlp()
    close(m_sam(sam(model), model, m), reference(model, m))


@pytest.mark.parametrize("m", [1, 3, 6])
def test_m_sam_is_another_algorithm_than_sam(m: int) -> None:
    model = mlp()
    off = [
        (a - b).abs().max()
        for a, b in zip(reference(model, m), reference(model, 12), strict=True)
    ]
    assert max(off) > 1e-4


def test_one_micro_batch_is_the_whole_batch_bit_for_bit() -> None:
    model = mlp()
    mine = [g.clone() for g in m_sam(sam(model), model, 12)]
    passes(sam(model), model, (X, Y))
    whole = [gradient(p) for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(mine, whole, strict=True))


@pytest.mark.parametrize("m", [1, 3, 6])
def test_micro_batches_inside_one_loop_are_one_batch(m: int) -> None:
    model = mlp()
    optimizer = sam(model)
    for _ in optimizer.probes():
        for x, y in zip(X.split(m), Y.split(m), strict=True):
            (F.cross_entropy(model(x), y) * len(x) / len(X)).backward()
    close([gradient(p) for p in model.parameters()], reference(model, 12))


def test_gradients_keep_their_storage() -> None:
    model = mlp()
    optimizer = sam(model)
    m_sam(optimizer, model, 12)
    places = [gradient(p) for p in model.parameters()]
    optimizer.zero_grad(set_to_none=False)
    for _ in optimizer.probes(accumulate=True):
        loss_of(model, (X, Y)).backward()
    for p, place in zip(model.parameters(), places, strict=True):
        assert p.grad is place
    close(places, reference(model, 12))


@pytest.mark.parametrize("how", ["raise", "break", "no backward"])
@pytest.mark.parametrize("chosen", [0, 1])
def test_the_gradients_are_those_from_before_if_a_loop_fails(
    how: str, chosen: int
) -> None:
    model = mlp()
    optimizer = sam(model)
    before = [g.clone() for g in m_sam(optimizer, model, 12)]
    places = [gradient(p) for p in model.parameters()]

    def fail() -> None:
        for probe in optimizer.probes(accumulate=True):
            if how == "no backward":
                continue
            loss_of(model, (X, Y)).backward()
            if probe.index == chosen:
                if how == "break":
                    break
                raise RuntimeError("no parameter has memory")

    if how == "break":
        fail()
    else:
        with pytest.raises(RuntimeError, match="no parameter has"):
            fail()
    for p, place, g in zip(model.parameters(), places, before, strict=True):
        assert p.grad is place
        assert torch.equal(place, g)


def test_a_parameter_without_a_new_gradient_keeps_the_old_one() -> None:
    # The second loop, passes 2 and 3, skips a layer.
    model = Branching(2, 3).double()
    optimizer = sam(model)
    optimizer.zero_grad()
    kept = torch.zeros(0)
    for _ in range(2):
        for _ in optimizer.probes(accumulate=True):
            loss_of(model, (X, Y)).backward()
        if not kept.numel():
            kept = gradient(model.maybe.weight).clone()
    assert torch.equal(gradient(model.maybe.weight), kept)


def test_without_accumulation_used_gradients_do_not_count() -> None:
    model = mlp()
    optimizer = sam(model)
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e6)
    optimizer.base.step()
    with torch.no_grad():
        for p, w in zip(model.parameters(), mlp().parameters(), strict=True):
            p.copy_(w)
    passes(optimizer, model, (X, Y))
    close([gradient(p) for p in model.parameters()], reference(model, 12))


@pytest.mark.parametrize("accumulate", [False, True])
def test_outside_the_optimizer_the_gradient_is_that_of_the_last_pass(
    accumulate: bool,
) -> None:
    model = two_layers()
    optimizer = SAM(torch.optim.SGD(model[1].parameters(), lr=0.1), model, rho=RHO)
    outside, last = next(model[0].parameters()), torch.zeros(0)
    for _ in optimizer.probes(accumulate=accumulate):
        [last] = torch.autograd.grad(loss_of(model, (X, Y)), [outside])
        loss_of(model, (X, Y)).backward()
    assert torch.equal(gradient(outside), last)


def test_a_loop_left_early_leaves_a_step_to_those_before_it() -> None:
    model = mlp()
    other = deepcopy(model)
    for each, skips in (model, True), (other, False):
        optimizer = sam(each)
        optimizer.zero_grad()
        for _ in optimizer.probes(accumulate=True):
            F.cross_entropy(each(X), Y).backward()
        if skips:
            for _ in optimizer.probes(accumulate=True):
                break
        optimizer.step()
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_loop_that_fails_does_not_end_the_accumulation() -> None:
    model = mlp()
    optimizer = sam(model)
    optimizer.zero_grad()
    first, last = zip(X.split(6), Y.split(6), strict=True)
    for (x, y), fails in [(first, False), (first, True), (last, False)]:
        for _ in optimizer.probes(accumulate=True):
            (F.cross_entropy(model(x), y) / 2).backward()
            if fails:
                break
    close([gradient(p) for p in model.parameters()], reference(model, 6))


# A method with a second move, `w <- w - lr a (g_eps - g)` after the base's step.


def decoupled(model: nn.Module) -> SAM:
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    return wsam(base, model, rho=RHO, gamma=0.6)


def moved(model: nn.Module, m: int) -> list[Tensor]:
    """Where the weights end: ``w - lr (sum g + a sum (g_eps - g))``, a = 0.6 / 0.4."""
    w = [p.detach() for p in model.parameters()]
    plain = torch.autograd.grad(F.cross_entropy(model(X), Y), [*model.parameters()])
    above = reference(model, m)
    rows = zip(w, plain, above, strict=True)
    return [w_i - 0.1 * (g + 1.5 * (g_eps - g)) for w_i, g, g_eps in rows]


def test_second_moves_of_micro_batches_add_up() -> None:
    model = mlp()
    expected = moved(model, 4)
    optimizer = decoupled(model)
    m_sam(optimizer, model, 4)
    optimizer.step()
    close([p.detach() for p in model.parameters()], expected)


def test_the_second_move_of_a_loop_that_was_given_up_is_not_made() -> None:
    model = mlp()
    expected = moved(model, 12)
    optimizer = decoupled(model)
    passes(optimizer, model, (X, Y))
    optimizer.zero_grad(set_to_none=False)
    for _ in optimizer.probes(accumulate=True):
        loss_of(model, (X, Y)).backward()
    optimizer.step()
    close([p.detach() for p in model.parameters()], expected)


def test_the_second_move_of_a_loop_that_failed_is_not_made() -> None:
    model = mlp()
    extra = nn.Parameter(torch.zeros(3, dtype=torch.float64), requires_grad=False)
    expected = moved(model, 12)
    optimizer = decoupled(model)
    optimizer.add_param_group({"params": [extra]})

    def fail() -> None:
        for _ in optimizer.probes():
            extra.requires_grad_(True)
            F.cross_entropy(model(X) + extra, Y).backward()

    with pytest.raises(RuntimeError, match="began to train"):
        fail()
    extra.requires_grad_(False)
    extra.grad = None
    passes(optimizer, model, (X, Y))
    optimizer.step()
    close([p.detach() for p in model.parameters()], expected)
