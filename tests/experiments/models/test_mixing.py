"""Shake-Shake and ShakeDrop: what is drawn, differentiated and replayed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.experiments.models import (
    Mixing,
    ShakeDrop,
    ShakeShake,
    pyramidnet,
    shake_shake,
    true_gradient,
)

N = 64


def shake_factors(layer: ShakeShake) -> tuple[Tensor, Tensor, Tensor]:
    """``alpha``, and the gradients of both branches, of N images."""
    a = torch.ones(N, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    b = torch.zeros(N, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    out = layer(a, b)
    out.sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    return per_image(out), per_image(a.grad), per_image(b.grad)


def drop_factors(layer: ShakeDrop) -> tuple[Tensor, Tensor]:
    """The factors of forward and backward, of N images."""
    x = torch.ones(N, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert x.grad is not None
    return per_image(out), per_image(x.grad)


def per_image(x: Tensor) -> Tensor:
    """The one number of each image; all its pixels and channels have it."""
    first = x[:, 0, 0, 0].detach()
    assert torch.equal(x, first[:, None, None, None].expand_as(x))
    return first


def test_shake_shake_differentiates_with_numbers_of_its_own() -> None:
    torch.manual_seed(0)
    alpha, of_a, of_b = shake_factors(ShakeShake())
    torch.testing.assert_close(of_a + of_b, torch.ones(N).double())
    assert (of_a - alpha).abs().min() > 0
    assert torch.corrcoef(torch.stack([alpha, of_a]))[0, 1].abs() < 5 / N**0.5


def test_shake_shake_has_the_true_gradient_when_told() -> None:
    torch.manual_seed(0)
    layer = ShakeShake()
    with true_gradient(layer):
        alpha, of_a, of_b = shake_factors(layer)
    torch.testing.assert_close(of_a, alpha)
    torch.testing.assert_close(of_b, 1 - alpha)


def test_shake_shake_halves_in_eval_mode() -> None:
    alpha, of_a, of_b = shake_factors(ShakeShake().eval())
    assert {*alpha.tolist(), *of_a.tolist(), *of_b.tolist()} == {0.5}


def test_shake_drop_differentiates_kept_blocks_as_they_are() -> None:
    torch.manual_seed(0)
    forward, backward = drop_factors(ShakeDrop(0.5))
    kept = forward == 1
    assert 0 < kept.sum() < N
    assert torch.equal(backward[kept], forward[kept])


def test_shake_drop_differentiates_dropped_blocks_with_numbers_of_their_own() -> None:
    torch.manual_seed(0)
    forward, backward = drop_factors(ShakeDrop(0.0))
    assert forward.min() < -0.8
    assert forward.max() > 0.8
    assert 0 <= backward.min() < 0.1
    assert 0.9 < backward.max() < 1
    assert torch.corrcoef(torch.stack([forward, backward]))[0, 1].abs() < 5 / N**0.5


def test_shake_drop_has_the_true_gradient_when_told() -> None:
    torch.manual_seed(0)
    layer = ShakeDrop(0.5)
    with true_gradient(layer):
        forward, backward = drop_factors(layer)
    assert torch.equal(forward, backward)
    assert forward.min() < 0


def test_shake_drop_has_its_expectation_in_eval_mode() -> None:
    forward, backward = drop_factors(ShakeDrop(0.7).eval())
    assert {*forward.tolist(), *backward.tolist()} == {0.7}


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_eval_mode_is_the_mean_of_training(keep: float) -> None:
    torch.manual_seed(0)
    n = 40_000
    x = torch.ones(n, 1, 1, 1, dtype=torch.float64)
    # Each factor has a standard deviation of at most 1; five of the mean's.
    off = 5 / n**0.5
    assert ShakeDrop(keep)(x).mean().item() == pytest.approx(keep, abs=off)
    mean = ShakeShake()(x, 0 * x).mean().item()
    assert mean == pytest.approx(0.5, abs=off)


def test_blocks_of_a_pyramidnet_are_kept_with_linearly_decaying_probability() -> None:
    with torch.device("meta"):
        model = pyramidnet(110, 10, bottleneck=False, shakedrop=True)
    keep = [m.keep for m in model.modules() if isinstance(m, ShakeDrop)]
    expected = [1 - k / 54 * 0.5 for k in range(1, 55)]
    assert keep == pytest.approx(expected, rel=1e-12)
    with torch.device("meta"):
        plain = pyramidnet(110, 10, bottleneck=False)
    assert not any(isinstance(m, Mixing) for m in plain.modules())


def nets() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        shake_shake(14, 4, 3).double(),
        pyramidnet(14, 3, bottleneck=False, alpha=9, shakedrop=True).double(),
        pyramidnet(20, 3, bottleneck=True, alpha=9, shakedrop=True).double(),
    ]


def test_the_true_gradient_is_that_of_the_loss() -> None:
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for model in nets():
        # Away from all-zero biases, where ReLU has a kink.
        for p in model.parameters():
            p.data += 0.05 * torch.randn_like(p)
        p = next(model.parameters())

        def loss(model: nn.Module = model) -> Tensor:
            torch.manual_seed(1)
            return model(x).square().sum()

        step = 1e-6 * torch.randn_like(p)
        with torch.no_grad():
            p += step
            up = loss()
            p -= 2 * step
            down = loss()
            p += step
        slope = (up - down) / 2
        assert not slope_matches(loss, p, step, slope)
        with true_gradient(model):
            assert slope_matches(loss, p, step, slope)


def slope_matches(
    loss: Callable[[], Tensor], p: Tensor, step: Tensor, slope: Tensor
) -> bool:
    (g,) = torch.autograd.grad(loss(), [p])
    return torch.isclose((g * step).sum(), slope, rtol=1e-4).item() is True


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What all mixing layers draw, in order."""
    numbers: list[Tensor] = []
    plain = Mixing.draw

    def draw(layer: Mixing, x: Tensor, *bounds: float) -> Tensor:
        numbers.append(plain(layer, x, *bounds))
        return numbers[-1]

    monkeypatch.setattr(Mixing, "draw", draw)
    return numbers


