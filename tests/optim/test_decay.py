"""The three meanings of weight decay, of which two are offered."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from flatmin import SAM
from flatmin.core import Decayed, TwoPoint
from tests.problems import Quadratic, batch, descend, gradient, loss_of, mlp, two_layers

DATA = batch(torch.float64)
DECAYS = (0.05, 0.0)


def test_a_step_has_the_closed_form_of_the_penalised_loss() -> None:
    model, lam, rho, lr = Quadratic(), 0.3, 0.2, 0.1
    w = model.w.detach().clone()
    base = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=lam)
    optimizer = SAM(base, model, rho=rho, decay_in_ascent=True)
    descend(optimizer, model)
    optimizer.step()
    hessian = model.a + lam * torch.eye(5, dtype=torch.float64)
    g = hessian @ w
    expected = w - lr * hessian @ (w + rho * g / g.norm())
    torch.testing.assert_close(model.w.detach(), expected, rtol=1e-13, atol=1e-14)


def groups(
    model: nn.Sequential, decays: tuple[float, float]
) -> list[dict[str, object]]:
    return [
        {"params": [*layer.parameters()], "weight_decay": lam}
        for layer, lam in zip(model, decays, strict=True)
    ]


def penalty(model: nn.Sequential) -> Tensor:
    terms = [
        lam / 2 * p.square().sum()
        for layer, lam in zip(model, DECAYS, strict=True)
        for p in layer.parameters()
    ]
    return torch.stack(terms).sum()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, math.inf])
def test_25_steps_equal_those_on_a_loss_with_the_penalty(
    p: float, kind: type[torch.optim.SGD]
) -> None:
    model, twin = two_layers(), two_layers()
    twin.load_state_dict(model.state_dict())
    base = kind(groups(model, DECAYS), lr=0.05)
    optimizer = SAM(base, model, rho=0.1, p=p, decay_in_ascent=True)
    plain = SAM(kind(groups(twin, (0.0, 0.0)), lr=0.05), twin, rho=0.1, p=p)
    for _ in range(25):
        for _ in optimizer.probes():
            loss_of(model, DATA).backward()
        optimizer.step()
        for _ in plain.probes():
            (loss_of(twin, DATA) + penalty(twin)).backward()
        plain.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_without_a_data_gradient_the_perturbation_is_parallel_to_the_weights() -> None:
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    optimizer = SAM(base, model, rho=0.1, decay_in_ascent=True)
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    for probe in optimizer.probes():
        here = torch.cat([p.detach().flatten() for p in model.parameters()])
        expected = w * (1 + 0.1 / w.norm()) if probe.perturbed else w
        torch.testing.assert_close(here, expected, rtol=1e-12, atol=1e-14)
        (loss_of(model, DATA) * 0).backward()


def test_a_parameter_without_gradient_neither_moves_nor_decays() -> None:
    model = two_layers()
    model[1].requires_grad_(False)
    spare = nn.Parameter(torch.ones(3, dtype=torch.float64))
    model.register_parameter("spare", spare)
    base = torch.optim.SGD([*model[0].parameters(), spare], lr=0.1, weight_decay=0.5)
    optimizer = SAM(base, model, decay_in_ascent=True)
    for _ in optimizer.probes():
        assert torch.equal(spare, torch.ones_like(spare))
        loss_of(model, DATA).backward()
    assert spare.grad is None
    optimizer.step()
    assert torch.equal(spare, torch.ones_like(spare))


def scaled_run(model: nn.Module, scaler: GradScaler, *, aware: bool) -> SAM:
    base = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    optimizer = SAM(base, model, rho=0.2, decay_in_ascent=True)
    for _ in range(5):
        for _ in optimizer.probes(scaler=scaler if aware else None):
            scaler.scale(loss_of(model, DATA)).backward()
        scaler.step(optimizer)
        scaler.update()
    return optimizer


def test_a_loss_scale_changes_nothing() -> None:
    model, twin = mlp(), mlp()
    twin.load_state_dict(model.state_dict())
    scaled = scaled_run(model, GradScaler("cpu", init_scale=2.0**13), aware=True)
    plain = scaled_run(twin, GradScaler("cpu", enabled=False), aware=False)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    norms = [optimizer.statistics.grad_norm for optimizer in (scaled, plain)]
    assert norms[0] is not None
    torch.testing.assert_close(norms[0], norms[1])


def test_a_loss_scale_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"probes\(scaler=scaler\)"):
        scaled_run(mlp(), GradScaler("cpu"), aware=False)


def test_the_gradient_that_remains_is_scaled_and_has_the_weights_dtype() -> None:
    model = mlp(torch.float16)
    scaler = GradScaler("cpu", init_scale=2.0**8)
    base = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    optimizer = SAM(base, model, rho=0.0, decay_in_ascent=True)
    x, y = DATA[0].half(), DATA[1]
    for _ in optimizer.probes(scaler=scaler):
        scaler.scale(loss_of(model, (x, y))).backward()
    got = [gradient(p) for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    (loss_of(model, (x, y)) * 2.0**8).backward()
    for p, g in zip(model.parameters(), got, strict=True):
        assert g.dtype == torch.float16
        torch.testing.assert_close(g, gradient(p), rtol=2e-3, atol=2e-2)


def test_it_wraps_a_method_of_ones_own() -> None:
    model = mlp()
    base = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    method = TwoPoint(gate=lambda step: step.index > 0)
    optimizer = SAM(base, model, method=method, decay_in_ascent=True)
    assert optimizer.method == Decayed(method)
    assert [len([loss_of(model, DATA).backward() for _ in optimizer.probes()])] == [1]
