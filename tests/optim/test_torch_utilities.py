"""What a training script takes from torch besides layers and optimizers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, parametrize
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from flatmin import SAM, gam, gsam, second_order_sam
from tests.problems import (
    Noisy,
    assert_same,
    batch,
    gradient,
    loss_of,
    passes,
    plain_steps,
    sam_steps,
    snapshot,
    tensors,
    untouched,
)
from tests.reference.loop import sam_loop

DATA = batch(torch.float64)


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def sam(model: nn.Module, rho: float = 0.5) -> SAM:
    return SAM(sgd(model), model, rho=rho)


# Activation checkpointing.


class Recomputing(nn.Module):
    """Runs a segment again in the backward pass, unless ``reentrant`` is None."""

    def __init__(self, reentrant: bool | None, *inside: nn.Module) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.segment = nn.Sequential(*inside, nn.Linear(8, 8), nn.Tanh())
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.reentrant is None:
            return self.head(self.segment(x))
        return self.head(checkpoint(self.segment, x, use_reentrant=self.reentrant))


def recomputing(reentrant: bool | None, *inside: nn.Module) -> Recomputing:
    torch.manual_seed(3)
    return Recomputing(reentrant, *inside)


def test_second_derivatives_refuse_reentrant_checkpoints() -> None:
    """In them, torch takes the parameters for unused."""
    model = recomputing(True)
    optimizer = second_order_sam(sgd(model), model)
    loop = (probe.backward(loss_of(model, DATA)) for probe in optimizer.probes())
    with untouched(model), pytest.raises(RuntimeError, match="use_reentrant=False"):
        list(loop)


def test_second_derivatives_flow_through_other_checkpoints() -> None:
    found: list[list[Tensor]] = []
    for reentrant in (None, False):
        model = recomputing(reentrant)
        for probe in second_order_sam(sgd(model), model).probes():
            probe.backward(loss_of(model, DATA))
        found.append([gradient(p) for p in model.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)


# Hooks that take gradients as they are found.


def flat_buffers(model: nn.Module) -> None:
    """Every gradient goes into memory that stays, as a reduction may want it."""
    for p in model.parameters():
        buffer = torch.zeros_like(p)

        def keep(p: Tensor, buffer: Tensor = buffer) -> None:
            assert p.grad is not None
            buffer.copy_(p.grad)
            p.grad = buffer

        p.register_post_accumulate_grad_hook(keep)


@pytest.mark.parametrize("build", [gsam, gam, second_order_sam])
def test_gradients_that_share_memory_are_told_apart(build: Callable[..., SAM]) -> None:
    found: list[list[Tensor]] = []
    for prepare in (lambda model: None, flat_buffers):
        model = square()
        prepare(model)
        optimizer = build(sgd(model), model, rho=0.5)
        for _ in range(3):
            for probe in optimizer.probes():
                probe.backward(loss_of(model, DATA))
            optimizer.step()
        found.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


either_kind = pytest.mark.parametrize("reentrant", [False, True])


@either_kind
def test_checkpointing_with_dropout_changes_no_bit(reentrant: bool) -> None:
    model = recomputing(reentrant, nn.Dropout(0.5))
    twin = recomputing(None, nn.Dropout(0.5))
    streams = []
    for each in (model, twin):
        torch.manual_seed(1)
        sam_steps(sam(each), each, DATA, 5)
        streams.append(torch.get_rng_state())
    assert_same(tensors(model), tensors(twin))
    assert torch.equal(*streams)


@either_kind
def test_checkpointing_with_dropout_trains_as_the_reference(reentrant: bool) -> None:
    model = recomputing(reentrant, nn.Dropout(0.5))
    twin = recomputing(None, nn.Dropout(0.5))
    optimizer, plain = sam(model), sgd(twin)

    def masked_alike(step: int) -> Tensor:
        torch.manual_seed(step)
        return loss_of(twin, DATA)

    for k in range(5):
        torch.manual_seed(k)
        sam_steps(optimizer, model, DATA, 1)
        sam_loop(twin, plain, partial(masked_alike, k), steps=1, rho=0.5)
    for p, t in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, t, rtol=1e-12, atol=1e-13)


@either_kind
def test_batch_norm_in_a_checkpoint_is_updated_as_in_a_plain_step(
    reentrant: bool,
) -> None:
    model = recomputing(reentrant, nn.BatchNorm1d(8), nn.Dropout(0.5))
    twin = copy.deepcopy(model)
    torch.manual_seed(1)
    plain_steps(sgd(twin), twin, DATA, 1)
    torch.manual_seed(1)
    sam_steps(sam(model), model, DATA, 1)
    assert_same(dict(model.named_buffers()), dict(twin.named_buffers()))
    # torch runs the segment, and so its BatchNorm, twice per backward pass.
    assert snapshot(model)["segment.0.num_batches_tracked"] == 2
    assert not torch.equal(model.first.weight, twin.first.weight)


@either_kind
def test_batch_norm_in_a_checkpoint_trains_as_without_one(reentrant: bool) -> None:
    model = recomputing(reentrant, nn.BatchNorm1d(8))
    twin = recomputing(None, nn.BatchNorm1d(8))
    sam_steps(sam(model), model, DATA, 5)
    sam_steps(sam(twin), twin, DATA, 5)
    assert_same(dict(model.named_parameters()), dict(twin.named_parameters()))


# Parametrizations.


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).T


class Scaled(nn.Module):
    """Has a parameter of its own and may be assigned to."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(6, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.log_scale.exp() * x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / self.log_scale.exp()


