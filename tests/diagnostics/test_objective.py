"""The loss as a function of the weights, and what it refuses."""

import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from flatmin import SAM
from flatmin.diagnostics import Monitor, Objective, eigenvalues, sharpness, trace
from flatmin.diagnostics._products import Curvature
from tests.diagnostics.problems import (
    batches,
    classifier,
    loss_of_weights,
    no_trace,
    quiet,
    weights,
)
from tests.problems import Noisy, OneProcess, Tied, batch, mlp, untouched
from tests.reference.sam import gradients


def test_loss_and_gradient_are_those_of_all_examples_whatever_the_batches() -> None:
    model = mlp()
    loss = loss_of_weights(model, batches())
    for size in (24, 7, 1):
        _, objective = classifier(size=size, model=model)
        value, g = objective.gradient()
        assert objective.n == 24
        torch.testing.assert_close(value, loss(weights(model)), rtol=1e-12, atol=0)
        torch.testing.assert_close(objective.loss(), value, rtol=1e-12, atol=0)
        expected = gradients(loss, weights(model))
        torch.testing.assert_close(g, expected, rtol=1e-11, atol=1e-13)


def test_frozen_and_unused_parameters_and_tied_ones() -> None:
    model = Tied().double()
    model.head.weight.requires_grad_(False)
    model.register_parameter("unused", nn.Parameter(torch.ones(2).double()))
    _, objective = classifier(model=model)
    _, g = objective.gradient()
    assert len(g) == 3
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert (g[names.index("unused")] == 0).all()
    assert (g[names.index("encode.weight")] != 0).any()


def test_a_batch_may_be_a_dictionary() -> None:
    model = mlp()
    named = [{"x": x, "y": y, "id": "a"} for x, y in batches()]

    def forward(module: nn.Module, one: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return module(one["x"]), one["y"]

    other = Objective(model, F.cross_entropy, named, forward=forward)
    assert torch.equal(other.loss(), classifier(model=model)[1].loss())


def test_weights_move_inside_of_at_alone() -> None:
    model, objective = classifier()
    w = weights(model)
    eps = [None, *[torch.ones_like(p) for p in w[1:]]]
    with untouched(model):
        with objective.at(eps):
            assert torch.equal(objective.w[0], w[0])
            assert torch.equal(objective.w[1], w[1] + 1)
        with objective.at([None] * len(w)):
            assert torch.equal(objective.w[1], w[1])


def test_weights_are_as_before_after_an_exception() -> None:
    model, objective = classifier()
    eps = [torch.ones_like(p) for p in objective.w]
    with (
        untouched(model),
        pytest.raises(KeyboardInterrupt),
        objective.at(eps),
    ):
        raise KeyboardInterrupt


class Restless(nn.Module):
    """Draws from every stream, writes to a buffer and replaces another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()
        self.calls = nn.Buffer(torch.zeros(()))
        self.last = nn.Buffer(torch.zeros(()))
        self.wide = nn.Buffer(torch.zeros(1).expand(3))

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        random.random()
        np.random.rand()  # noqa: NPY002
        self.calls += 1
        self.last = x.sum().float()
        return self.inner(x)


def test_reading_leaves_buffers_and_random_streams_alone() -> None:
    model = Restless().eval()
    x, y = batch(torch.float64)
    with no_trace(model):
        objective = Objective(
            model, F.cross_entropy, DataLoader(TensorDataset(x, y), batch_size=4)
        )
        objective.loss()
        objective.gradient()


def test_an_error_of_the_model_leaves_no_trace_either() -> None:
    model, objective = classifier(model=Restless().eval())

    def explode(*_: object) -> None:
        torch.rand(1)
        raise OSError("no more data")

    model.register_forward_pre_hook(explode)
    with no_trace(model), pytest.raises(OSError, match="no more data"):
        objective.gradient()


def test_a_parallel_model_is_measured_without_its_wrapper() -> None:
    with OneProcess():
        model = mlp()
        group = torch.distributed.group.WORLD
        wrapped = nn.parallel.DistributedDataParallel(model)
        objective = Objective(wrapped, F.cross_entropy, batches(), group=group)
        assert objective.model is model
        assert torch.equal(objective.loss(), classifier(model=model)[1].loss())
        with pytest.raises(ValueError, match="no batch with an example"):
            Objective(model, F.cross_entropy, [], group=group)
        with pytest.raises(TypeError, match="Module, got int"):
            Objective(3, F.cross_entropy, [], group=group)  # pyright: ignore


def test_replicas_further_inside_are_refused() -> None:
    with OneProcess():
        model = nn.Sequential(nn.parallel.DistributedDataParallel(mlp()))
        with pytest.raises(ValueError, match=r"Sequential holds Dist.*model\.module"):
            Objective(model, F.cross_entropy, [batch(torch.float64)])


def test_a_sharded_model_is_refused() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_module

    with OneProcess():
        model = distribute_module(mlp(), init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match=r"sharded ones \(DTensor\). Load the"):
            Objective(model, F.cross_entropy, batches())


def fresh(**changes: Any) -> Objective:
    values = {"model": mlp(), "criterion": F.cross_entropy, "data": batches()}
    return Objective(**{**values, **changes})


def shuffled() -> DataLoader[Any]:
    x, y = batch(torch.float64, 24)
    return DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)


class Shrinking(list[Any]):
    """One batch less every time it is read."""

    def __iter__(self) -> Iterator[Any]:
        self.pop()
        return super().__iter__()


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model must be an nn.Module, got function"):
        fresh(model=lambda x: x)


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(ValueError, match="requires_grad=True, so there is nothing"):
        fresh(model=mlp().requires_grad_(False))


def test_weights_of_two_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights in torch.bfloat16 are too coarse"):
        fresh(model=mlp(torch.bfloat16))


class OnFrozen(nn.Module):
    """A head on frozen weights of two bytes and of one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 4).bfloat16().requires_grad_(False)
        whole = torch.randint(-9, 9, (4, 4), dtype=torch.int8)
        self.whole = nn.Parameter(whole, requires_grad=False)
        self.head = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.bfloat16()).double() @ self.whole.double())


