"""What is no loss, or no mean over the examples, is refused and says what to write."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.diagnostics import Objective, m_sharpness, sharpness
from tests.diagnostics.losses import (
    CASES,
    WEIGHT,
    classes,
    cut,
    fresh,
    ignored,
    inputs,
    network,
    numbers,
    plain_mean,
)
from tests.diagnostics.problems import RHO, quiet


def test_groups_of_which_none_counts_are_refused_by_that_name() -> None:
    y = torch.full((12,), -100)
    y[11] = 1
    objective = Objective(network(nn.Identity()), F.cross_entropy, cut(y, [12]))
    with pytest.raises(ValueError, match=r"each of the 2 groups of m = 5 .* ignored"):
        m_sharpness(objective, RHO, 5)


@pytest.mark.parametrize(
    "criterion",
    [nn.CrossEntropyLoss(reduction="sum"), partial(F.cross_entropy, reduction="sum")],
)
def test_a_loss_that_adds_up_is_refused(criterion: Any) -> None:
    with pytest.raises(ValueError, match=r"cross_entropy with reduction='sum' adds up"):
        fresh(criterion, classes())


INTERACTING = {
    "sum": (lambda o, y: F.cross_entropy(o, y, reduction="sum"), classes()),
    "old sum": (
        partial(F.cross_entropy, reduction="none", reduce=True, size_average=False),
        classes(),
    ),
    "class weights": (lambda o, y: F.cross_entropy(o, y, weight=WEIGHT), classes()),
    "ignored": (plain_mean, ignored(classes())),
    "ignored at last": (plain_mean, ignored(classes()).flip(0)),
    "contrastive": (
        lambda o, y: F.cross_entropy(o @ o.T, torch.arange(len(o))),
        classes(),
    ),
    "a pair that is none": (
        lambda o, y: (F.cross_entropy(o, y), torch.tensor(len(y))),
        classes(),
    ),
    "weights by place": (
        partial(F.mse_loss, weight=torch.arange(1.0, 4).double().expand(6, 3)),  # pyright: ignore
        numbers(),
    ),
}


@pytest.mark.parametrize("name", INTERACTING)
def test_a_mean_that_is_not_over_examples_is_refused(name: str) -> None:
    criterion, y = INTERACTING[name]
    message = "not the mean over the examples|must have the same size"
    # One batch of twelve has to be refused too, for its groups.
    for sizes in ((6, 6), (12,)) if name != "weights by place" else ((6, 6),):
        with quiet(), pytest.raises(ValueError, match=message):
            fresh(criterion, y, sizes)


def test_batches_that_differ_in_what_they_divide_by_are_compared() -> None:
    # Half of every batch but the first is ignored, alike in each part of it.
    y = classes()[:, None].repeat(1, 2)
    y[4:, 1] = -100
    model = network(CASES["tokens"].tail)
    data = cut(y, [4, 4, 4])
    with pytest.raises(ValueError, match="batches 0 and 1, joined, should have"):
        Objective(model, plain_mean, data)


def test_single_examples_are_compared_with_their_neighbours() -> None:
    with pytest.raises(ValueError, match="batches 0 and 1, joined"):
        fresh(lambda o, y: F.cross_entropy(o, y, weight=WEIGHT), classes(), (1,) * 12)


def scalar(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    """A model that computes its loss itself."""
    x, y = batch
    return F.cross_entropy(model(x), y), y


def test_a_mean_of_what_cannot_be_cut_is_refused_and_a_pair_taken_at_its_word() -> None:
    y = classes()
    with pytest.raises(ValueError, match="cannot be known: the outputs have no axis"):
        fresh(lambda loss, _: loss, y, forward=scalar)
    said = fresh(lambda loss, t: (loss * len(t), len(t)), y, (5, 7), forward=scalar)
    assert torch.allclose(said.loss(), fresh(F.cross_entropy, y).loss(), rtol=1e-12)


def test_a_mean_over_batches_of_other_shapes_is_refused_and_torch_counts() -> None:
    model = nn.Linear(6, 3).double()
    x = torch.randn(4, 5, 6).double()
    data = [
        (x[:2], torch.zeros(2, 5, 3).double()),
        (x[:, :2], torch.ones(4, 2, 3).double()),
    ]
    with pytest.raises(ValueError, match="cannot be known: batches 0 and 1 differ in"):
        Objective(model, lambda o, y: (o - y).square().mean(), data)
    objective = Objective(model, nn.MSELoss(), data)
    off = torch.cat([(model(a) - b).flatten() for a, b in data])
    torch.testing.assert_close(objective.loss(), off.square().mean().detach())


def test_batches_of_other_structure_are_not_joined() -> None:
    data: list[Any] = [(x, (y, y)) for x, y in cut(numbers(), [6, 6])]
    data[1] = (data[1][0], {"y": data[1][1][0]})
    model = network(nn.Identity())
    with pytest.raises(ValueError, match="batches 0 and 1 differ in shape"):
        Objective(model, lambda o, _: o.square().mean(), data)
    per_example = Objective(model, lambda o, _: o.square().mean(1), data)
    expected = model(inputs()).square().mean().detach()
    torch.testing.assert_close(per_example.loss(), expected)


def test_data_that_is_all_ignored_is_refused() -> None:
    with pytest.raises(ValueError, match="12 examples have nothing to average over"):
        fresh(F.cross_entropy, torch.full((12,), -100))
    with pytest.raises(ValueError, match=r"divide by 0. Every target is ignored"):
        fresh(nn.CrossEntropyLoss(WEIGHT * 0), classes())


def test_a_mean_of_nothing_says_what_to_return() -> None:
    with pytest.raises(ValueError, match=r"batch 0 is nan.* return the sum of the"):
        fresh(plain_mean, ignored(classes()), (4, 8))


def test_a_group_whose_own_loss_is_nan_does_not_blame_the_radius() -> None:
    def mean(o: Tensor, y: Tensor) -> Tensor:
        return torch.where(y.sum() == 0, torch.nan, F.cross_entropy(o, y))

    y = classes()
    y[:] = 1
    y[5] = 0
    with pytest.raises(ValueError, match="of a group is nan at the weights themselves"):
        m_sharpness(fresh(mean, y), RHO, 1)


def test_a_divisor_that_moves_with_the_weights_is_refused() -> None:
    def by_outputs(o: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return F.cross_entropy(o, y, reduction="sum"), o.abs().sum()

    objective = fresh(by_outputs, classes())
    objective.loss()
    with pytest.raises(ValueError, match="must depend on the targets alone"):
        sharpness(objective, RHO)
    eps = [torch.ones_like(p) for p in objective.w]
    with objective.at(eps), pytest.raises(ValueError, match=r"divided by .* now by"):
        objective.gradient()


@pytest.mark.parametrize(
    ("criterion", "error", "message"),
    [
        (3, TypeError, "criterion must be callable .*, got int"),
        (lambda o, y: 0.5, TypeError, "gradients flow through, got float"),
        (lambda o, y: o.bfloat16().mean(), ValueError, "loss is torch.bfloat16, and"),
        (lambda o, y: (o > 0).sum(), ValueError, "loss is torch.int64"),
        (lambda o, y: o.to(torch.complex128).mean(), ValueError, "torch.complex128"),
        (lambda o, y: o.mean(0), ValueError, r"first axis 6\), got shape \(3,\)"),
        (lambda o, y: (o.sum(), 1, 2), ValueError, "criterion returned 3 things"),
        (lambda o, y: (o, 6), ValueError, r"got shape \(6, 3\). Call .sum\(\)"),
    ],
)
def test_what_is_no_loss_is_refused(criterion: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        fresh(criterion, classes())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (lambda y: None, "of type NoneType with first axes missing"),
        (lambda y: y.sum(), "of type Tensor with first axes missing"),
        (lambda y: {"a": y, "b": y[:2]}, r"of type dict with first axes \[2, 6\]"),
    ],
)
def test_targets_without_an_axis_of_examples_are_refused(
    targets: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        fresh(
            lambda o, _: o.mean(),
            classes(),
            forward=lambda model, batch: (model(batch[0]), targets(batch[1])),
        )


def test_broadcast_targets_are_refused() -> None:
    model, y = nn.Linear(6, 1).double(), numbers()[:, 0]
    with quiet(), pytest.raises(ValueError, match="not the mean over the examples"):
        Objective(model, F.mse_loss, cut(y, [6, 6]))


def test_a_batch_that_is_no_pair_is_refused() -> None:
    model = network(nn.Identity())
    for batch in ({"x": inputs(), "y": classes()}, inputs(), (inputs(),) * 3):
        with pytest.raises(TypeError, match=r"must be a pair \(x, y\).* forward="):
            Objective(model, F.cross_entropy, [batch])


def test_a_model_that_returns_a_dictionary_says_what_to_write() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(nn.Identity())

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.inner(x)}

    data = cut(classes(), [6, 6])
    with pytest.raises(TypeError, match=r"one tensor, got dict. Give forward="):
        Objective(Named(), F.cross_entropy, data)
    objective = Objective(Named(), lambda o, y: F.cross_entropy(o["logits"], y), data)
    expected = fresh(F.cross_entropy, classes()).loss()
    torch.testing.assert_close(objective.loss(), expected, rtol=1e-12, atol=0)
