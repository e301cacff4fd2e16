"""Units of length that make no sense."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

from flatmin import SAM
from flatmin.core import TwoPoint
from flatmin.core.scales import Adaptive, Fisher, Magnitude


@pytest.mark.parametrize("eta", [-0.01, math.nan])
@pytest.mark.parametrize("kind", [Adaptive, Fisher, Magnitude])
def test_a_negative_eta_is_refused(
    kind: type[Adaptive | Fisher | Magnitude], eta: float
) -> None:
    with pytest.raises(ValueError, match=rf"eta must be in \[0, inf\), got {eta}"):
        kind(eta)


def test_a_ball_in_units_of_magnitude_moves_weights_by_their_squares() -> None:
    # T = |w| + eta: eps = rho T^2 g / ||T g||.
    w = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    model = nn.ParameterList([nn.Parameter(w.clone())])
    g = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
    optimizer = SAM(
        SGD(model.parameters(), lr=1.0),
        model,
        rho=0.3,
        method=TwoPoint(scale=Magnitude(eta=0.1)),
    )
    seen = []
    for _ in optimizer.probes():
        seen.append(model[0].detach().clone())
        (model[0] * g).sum().backward()
    unit = w.abs() + 0.1
    eps = 0.3 * unit**2 * g / (unit * g).norm()
    assert torch.allclose(seen[1] - seen[0], eps, rtol=1e-12, atol=0)
