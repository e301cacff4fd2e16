"""The flatness of trained weights, against its definition."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flatmin.experiments.evaluate import flatness


def test_flatness_is_that_of_the_whole_training_set_in_evaluation_mode() -> None:
    torch.manual_seed(3)
    x, y = torch.randn(2000, 5), torch.randint(3, (2000,))
    model = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))
    before = [p.detach().clone() for p in model.parameters()]

    def loss(parameters: tuple[Tensor, ...]) -> Tensor:
        w, b = parameters
        return cross_entropy(x @ w.T + b, y)

    w = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    g = torch.autograd.grad(loss(w), w)
    size = torch.cat([part.flatten() for part in g]).norm()
    moved = tuple(p + 0.5 * part / size for p, part in zip(w, g, strict=True))
    expected = (loss(moved) - loss(w)).item()

    slopes = torch.autograd.grad(loss(w), w, create_graph=True)
    g = torch.cat([part.flatten() for part in slopes])
    rows = [torch.autograd.grad(g_i, w, retain_graph=True) for g_i in g]
    h = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    found = flatness(model, [(x, y)], 0.5)
    assert found["sharpness"] == pytest.approx(expected, rel=1e-4)
    top = torch.linalg.eigvalsh(h)[-1].item()
    assert found["lambda_max"] == pytest.approx(top, rel=1e-3)
    after = list(model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in after)


def test_the_flatness_of_a_run_that_has_diverged_is_not_a_number() -> None:
    model = nn.Linear(5, 3)
    nn.init.constant_(model.weight, math.nan)
    with pytest.warns(RuntimeWarning, match="is not known: the loss of batch 0 is nan"):
        found = flatness(model, [(torch.ones(4, 5), torch.zeros(4).long())], 0.5)
    assert list(found) == ["sharpness", "lambda_max"]
    assert all(math.isnan(value) for value in found.values())
