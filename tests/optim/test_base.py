"""Where nothing is perturbed, SAM is its base optimizer, bit for bit."""

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from flatmin import SAM
from flatmin.core import Ascent, Ask, LpBall, Program, Step, TwoPoint
from tests.problems import (
    Noisy,
    Scripted,
    assert_same,
    assert_same_state,
    batch,
    loss_of,
    plain_steps,
    sam_steps,
    tensors,
    two_layers,
)
from tests.registry import BASES, Base, name_of


def never(step: Step) -> bool:
    return False


def zero(step: Step) -> Program:
    """Two passes, the second at ``w + 0``."""
    g = yield Ask(climbs=True)
    eps = [None if d is None else torch.zeros_like(d) for d in g]
    return (yield Ask(Ascent(tuple(eps), torch.tensor(1.0), torch.tensor(True))))


def nothing(step: Step) -> Program:
    """Two passes, the second where no parameter moves."""
    g = yield Ask(climbs=True)
    nowhere = (None,) * len(g)
    return (yield Ask(Ascent(nowhere, torch.tensor(1.0), torch.tensor(True))))


def overflown(step: Step) -> Program:
    """Two passes, the second where a gradient full of NaN leads."""
    g = yield Ask(climbs=True)
    nan = [torch.full_like(d, math.nan) for d in g if d is not None]
    ascent = LpBall()(step.w, nan, [0.05] * len(nan), step.group_of)
    return (yield Ask(ascent))


UNPERTURBED: dict[str, dict[str, Any]] = {
    "rho-0": {"rho": 0.0},
    "closed-gate": {"rho": 0.5, "method": TwoPoint(gate=never)},
    "zero-perturbation": {"method": Scripted(zero)},
    "nothing-moves": {"method": Scripted(nothing)},
    "not-ok": {"method": Scripted(overflown)},
}


def streams() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), name, list(keys), rest


@pytest.mark.parametrize("options", UNPERTURBED.values(), ids=UNPERTURBED)
@pytest.mark.parametrize("base", BASES, ids=name_of)
def test_20_steps_without_perturbation_are_those_of_the_base(
    base: Base, options: dict[str, Any]
) -> None:
    data, model = batch(), Noisy()
    twin = copy.deepcopy(model)
    plain = base.build(twin.parameters())
    torch.manual_seed(1)
    plain_steps(plain, twin, data, 20)
    expected = streams()

    optimizer = SAM(base.build(model.parameters()), model, **options)
    torch.manual_seed(1)
    sam_steps(optimizer, model, data, 20)
    assert_same(tensors(model), tensors(twin))
    assert_same_state(optimizer, plain)
    assert streams() == expected
    two_passes = "method" in options and "gate" not in repr(options["method"])
    assert optimizer.statistics.passes == (2 if two_passes else 1)


def test_a_perturbation_does_change_the_trajectory() -> None:
    data, model = batch(), Noisy()
    twin = copy.deepcopy(model)
    plain_steps(BASES[0].build(twin.parameters()), twin, data, 1)
    torch.manual_seed(0)
    sam_steps(SAM(BASES[0].build(model.parameters()), model), model, data, 1)
    assert not torch.equal(tensors(model)["0.weight"], tensors(twin)["0.weight"])


def test_a_radius_of_zero_costs_one_pass_even_around_a_broken_gradient() -> None:
    model = Noisy()
    optimizer = SAM(BASES[0].build(model.parameters()), model, rho=0)
    for probe in optimizer.probes():
        assert not probe.perturbed
        (loss_of(model, batch()) * math.nan).backward()
    assert optimizer.statistics.passes == 1
    assert optimizer.unperturbed_steps == 0


# Schedule-free optimizers, which have two modes.


class ScheduleFree(torch.optim.SGD):
    """Has other weights for evaluation, like those of the schedulefree package."""

    mode = "eval"

    def _switch(self, mode: str, by: float) -> None:
        if self.mode != mode:
            self.mode = mode
            for p in self.param_groups[0]["params"]:
                p.data.add_(by)

    def train(self) -> None:
        self._switch("train", 1.0)

    def eval(self) -> None:
        self._switch("eval", -1.0)


def test_modes_are_those_of_the_base() -> None:
    model: Any = two_layers()
    start = model[0].weight.detach().clone()
    optimizer: Any = SAM(ScheduleFree(model.parameters(), lr=0.0), model)
    optimizer.train()
    for probe in optimizer.probes():
        optimizer.train()
        if probe.perturbed:
            with pytest.raises(RuntimeError, match="put into eval mode inside"):
                optimizer.eval()
        loss_of(model, batch(torch.float64)).backward()
    optimizer.step()
    torch.testing.assert_close(model[0].weight, start + 1)
    optimizer.eval()
    torch.testing.assert_close(model[0].weight, start)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_other_bases_have_no_modes(mode: str) -> None:
    model = two_layers()
    assert not hasattr(SAM(torch.optim.SGD(model.parameters(), lr=0.1), model), mode)