def test_frozen_weights_may_be_as_narrow_as_they_like() -> None:
    objective = fresh(model=OnFrozen())
    assert [p.shape for p in objective.w] == [(3, 4), (3,)]
    assert sharpness(objective).value > 0


@pytest.mark.parametrize(
    ("layer", "name"),
    [(nn.LazyLinear(6), "0.weight"), (nn.LazyBatchNorm1d(), "0.running_mean")],
)
def test_a_model_without_values_yet_is_refused(layer: nn.Module, name: str) -> None:
    model = nn.Sequential(layer, nn.Linear(6, 3)).double().eval()
    with pytest.raises(ValueError, match=rf"{name}.* before the first batch\. Run one"):
        fresh(model=model)
    model(batches()[0][0])
    assert fresh(model=model).n == 24


def test_weights_that_a_loop_has_moved_are_not_measured() -> None:
    model: Any = mlp()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model, rho=0.5)
    objective = fresh(model=model)
    monitor = Monitor(objective, lambda_max=False)
    x, y = batches()[0]
    for k, probe in enumerate(optimizer.probes()):
        probe.loss = loss = F.cross_entropy(model(x), y)
        loss.backward()
        if k == 0:
            assert sharpness(objective).value > 0
            continue
        for measure in (objective.loss, lambda: fresh(model=model)):
            with pytest.raises(RuntimeError, match=r"Measure after optimizer\.step"):
                measure()
        record = monitor(0)
        assert record is not None
        assert "weights are at w + eps" in record["problem"]
    assert sharpness(objective).value > 0
    optimizer.step()
    assert sharpness(objective).value > 0


