"""Which parameters move, and which entries of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM
from flatmin.core import Filter, Gradients, Step, TwoPoint, filters
from tests.problems import batch, loss_of


class Zoo(nn.Module):
    """Normalisation layers under names that do not say so, and the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Linear(2, 2)
        self.a = nn.ModuleList([nn.BatchNorm1d(2), nn.GroupNorm(1, 2)])
        self.b = nn.Sequential(nn.LayerNorm(2), nn.InstanceNorm1d(2, affine=True))
        self.c = nn.RMSNorm(2)


def step_of(model: nn.Module, w: list[Tensor] | None = None) -> Step:
    groups = [{"sam_rho": 0.1}]
    return Step(index=0, model=model, w=w or [*model.parameters()], groups=groups)


def chosen(keep: Filter, model: nn.Module) -> set[str]:
    g: Gradients = [torch.ones_like(p) for p in model.parameters()]
    kept = keep(step_of(model), g)
    names = [name for name, _ in model.named_parameters()]
    return {name for name, x in zip(names, kept, strict=True) if x is not None}


def test_norms_are_found_by_type() -> None:
    found = chosen(filters.within(*filters.NORMS), Zoo())
    assert found == {
        f"{layer}.{part}"
        for layer in ("a.0", "a.1", "b.0", "b.1")
        for part in ("weight", "bias")
    } | {"c.weight"}


def test_only_a_modules_own_parameters_are_within_it() -> None:
    assert chosen(filters.within(nn.Sequential, nn.Linear), Zoo()) == {
        "norm.weight",
        "norm.bias",
    }


def test_names_are_those_of_the_model() -> None:
    found = chosen(filters.named(lambda name: name.endswith("bias")), Zoo())
    assert found == {"norm.bias", "a.0.bias", "a.1.bias", "b.0.bias", "b.1.bias"}


def test_a_parameter_of_no_module_has_no_name() -> None:
    model, stray = nn.Linear(2, 2), torch.ones(2)
    step, g = step_of(model, [stray]), [torch.ones(2)]
    for keep in (filters.named(bool), filters.within(nn.Linear)):
        with pytest.raises(ValueError, match="matches no parameter that the optimizer"):
            keep(step, [*g])
    [kept] = filters.named(lambda name: not name)(step, [*g])
    assert kept is g[0]


def test_a_missing_gradient_stays_missing() -> None:
    model = nn.Linear(2, 2)
    for keep in (
        filters.named(bool),
        filters.within(nn.Linear),
        filters.outliers(0.5),
        filters.centred,
    ):
        assert keep(step_of(model), [None, None]) == [None, None]


def test_what_does_not_move_does_not_count_in_the_norm() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 3)).double()
    method = TwoPoint(filter=filters.within(*filters.NORMS))
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, rho=0.3, method=method)
    before = [p.detach().clone() for p in model.parameters()]
    moved: list[float] = []
    for probe in optimizer.probes():
        if probe.perturbed:
            pairs = zip(model.parameters(), before, strict=True)
            moved = [float((p.detach() - old).norm()) for p, old in pairs]
        loss_of(model, batch(torch.float64)).backward()
    assert [m > 0 for m in moved] == [False, False, True, True, False, False]
    assert math.hypot(*moved) == pytest.approx(0.3)


def test_centring_takes_the_mean_of_each_weight_vector() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (4, 2, 3, 3), (5,), ()]
    g = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    found = filters.centred(step_of(nn.Linear(1, 1)), [*g])
    for x, y in zip(g[:2], found[:2], strict=True):
        assert y is not None
        rows = x.reshape(4, -1)
        expected = (rows - rows.mean(1, keepdim=True)).view_as(x)
        torch.testing.assert_close(y, expected)
    assert found[2] is g[2]
    assert found[3] is g[3]


def outliers(x: Tensor, share: float) -> Tensor:
    [found] = filters.outliers(share)(step_of(nn.Linear(1, 1), [x]), [x])
    assert found is not None
    return found


def test_outliers_are_the_farthest_from_the_mean() -> None:
    x = torch.cat([torch.linspace(-1, 1, 18), torch.tensor([9.0, -9.0])])
    assert outliers(x, 0.9).nonzero().flatten().tolist() == [18, 19]
    assert torch.equal(outliers(x, 0.9)[18:], x[18:])


def test_where_all_entries_are_alike_all_move() -> None:
    for x in (torch.full((3, 2), 0.5), torch.zeros(4), torch.tensor(2.0)):
        assert torch.equal(outliers(x, 0.95), x)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("n", [5, 10, 101])
def test_a_share_of_the_entries_remains(share: float, n: int) -> None:
    x = torch.randn(n, generator=torch.Generator().manual_seed(n))
    kept = int((outliers(x, share) != 0).sum())
    assert kept == pytest.approx((1 - share) * n, abs=1.01)


def test_no_outlier_is_below_the_quantile() -> None:
    assert torch.equal(outliers(torch.arange(4.0), 0.99), torch.arange(4.0))


def test_a_tensor_may_be_longer_than_torch_can_take_quantiles_of() -> None:
    x = torch.zeros(2**24 + 1)
    x[::100] = 1.0
    assert torch.equal(outliers(x, 0.95), x)
