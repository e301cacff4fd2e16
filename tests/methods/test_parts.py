"""Parts of the loss: which pass is for which, and what a loop must not leave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from flatmin import SAM
from flatmin.core import TwoPoint, gates
from flatmin.core.combine import Mixed
from flatmin.core.parts import OnPart
from flatmin.methods import part_sam
from flatmin.optim import Probe
from tests.problems import Noisy, Quadratic, batch, gradient, untouched

RHO = 0.3


class Two(Quadratic):
    """A quadratic loss that is to be flat, and a linear one."""

    def flat(self) -> Tensor:
        return self()

    def rest(self) -> Tensor:
        return 2 * self.w.sum()

    def total(self, probe: Probe) -> Tensor:
        return probe.total(flat=self.flat, rest=self.rest)


def sgd(model: Two, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, **options)


def descended(optimizer: SAM, model: Two) -> Tensor:
    for probe in optimizer.probes():
        model.total(probe).backward()
    return gradient(model.w)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_the_passes_are_for_flat_flat_and_rest() -> None:
    model, seen = Two(), list[tuple[str, bool, bool]]()
    for probe in part_sam(sgd(model), model).probes():
        for name in ("flat", "rest"):
            made = probe.total(flat=torch.tensor(1.0), rest=torch.tensor(0.0))
            if (name == "flat") == bool(made):
                seen.append((name, probe.perturbed, probe.climbs))
        model.total(probe).backward()
    at_w, above, at_w_again = seen
    assert at_w == ("flat", False, True)
    assert above == ("flat", True, False)
    assert at_w_again == ("rest", False, False)


def test_a_part_that_is_not_wanted_is_not_computed() -> None:
    model, called = Two(), list[str]()

    def part(name: str, value: Tensor) -> Tensor:
        called.append(name)
        return value

    for probe in part_sam(sgd(model), model).probes():
        loss = probe.total(
            flat=lambda: part("flat", model.flat()),
            rest=lambda: part("rest", model.rest()),
        )
        loss.backward()
    assert called == ["flat", "flat", "rest"]


@pytest.mark.parametrize("rho", [0.0, RHO])
def test_other_methods_and_no_radius_get_the_sum(rho: float) -> None:
    model = Two()
    found = descended(SAM(sgd(model), model, rho=rho), model)
    w = model.w.detach()
    g = model.a @ w + 2
    same(found, model.a @ (w + rho * g / g.norm()) + 2)
    if rho == 0:
        optimizer = part_sam(sgd(model), model, rho=rho)
        optimizer.zero_grad()
        assert torch.equal(descended(optimizer, model), found)
        assert optimizer.statistics.passes == 1


def test_a_closed_gate_descends_both_parts_at_w() -> None:
    model = Two()
    method = OnPart(TwoPoint(gate=gates.last(0.5, 4)))
    found = descended(SAM(sgd(model), model, rho=RHO, method=method), model)
    same(found, model.a @ model.w.detach() + 2)


def test_the_flat_part_may_have_another_method() -> None:
    model = Two()
    method = OnPart(TwoPoint(combine=Mixed(0.25, 0.75)))
    found = descended(SAM(sgd(model), model, rho=RHO, method=method), model)
    g = model.a @ model.w.detach()
    same(found, 0.25 * g + 0.75 * model.sam_gradient(RHO) + 2)


def test_the_penalty_of_weight_decay_counts_once() -> None:
    model = Two()
    base = sgd(model, weight_decay=0.2)
    optimizer = part_sam(base, model, rho=RHO, decay_in_ascent=True)
    w = model.w.detach().clone()
    g = model.a @ w + 0.2 * w
    above = w + RHO * g / g.norm()
    found = descended(optimizer, model)
    # The base adds its own decay, at w.
    same(found + 0.2 * w, model.a @ above + 0.2 * above + 2)


def test_statistics_are_those_of_the_flat_part() -> None:
    model = Two()
    optimizer = part_sam(sgd(model), model, rho=RHO)
    for probe in optimizer.probes():
        loss = model.total(probe)
        loss.backward()
        probe.loss = loss
    w = model.w.detach()
    g = model.a @ w
    above = w + RHO * g / g.norm()
    assert optimizer.sharpness is not None
    same(optimizer.sharpness, model.loss(above) - model.loss(w))


def plain_body(optimizer: SAM, model: Two) -> None:
    for _ in optimizer.probes():
        (model.flat() + model.rest()).backward()


def forgetful_body(optimizer: SAM, model: Two) -> None:
    for probe in optimizer.probes():
        loss = model.rest() if probe.index == 2 else model.total(probe)
        loss.backward()


def test_a_body_that_does_not_ask_is_refused() -> None:
    model = Two()
    optimizer = part_sam(sgd(model), model)
    said = r"is for the flat part of the loss.*probe\.total\(flat=\.\.\., rest="
    with untouched(model), pytest.raises(RuntimeError, match=said):
        plain_body(optimizer, model)


def test_a_body_that_does_not_ask_in_the_last_pass_is_refused() -> None:
    model = Two()
    optimizer = part_sam(sgd(model), model)
    with untouched(model), pytest.raises(RuntimeError, match="is for the rest part"):
        forgetful_body(optimizer, model)


def test_buffers_and_dropout_are_those_of_one_pass() -> None:
    torch.manual_seed(0)
    model = Noisy().double()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = batch(torch.float64)
    rare, outs = y == 2, list[Tensor]()
    for probe in part_sam(base, model, rho=RHO).probes():
        out = model(x)
        outs.append(out.detach())
        losses = F.cross_entropy(out, y, reduction="none")
        loss = probe.total(flat=(losses * rare).mean(), rest=(losses * ~rare).mean())
        loss.backward()
    assert torch.equal(outs[0], outs[2])
    assert model.get_buffer("1.num_batches_tracked") == 1


def test_a_batch_without_the_flat_part_makes_the_base_s_step() -> None:
    model = Two()
    optimizer = part_sam(sgd(model), model)
    for probe in optimizer.probes():
        probe.total(flat=lambda: 0 * model.flat(), rest=model.rest).backward()
    same(gradient(model.w), torch.full_like(model.w, 2.0))
    assert optimizer.unperturbed_steps == 1
