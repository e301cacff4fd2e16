import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flatmin.experiments.landscape import axis, landscape


@pytest.fixture
def problem() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )
    model(torch.randn(32, 1, 8, 8))
    return model.eval(), torch.randn(40, 1, 8, 8), torch.randint(3, (40,))


def test_the_axis_passes_through_the_minimum() -> None:
    assert axis(5) == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_the_centre_is_the_loss_of_the_model(
    problem: tuple[nn.Sequential, torch.Tensor, torch.Tensor],
) -> None:
    model, x, y = problem
    loss = landscape(model, x, y, points=3)
    assert loss[1][1] == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-6)
    assert len({value for row in loss for value in row}) == 9


def test_the_model_is_as_before(
    problem: tuple[nn.Sequential, torch.Tensor, torch.Tensor],
) -> None:
    model, x, y = problem
    before = {name: w.clone() for name, w in model.state_dict().items()}
    landscape(model, x, y, points=3)
    after = model.state_dict()
    assert all(torch.equal(w, after[name]) for name, w in before.items())


def test_directions_have_the_norm_of_each_filter_and_leave_the_rest_alone(
    problem: tuple[nn.Sequential, torch.Tensor, torch.Tensor],
) -> None:
    model, x, y = problem
    before = [p.detach().clone() for p in model.parameters()]
    moved: list[list[torch.Tensor]] = []
    model.register_forward_pre_hook(
        lambda *_: moved.append([p.detach() - b for p, b in _pairs(model, before)])
    )
    landscape(model, x, y, points=3)
    u = moved[5]  # the second row is v = 0, its third point is u = 1
    for du, w in zip(u, before, strict=True):
        if w.dim() > 1:
            torch.testing.assert_close(
                du.flatten(1).norm(dim=1), w.flatten(1).norm(dim=1)
            )
        else:
            assert not du.any()


def test_scaling_filters_before_a_norm_layer_changes_nothing(
    problem: tuple[nn.Sequential, torch.Tensor, torch.Tensor],
) -> None:
    model, x, y = problem
    before = landscape(model, x, y, points=3)
    conv, norm = model[0], model[1]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert conv.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        for tensor in (conv.weight, conv.bias, norm.running_mean):
            tensor.mul_(16)
        norm.running_var.mul_(256)
        norm.eps *= 256
    after = landscape(model, x, y, points=3)
    torch.testing.assert_close(torch.tensor(after), torch.tensor(before))


def _pairs(
    model: nn.Module, before: list[torch.Tensor]
) -> list[tuple[nn.Parameter, torch.Tensor]]:
    return list(zip(model.parameters(), before, strict=True))