def test_gradients_of_many_batches_in_float32_lose_nothing() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    # Slopes of 2^25 and 256 times 1/2: float32 could not add them up one by one.
    x = torch.full((2**8 + 1, 1), 0.5)
    x[0] = 2.0**12
    data = list(zip(x.split(1), torch.zeros_like(x).split(1), strict=True))
    objective = Objective(model, F.mse_loss, data)
    expected = pytest.approx((2.0**25 + 2**7) / (2**8 + 1), rel=2e-7)
    _, (g,) = objective.gradient()
    assert g.dtype == torch.float32
    assert g.item() == expected
    product = Curvature(objective, "hessian")(torch.ones(1))
    assert product.dtype == torch.float32
    assert product.item() == expected


def test_data_that_can_be_read_once_is_refused() -> None:
    with pytest.raises(TypeError, match=r"every time it is read .*, got list_iterator"):
        fresh(data=iter(batches()))
    with pytest.raises(TypeError, match="got int"):
        fresh(data=3)


def test_data_without_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="no batch with an example in it"):
        fresh(data=[])


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Dropout(0.5), "Dropout"),
        (nn.BatchNorm1d(6), "BatchNorm1d"),
        (nn.RReLU(), "RReLU"),
        (nn.MultiheadAttention(6, 2, dropout=0.1), "MultiheadAttention"),
        (nn.LSTM(6, 6, 2, dropout=0.1), "LSTM"),
    ],
)
def test_layers_in_training_mode_are_refused_by_name(
    layer: nn.Module, name: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{name} in training mode: .*model.eval"):
        fresh(model=nn.Sequential(nn.Linear(6, 6), layer))


def test_layers_that_do_nothing_in_training_mode_are_fine() -> None:
    quiet = nn.MultiheadAttention(6, 2), nn.LSTM(6, 6), nn.Dropout(0)
    for layer in quiet:
        model = nn.ModuleList([mlp(), layer.double()])
        fresh(model=model, forward=lambda m, b: (m[0](b[0]), b[1]))


def test_a_model_that_is_set_to_training_later_is_refused_then() -> None:
    model, objective = classifier(model=Noisy().double().eval())
    objective.loss()
    model.train()
    with pytest.raises(ValueError, match="BatchNorm1d, Dropout in training mode"):
        objective.loss()


def test_batch_statistics_in_evaluation_mode_are_refused() -> None:
    bare = nn.BatchNorm1d(6, track_running_stats=False)
    with pytest.raises(ValueError, match=r"^BatchNorm1d without running statistics"):
        fresh(model=nn.Sequential(nn.Linear(6, 6), bare).eval())


def test_shuffled_data_is_refused() -> None:
    with pytest.raises(ValueError, match=r"change from pass to pass: batch \d has"):
        fresh(data=shuffled())


def test_data_of_changing_length_is_refused() -> None:
    with pytest.raises(ValueError, match="pass to pass: 2 batches, then 1"):
        fresh(data=Shrinking(batches()))


def test_a_random_model_is_refused() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(F.dropout(x))

    with pytest.raises(ValueError, match="without random layers"):
        fresh(model=Drops())


@pytest.mark.parametrize("change", ["freeze", "thaw", "replace"])
def test_other_trainable_parameters_than_at_first_are_refused(change: str) -> None:
    model: Any = mlp()
    model[0].bias.requires_grad_(False)
    objective = fresh(model=model)
    objective.loss()
    if change == "replace":
        model[0].weight = nn.Parameter(model[0].weight.detach().clone())
    else:
        parameter = model[0].weight if change == "freeze" else model[0].bias
        parameter.requires_grad_(change == "thaw")
    for read in (objective.loss, objective.gradient):
        with pytest.raises(ValueError, match=r"not those the Objective was built with"):
            read()


def test_a_loss_cut_off_from_the_weights_is_refused() -> None:
    objective = fresh(criterion=lambda o, y: F.cross_entropy(o.detach(), y))
    with pytest.raises(ValueError, match=r"the loss has no gradient .* detach\(\)"):
        sharpness(objective)
    with pytest.raises(ValueError, match="the loss has no gradient"):
        eigenvalues(objective, 1)
    with torch.inference_mode(), pytest.raises(ValueError, match="no gradient"):
        fresh().gradient()


def test_inputs_that_require_gradients_get_none() -> None:
    data = [(x.requires_grad_(), y) for x, y in batches()]
    model, plain = classifier()
    objective = fresh(model=model, data=data)
    assert sharpness(objective).value == sharpness(plain).value
    assert eigenvalues(objective, 1).value == eigenvalues(plain, 1).value
    assert all(x.grad is None for x, _ in data)


def test_the_curvature_of_a_loss_without_second_derivatives_is_refused() -> None:
    def power(outputs: Tensor, _: Tensor) -> Tensor:
        return (outputs - outputs.detach()).abs().pow(1.5).mean(1)

    objective = fresh(criterion=power)
    for measure in (lambda: trace(objective), lambda: eigenvalues(objective, 1)):
        with pytest.raises(ValueError, match="the curvature is infinite or NaN"):
            measure()


def test_the_gauss_newton_matrix_of_a_finished_loss_is_refused() -> None:
    model, plain = classifier()
    objective = fresh(
        model=model,
        criterion=lambda loss, y: (loss * len(y), len(y)),
        forward=lambda model, b: (F.cross_entropy(model(b[0]), b[1]), b[1]),
    )
    expected = eigenvalues(plain, 1).value
    assert eigenvalues(objective, 1).value == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="needs outputs that are one tensor with an"):
        eigenvalues(objective, 1, matrix="ggn")


