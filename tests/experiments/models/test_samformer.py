"""RevIN and SAMformer, against what the formulas say, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import RevIN, SAMformer, build


def windows(n: int = 3, channels: int = 4, time: int = 9) -> Tensor:
    seed = torch.Generator().manual_seed(1)
    x = torch.randn(n, channels, time, generator=seed, dtype=torch.float64)
    return 5 + 3 * x


def revin(channels: int = 4) -> RevIN:
    norm = RevIN(channels).double()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, channels)[:, None])
        norm.bias.copy_(torch.linspace(-1, 1, channels)[:, None])
    return norm


def test_revin_takes_away_what_its_inverse_gives_back() -> None:
    norm, x = revin(), windows()
    z, mean, std = norm(x)
    torch.testing.assert_close(norm.inverse(z, mean, std), x, rtol=1e-13, atol=1e-13)


def test_revin_normalises_each_channel_of_each_window() -> None:
    x = windows()
    z, _, _ = RevIN(4).double()(x)
    for row, small in zip(x, z, strict=True):
        for series, normal in zip(row.tolist(), small.tolist(), strict=True):
            mean = sum(series) / len(series)
            variance = sum((v - mean) ** 2 for v in series) / len(series)
            want = [(v - mean) / math.sqrt(variance + 1e-5) for v in series]
            assert normal == pytest.approx(want, rel=1e-12, abs=1e-12)


def test_revin_undoes_any_scale_and_shift_of_a_window() -> None:
    # The forecast of a x + b is a y + b, as far as the variance dwarfs 1e-5.
    torch.manual_seed(0)
    model = SAMformer(4, 3, lookback=9).double()
    x, scale, shift = windows(), 7.0, -20.0
    want = scale * model(x) + shift
    torch.testing.assert_close(model(scale * x + shift), want, rtol=1e-5, atol=1e-5)


def test_a_channel_that_stands_still_is_forecast_to_stand_still() -> None:
    x = torch.full((1, 4, 9), 2.5, dtype=torch.float64)
    norm = revin()
    z, mean, std = norm(x)
    assert z.isfinite().all()
    torch.testing.assert_close(norm.inverse(z, mean, std), x)


def test_no_gradient_passes_through_mean_and_deviation() -> None:
    x = windows().requires_grad_()
    z, mean, std = revin()(x)
    assert not mean.requires_grad
    assert not std.requires_grad
    weight = torch.linspace(0.5, 2, 4, dtype=torch.float64)[:, None]
    (slope,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(slope, (weight / std).expand_as(x))


def by_hand(weights: dict[str, Tensor], x: list[list[float]]) -> list[list[float]]:
    """The forecast of one window, number by number."""
    parts = {name: w.tolist() for name, w in weights.items()}

    def linear(name: str, row: list[float]) -> list[float]:
        return [
            sum(a * b for a, b in zip(line, row, strict=True)) + bias
            for line, bias in zip(
                parts[f"{name}.weight"], parts[f"{name}.bias"], strict=True
            )
        ]

    z, back = [], []
    for row, (gamma,), (beta,) in zip(
        x, parts["norm.weight"], parts["norm.bias"], strict=True
    ):
        mean = sum(row) / len(row)
        std = math.sqrt(sum((v - mean) ** 2 for v in row) / len(row) + 1e-5)
        z.append([gamma * (v - mean) / std + beta for v in row])
        back.append((gamma, beta, mean, std))
    queries, keys, values = (
        [linear(name, row) for row in z] for name in ("queries", "keys", "values")
    )
    found = []
    for row, query, (gamma, beta, mean, std) in zip(z, queries, back, strict=True):
        scores = [
            sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(len(query))
            for key in keys
        ]
        largest = max(scores)
        shares = [math.exp(score - largest) for score in scores]
        mixed = [
            v
            + sum(s * value[t] for s, value in zip(shares, values, strict=True))
            / sum(shares)
            for t, v in enumerate(row)
        ]
        steps = linear("head", mixed)
        found.append([(step - beta) / gamma * std + mean for step in steps])
    return found  # fmt: skip


def test_the_network_is_its_formula() -> None:
    torch.manual_seed(0)
    model = SAMformer(4, 3, lookback=9, width=2).double()
    model.norm.load_state_dict(revin().state_dict())
    x = windows()
    found = model(x)
    assert found.shape == (3, 4, 3)
    for window, forecast in zip(x, found, strict=True):
        rows = by_hand(model.state_dict(), window.tolist())
        want = torch.tensor(rows, dtype=torch.float64)
        torch.testing.assert_close(forecast.detach(), want)


def test_the_order_of_channels_does_not_matter() -> None:
    torch.manual_seed(0)
    model, x = SAMformer(4, 3, lookback=9).double(), windows()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(x[:, order]), model(x)[:, order])


@pytest.mark.parametrize("horizon", [96, 720])
def test_it_has_as_many_weights_as_its_layers(horizon: int) -> None:
    model = build("samformer", classes=horizon, channels=7)
    layers = 2 * (512 * 16 + 16) + 512 * 512 + 512 + 512 * horizon + horizon + 2 * 7
    assert sum(p.numel() for p in model.parameters()) == layers
    assert model(torch.randn(2, 7, 512)).shape == (2, 7, horizon)


def test_its_second_derivative_exists() -> None:
    model = SAMformer(4, 3, lookback=9, width=2).double()
    weights = list(model.parameters())
    loss = model(windows()).square().mean()
    first = torch.autograd.grad(loss, weights, create_graph=True)
    second = torch.autograd.grad([g.square().sum() for g in first], weights)
    assert all(bool(g.isfinite().all()) for g in second)


def test_a_wrong_option_is_refused() -> None:
    with pytest.raises(BadInput, match=r"cannot build samformer: .*depth"):
        build("samformer", classes=96, channels=7, depth=2)