def square() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def orthogonal(how: str) -> Callable[[nn.Module], object]:
    return lambda layer: parametrizations.orthogonal(layer, orthogonal_map=how)


def twofold(layer: nn.Module) -> None:
    parametrize.register_parametrization(layer, "weight", Symmetric())
    parametrize.register_parametrization(layer, "weight", Scaled())


PARAMETRIZATIONS: dict[str, Callable[[nn.Module], object]] = {
    "weight-norm": parametrizations.weight_norm,
    "matrix-exp": orthogonal("matrix_exp"),
    "cayley": orthogonal("cayley"),
    "householder": orthogonal("householder"),
    "twofold": twofold,
}


@pytest.mark.parametrize("apply", PARAMETRIZATIONS.values(), ids=list(PARAMETRIZATIONS))
def test_a_parametrized_layer_trains_as_the_reference(
    apply: Callable[[nn.Module], object],
) -> None:
    model, twin = square(), square()
    apply(model[0])
    apply(twin[0])
    assert len(list(model.parameters())) >= 4
    sam_loop(twin, sgd(twin), lambda: loss_of(twin, DATA), steps=5, rho=0.5)
    sam_steps(sam(model), model, DATA, 5)
    for p, t in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, t, rtol=1e-12, atol=1e-13)


def test_a_spectral_norm_is_iterated_once_per_step() -> None:
    model = square()
    parametrizations.spectral_norm(model[0])
    twin = copy.deepcopy(model)
    optimizer = sam(model)
    for _ in range(3):
        with torch.no_grad():
            for p, q in zip(twin.parameters(), model.parameters(), strict=True):
                p.copy_(q)
        twin(DATA[0])
        sam_steps(optimizer, model, DATA, 1)
        assert_same(dict(model.named_buffers()), dict(twin.named_buffers()))


def test_parametrizations_may_be_cached_within_the_body() -> None:
    # Around the whole loop, torch would give the second pass the first one's weights.
    model, twin = square(), square()
    for each in (model, twin):
        parametrizations.orthogonal(each[0])
    optimizer = sam(model)
    for _ in range(3):
        for _ in optimizer.probes():
            with parametrize.cached():
                loss_of(model, DATA).backward()
        optimizer.step()
    sam_steps(sam(twin), twin, DATA, 3)
    assert_same(tensors(model), tensors(twin))


# Evaluation between steps.


def in_eval_mode(model: nn.Module) -> None:
    model.eval()
    with torch.no_grad():
        model(DATA[0])
    model.train()


def in_inference_mode(model: nn.Module) -> None:
    model.eval()
    with torch.inference_mode():
        model(DATA[0])
    model.train()


def as_a_function(model: nn.Module) -> None:
    other = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    model.eval()
    out = functional_call(model, other, (DATA[0],))
    assert not out.any()
    model.train()


def with_gradients(model: nn.Module) -> None:
    model.eval()
    loss_of(model, DATA).backward()
    model.zero_grad()
    model.train()


EVALUATIONS = [in_eval_mode, in_inference_mode, as_a_function, with_gradients]


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_evaluating_between_steps_changes_no_bit(
    evaluate: Callable[[nn.Module], None],
) -> None:
    model = Noisy().double()
    twin = copy.deepcopy(model)
    for each, between in ((model, evaluate), (twin, None)):
        optimizer = sam(each)
        torch.manual_seed(1)
        for _ in range(4):
            sam_steps(optimizer, each, DATA, 1)
            if between is not None:
                between(each)
    assert_same(tensors(model), tensors(twin))


@pytest.mark.parametrize("evaluate", EVALUATIONS[:3])
def test_evaluating_between_loop_and_step_sees_the_weights(
    evaluate: Callable[[nn.Module], None],
) -> None:
    model = Noisy().double()
    optimizer = sam(model)
    passes(optimizer, model, DATA)
    descended = [gradient(p).clone() for p in model.parameters()]
    with untouched(model):
        evaluate(model)
    for p, g in zip(model.parameters(), descended, strict=True):
        assert torch.equal(gradient(p), g)
