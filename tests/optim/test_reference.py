import ast
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import tests.reference
from flatmin import SAM
from tests.problems import batch, mlp, sam_steps
from tests.reference.sam import Loss, adamw_sam, sgd_sam

DATA = batch(torch.float64)
EVERY_P = [1.0, 1.2, 1.5, 2.0, 3.0, 10.0, math.inf]


def loss_in(model: nn.Module) -> Loss:
    names = [name for name, _ in model.named_parameters()]
    x, y = DATA

    def loss(w: list[Tensor]) -> Tensor:
        out = functional_call(model, dict(zip(names, w, strict=True)), (x,))
        return F.cross_entropy(out, y)

    return loss


def assert_equal(mine: list[Tensor], reference: list[Tensor]) -> None:
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("p", EVERY_P)
def test_25_steps_around_sgd_equal_the_reference(p: float) -> None:
    model = mlp()
    w, m = sgd_sam(
        loss_in(model),
        list(model.parameters()),
        steps=25,
        rho=0.1,
        p=p,
        lr=0.05,
        momentum=0.9,
        weight_decay=1e-3,
    )
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    sam_steps(SAM(base, model, rho=0.1, p=p), model, DATA, 25)
    assert_equal(list(model.parameters()), w)
    assert_equal([base.state[t]["momentum_buffer"] for t in model.parameters()], m)


@pytest.mark.parametrize("p", [1.5, 2.0, math.inf])
def test_25_steps_around_adamw_equal_the_reference(p: float) -> None:
    model = mlp()
    w, m, v = adamw_sam(
        loss_in(model),
        list(model.parameters()),
        steps=25,
        rho=0.1,
        p=p,
        lr=0.01,
        betas=(0.9, 0.99),
        eps=1e-8,
        weight_decay=0.1,
    )
    base = torch.optim.AdamW(
        model.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1
    )
    sam_steps(SAM(base, model, rho=0.1, p=p), model, DATA, 25)
    assert_equal(list(model.parameters()), w)
    assert_equal([base.state[t]["exp_avg"] for t in model.parameters()], m)
    assert_equal([base.state[t]["exp_avg_sq"] for t in model.parameters()], v)


def imported_by(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    ours = {name for name in names if name.startswith("tests.reference.")}
    return {name.partition(".")[0] for name in names - ours}


def test_references_import_torch_numpy_the_standard_library_and_each_other() -> None:
    # NumPy for its random stream alone: models draw from it too.
    outside = {"torch", "numpy", *sys.stdlib_module_names}
    [folder] = tests.reference.__path__
    files = sorted(Path(folder).glob("*.py"))
    assert len(files) >= 3
    for path in files:
        assert imported_by(path) <= outside, path
