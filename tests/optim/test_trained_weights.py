"""Weights that train, and that a forward pass changes: once, or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.core import Ascent, Ask
from flatmin.methods import multi_step_sam
from tests.methods.table import TRAITS, built
from tests.optim.test_frozen_parameters import inputs, step
from tests.problems import Scripted, assert_same, snapshot, tensors


class Clipped(nn.Module):
    """Shortens its weight before use, or halves it."""

    def __init__(self, change: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 3), nn.Linear(3, 2)
        self.change = change
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        self.change(self.layer.weight)
        return self.head(self.layer(x))


def halve(w: Tensor) -> None:
    with torch.no_grad():
        w.mul_(0.5)


def normalise(w: Tensor) -> None:
    w.data = nn.functional.normalize(w.data)


@pytest.mark.parametrize(
    "change", [halve, normalise, lambda w: w.data.clamp_(-0.1, 0.1)]
)
def test_a_trained_weight_is_changed_once(change: Any) -> None:
    model = Clipped(change)
    twin = Clipped(change)
    twin.load_state_dict(model.state_dict())
    twin(inputs[0])
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.3)
    for _ in optimizer.probes():
        model(inputs[0]).square().mean().backward()
    assert_same(tensors(model), tensors(twin))


def twice_at_w(step: Any) -> Any:
    yield Ask()
    return (yield Ask())


def test_a_weight_that_stays_at_w_is_changed_once_too() -> None:
    model = Clipped(halve)
    w = model.layer.weight.detach().clone()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in SAM(base, model, method=Scripted(twice_at_w)).probes():
        model(inputs[0]).square().mean().backward()
    assert torch.equal(model.layer.weight, 0.5 * w)


def test_the_perturbation_starts_from_the_changed_weight() -> None:
    model = Clipped(normalise)
    seen: list[Tensor] = []
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=1e-3)
    for _ in optimizer.probes():
        seen.append(model.layer.weight.detach().clone())
        model(inputs[0]).square().mean().backward()
    assert (seen[1] - nn.functional.normalize(seen[0])).norm() <= 1e-3
    assert (seen[1] - seen[0]).norm() > 1e-2


def away_first(step: Any) -> Any:
    eps = [0.1 * torch.ones_like(p) for p in step.w]
    one = torch.ones((), dtype=torch.float64)
    g = yield Ask(Ascent((*eps,), one, one > 0))
    return g


def test_a_change_of_a_moved_weight_in_the_first_pass_is_refused() -> None:
    model = Clipped(halve)
    before = snapshot(model)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, method=Scripted(away_first))
    with pytest.raises(RuntimeError, match=r"parameter 'layer\.weight' in place"):
        step(optimizer, model, inputs[0])
    assert_same(snapshot(model), before)


def test_a_first_pass_away_from_w_that_changes_nothing_is_right() -> None:
    model = Clipped(lambda w: None)
    before = snapshot(model)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in SAM(base, model, method=Scripted(away_first)).probes():
        model(inputs[0]).square().mean().backward()
    assert_same(snapshot(model), before)


def test_several_steps_up_change_a_weight_once() -> None:
    model = Clipped(normalise)
    w = nn.functional.normalize(model.layer.weight.detach())
    optimizer = multi_step_sam(
        torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.1
    )
    for _ in optimizer.probes():
        model(inputs[0]).square().mean().backward()
    torch.testing.assert_close(model.layer.weight, w)


#: Methods with steps whose first pass is not at w.
AWAY = ["random_sam", "momentum_sam", "stale_sam", "sampa", "bsam", "lookbehind_sam"]


def clamp_data(w: Tensor) -> None:
    """Leaves no trace in torch's count of changes."""
    w.data.clamp_(-0.05, 0.05)


@pytest.mark.parametrize("name", AWAY)
def test_a_change_by_data_in_a_first_pass_that_is_not_at_w_is_refused(
    name: str,
) -> None:
    assert TRAITS[name].skips_w
    model = Clipped(lambda w: None)
    optimizer = built(name, model)
    step(optimizer, model, inputs[0])
    model.change = clamp_data
    with pytest.raises(RuntimeError, match=r"parameter 'layer\.weight' in place"):
        step(optimizer, model, inputs[0])


def test_weights_that_are_no_numbers_do_not_count_as_changed() -> None:
    model = Clipped(lambda w: None)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        model.layer.weight[0, 0] = torch.nan
    for _ in SAM(base, model, method=Scripted(away_first)).probes():
        model(inputs[0]).square().mean().backward()


@pytest.mark.parametrize("where", ["body", "group"])
def test_a_parameter_that_is_unfrozen_in_the_loop_is_refused(where: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    frozen = where == "body"
    model[0].requires_grad_(not frozen)
    ps = [*model.parameters()] if frozen else [*model[1].parameters()]
    optimizer = SAM(torch.optim.SGD(ps, lr=0.1), model)
    before = {name: t.clone() for name, t in model.state_dict().items()}

    def loop() -> None:
        for probe in optimizer.probes():
            if frozen:
                model[0].requires_grad_(True)
            elif not probe.perturbed:
                optimizer.add_param_group({"params": [*model[0].parameters()]})
            model(torch.ones(3, 4)).square().mean().backward()

    with pytest.raises(RuntimeError, match=r"2 parameters .* began .* before the loop"):
        loop()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