def test_sums_over_many_examples_in_float32_lose_nothing() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    # One loss of 2^24, and 2^12 of 1: float32 could not add them up one by one.
    x = torch.ones(2**12 + 1, 1)
    x[0] = 2.0**12
    data = [(x, torch.zeros_like(x))]
    for one in (
        data,
        list(zip(x.split(1000), torch.zeros_like(x).split(1000), strict=True)),
    ):
        loss = Objective(model, F.mse_loss, one).loss()
        assert float(loss) == (2.0**24 + 2**12) / (2**12 + 1)


class Sampled(list[Any]):
    """Batches with the sampler that a DataLoader would have."""

    def __init__(self, n: int, replicas: int) -> None:
        super().__init__(batches())
        self.sampler = DistributedSampler(range(n), replicas, 0)  # pyright: ignore


def test_a_part_of_the_data_without_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"this process 5 of 10 .*Give group="):
        fresh(data=Sampled(10, 2))
    assert fresh(data=Sampled(10, 1)).n == 24


def test_examples_that_a_sampler_repeats_are_refused(
    one_process: torch.distributed.ProcessGroup,
) -> None:
    with pytest.raises(ValueError, match=r"repeats 1 of 11 .* count twice"):
        fresh(data=Sampled(11, 2), group=one_process)
    assert fresh(data=Sampled(10, 2), group=one_process).n == 24


@pytest.mark.parametrize(
    "normalised", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm]
)
def test_spectral_norms_that_are_refined_in_every_pass_are_refused(
    normalised: Any,
) -> None:
    with quiet():
        model = nn.Sequential(normalised(nn.Linear(6, 3))).double()
    with pytest.raises(ValueError, match=r"^spectral_norm in training mode"):
        fresh(model=model)
    assert fresh(model=model.eval()).n == 24


def test_a_loss_that_is_not_finite_is_refused() -> None:
    bad = batches()
    bad[1] = (bad[1][0] * torch.nan, bad[1][1])
    with pytest.raises(ValueError, match="loss of batch 1 is nan"):
        fresh(data=bad)


def test_random_streams_are_kept_where_numpy_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, objective = classifier(model=Restless().eval())
    monkeypatch.delitem(sys.modules, "numpy")
    before = torch.get_rng_state()
    objective.loss()
    assert torch.equal(before, torch.get_rng_state())