@pytest.mark.parametrize("switch", [False, True])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_both_passes_of_a_step_draw_the_same_mixing(
    which: int, switch: bool, drawn: list[Tensor]
) -> None:
    model = nets()[which]
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.05)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    steps = []
    for _ in range(2):
        passes = []
        for probe in optimizer.probes():
            with true_gradient(model, when=switch and not probe.perturbed):
                model(x).square().sum().backward()
            passes.append([*drawn])
            drawn.clear()
        optimizer.step()
        first, second = passes
        assert len(first) >= 12
        assert all(map(torch.equal, first, second))
        steps.append(first)
    assert not any(map(torch.equal, *steps))


def test_the_switch_changes_no_forward_pass() -> None:
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for model in nets():
        torch.manual_seed(1)
        plain = model(x)
        torch.manual_seed(1)
        with true_gradient(model):
            assert torch.equal(model(x), plain)


def test_the_switch_is_as_before_after_an_exception() -> None:
    model = nets()[0]
    layers = [m for m in model.modules() if isinstance(m, Mixing)]
    layers[0].true_gradient = True
    with pytest.raises(RuntimeError), true_gradient(model):
        model(torch.zeros(2, 5, 8, 8).double())
    assert [layer.true_gradient for layer in layers[:2]] == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_mixing_draws_the_same_in_every_precision(dtype: torch.dtype) -> None:
    x = torch.ones(8, 1, 1, 1)
    torch.manual_seed(0)
    expected = ShakeDrop(0.5)(x)
    torch.manual_seed(0)
    out = ShakeDrop(0.5)(x.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected.to(dtype))
