"""Averages that would be of other weights are refused, and states of other models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flatmin.averaging import EMA, LAWA, SWA, Average
from tests.averaging.trained import (
    copies,
    equal,
    network,
    sam,
    seen_in,
    stream,
    train,
)


@pytest.mark.parametrize("kind", [SWA, LAWA])
def test_statistics_of_other_weights_are_refused(
    kind: Callable[[nn.Module], Average],
) -> None:
    model = network()
    average = kind(model)
    train(model, [average], 2)
    with pytest.raises(RuntimeError, match="refresh"), average.applied():
        pass
    average.refresh(stream(2))
    seen_in(average)
    average.update()
    with pytest.raises(RuntimeError, match="refresh"):
        average.transfer()


def test_an_update_at_w_plus_eps_is_refused() -> None:
    model = nn.Linear(5, 3, dtype=torch.float64)
    average, optimizer = EMA(model), sam(model)
    x, y = stream(1)[0]
    found = []
    for probe in optimizer.probes():
        F.cross_entropy(model(x), y).backward()
        if probe.perturbed:
            with pytest.raises(RuntimeError, match="w \\+ eps"):
                average.update()
        else:
            average.update()
        found.append(probe.perturbed)
    optimizer.step()
    average.update()
    assert (found, average.updates) == ([False, True], 2)


def test_another_models_loop_is_no_obstacle() -> None:
    model, other = (nn.Linear(5, 3, dtype=torch.float64) for _ in range(2))
    average, (x, y) = EMA(other), stream(1)[0]
    for _ in sam(model).probes():
        F.cross_entropy(model(x), y).backward()
        average.update()
    assert average.updates == 2


def test_misuse_is_refused() -> None:
    model = nn.Linear(5, 3, dtype=torch.float64)
    average = EMA(model)
    with pytest.raises(RuntimeError, match="update"):
        average.transfer()
    average.update()
    with average.applied():
        with pytest.raises(RuntimeError, match="applied"):
            average.update()
        with pytest.raises(RuntimeError, match="already"), average.applied():
            pass
    before = copies(model)
    changed = pytest.raises(RuntimeError, match=r"weight was changed.*transfer")
    with changed, average.applied():
        nn.init.zeros_(model.weight)
    assert equal(copies(model), before)
    with changed, average.applied():
        model.weight.data[0, 0] = torch.nan
    with pytest.raises(TypeError, match=r"got Adam.*EMA\(model\)"):
        EMA(torch.optim.Adam(model.parameters()))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\)"):
        EMA(model, 1.0)
    with pytest.raises(ValueError, match="k must be"):
        LAWA(model, 0)


def test_a_changed_model_is_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 3))
    average = EMA(model)
    average.update()
    model.append(nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match=r"1\.bias.*new average"):
        average.update()


def test_a_state_of_another_model_or_kind_is_refused() -> None:
    small, large = nn.Linear(5, 3), nn.Linear(5, 4)
    deep = nn.Sequential(nn.Linear(5, 3))
    average = EMA(small)
    average.update()
    state = average.state_dict()
    with pytest.raises(ValueError, match=r"weight has the shape \(3, 5\)"):
        EMA(large).load_state_dict(state)
    with pytest.raises(ValueError, match="in one of them"):
        EMA(deep).load_state_dict(state)
    with pytest.raises(ValueError, match="no state of LAWA"):
        LAWA(small).load_state_dict(state)
    with pytest.raises(ValueError, match="no state of EMA: it has no 'statistics'"):
        EMA(small).load_state_dict({"updates": 1, "average": state["average"]})
    EMA(small).load_state_dict(EMA(large).state_dict())
