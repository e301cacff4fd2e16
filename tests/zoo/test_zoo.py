"""Third-party models train as SAM by hand on copies of them does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from tests.optim.kept import assert_close, attributes_of
from tests.reference.copies import rewind, step_on_copies, streams
from tests.zoo.models import MODELS, REFUSED

pytestmark = [
    pytest.mark.everything,
    pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated"),
    pytest.mark.filterwarnings("ignore:Please use quant_min and quant_max"),
]

RHO, LR = 0.1, 0.05

#: To how many places the two ways agree.
PLACES = {torch.float64: 9, torch.float32: 4}


@pytest.fixture(autouse=True)
def default_dtype() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_as_by_hand_on_copies(name: str) -> None:
    case = MODELS[name]()
    model = case.model.to(case.dtype).train()
    torch.set_default_dtype(case.dtype)
    twin = copy.deepcopy(model)
    every = [n for n, p in model.named_parameters() if p.requires_grad]
    names = [n for n in every if case.trained(n)]
    ps = [model.get_parameter(n) for n in names]
    optimizer = SAM(torch.optim.SGD(ps, lr=LR), model, rho=RHO)
    for make in case.inputs:
        inputs = make()

        def loss(m: nn.Module, inputs: dict[str, Any] = inputs) -> Tensor:
            return case.loss(m(**inputs))

        start = streams()
        for _ in optimizer.probes():
            loss(model).backward()
        optimizer.step()
        rewind(start)
        step_on_copies(twin, loss, names, rho=RHO, lr=LR)
        assert_same(model, twin, PLACES[case.dtype])


@pytest.mark.parametrize("name", REFUSED)
def test_a_check_finds_a_model_that_seeds_itself(name: str) -> None:
    case = REFUSED[name]()
    inputs = case.inputs[0]()
    base = torch.optim.SGD(case.model.train().parameters(), lr=LR)
    optimizer = SAM(base, case.model, rho=RHO, check="replay")

    def body() -> None:
        for _ in optimizer.probes():
            case.loss(case.model(**inputs)).backward()

    with pytest.raises(RuntimeError, match="run again at the same point, differs"):
        body()


def assert_same(model: nn.Module, twin: nn.Module, places: int) -> None:
    """Parameters, buffers and attributes agree."""
    for kind in ("named_parameters", "named_buffers"):
        mine, theirs = dict(getattr(model, kind)()), dict(getattr(twin, kind)())
        torch.testing.assert_close(mine, theirs, rtol=10**-places, atol=10**-places)
    assert_close(attributes_of(model), attributes_of(twin), places)
