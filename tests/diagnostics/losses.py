"""Losses that divide by other things than the number of examples, and their oracles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.diagnostics import Objective
from tests.diagnostics.problems import weights

N = 12
WEIGHT = torch.tensor([1.0, 9.0, 0.25]).double()

#: The same 12 examples: at once, in two, uneven, and one by one.
CUTS = [[12], [6, 6], [5, 4, 3], [4, 4, 4], [1] * 12]


@dataclass(frozen=True)
class Case:
    """A criterion, the targets, and the loss of all data in one batch.

    Attributes:
        criterion: what an Objective is given.
        targets: of the 12 examples.
        oracle: gives the loss of outputs and targets of all of them.
        tail: the last layer of the network.
    """

    criterion: Any
    targets: Tensor
    oracle: Callable[[Tensor, Tensor], Tensor]
    tail: nn.Module


def case(
    criterion: Any,
    targets: Tensor,
    oracle: Any = None,
    tail: nn.Module | None = None,
) -> Case:
    return Case(criterion, targets, oracle or criterion, tail or nn.Identity())


def _draw() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def inputs() -> Tensor:
    return torch.randn(N, 6, generator=_draw(), dtype=torch.float64)


def classes(*shape: int) -> Tensor:
    return torch.randint(3, (N, *shape), generator=_draw())


def ignored(y: Tensor, index: int = -100) -> Tensor:
    """Nothing counts in the first four examples, and not all in the others."""
    y = y.clone()
    y[:4] = index
    y[7] = index
    if y.dim() > 1:
        y[5:, -1] = index
    return y


def numbers() -> Tensor:
    return torch.randn(N, 3, generator=_draw(), dtype=torch.float64)


def shares() -> Tensor:
    return numbers().softmax(1)


def bits() -> Tensor:
    return (numbers() > 0).double()


def _tokens() -> nn.Module:
    """Three numbers become three classes at two places."""
    torch.manual_seed(8)
    return nn.Sequential(nn.Linear(3, 6), nn.Unflatten(1, (3, 2))).double()


def _per_example(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs - y).abs().pow(3).sum(1)


def _counted(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(outputs, y, reduction="sum"), (y != -100).sum()


CE, none = F.cross_entropy, "none"
LOG = nn.LogSoftmax(1)

CASES = {
    "plain": case(F.cross_entropy, classes()),
    "class weights": case(nn.CrossEntropyLoss(WEIGHT), classes()),
    "weights and ignored": case(nn.CrossEntropyLoss(WEIGHT), ignored(classes())),
    "ignored": case(F.cross_entropy, ignored(classes())),
    "an ignored class": case(partial(CE, ignore_index=1, weight=WEIGHT), classes()),
    "smoothed": case(
        nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.3), ignored(classes())
    ),
    "smoothed without weights": case(
        partial(CE, label_smoothing=0.3), ignored(classes())
    ),
    "probabilities": case(nn.CrossEntropyLoss(WEIGHT), shares()),
    "tokens": case(F.cross_entropy, ignored(classes(2)), tail=_tokens()),
    "weighted tokens": case(
        nn.CrossEntropyLoss(WEIGHT), ignored(classes(2)), tail=_tokens()
    ),
    "nll": case(nn.NLLLoss(WEIGHT, ignore_index=2), classes(), tail=LOG),
    "unreduced": case(
        nn.CrossEntropyLoss(WEIGHT, reduction=none),
        ignored(classes()),
        partial(CE, weight=WEIGHT),
    ),
    "unreduced function": case(partial(CE, reduction=none), ignored(classes()), CE),
    "mse": case(nn.MSELoss(), numbers()),
    "mse function": case(F.mse_loss, numbers()),
    "l1": case(nn.L1Loss(), numbers()),
    "huber": case(partial(F.huber_loss, delta=0.1), numbers()),
    "smooth l1": case(nn.SmoothL1Loss(), numbers()),
    "bce": case(nn.BCELoss(WEIGHT), bits(), tail=nn.Sigmoid()),
    "bce with logits": case(nn.BCEWithLogitsLoss(WEIGHT, pos_weight=WEIGHT), bits()),
    "kl": case(nn.KLDivLoss(reduction="batchmean"), shares(), tail=LOG),
    "kl function": case(partial(F.kl_div, reduction="batchmean"), shares(), tail=LOG),
    "poisson": case(nn.PoissonNLLLoss(), bits()),
    "soft margin": case(nn.SoftMarginLoss(), 2 * bits() - 1),
    "hinge embedding": case(nn.HingeEmbeddingLoss(), 2 * bits() - 1),
    "multi margin": case(nn.MultiMarginLoss(weight=WEIGHT), classes()),
    "labels margin": case(nn.MultiLabelMarginLoss(), classes(1).repeat(1, 3)),
    "labels soft margin": case(nn.MultiLabelSoftMarginLoss(WEIGHT), bits()),
    "one loss per example": case(
        _per_example, numbers(), lambda o, y: _per_example(o, y).mean()
    ),
    "sum and divisor": case(_counted, ignored(classes()), CE),
    "a mean": case(lambda o, y: (o - y).square().mean(), numbers()),
}


def network(tail: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    body = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    body.append(tail.requires_grad_(False))
    return body


def cut(y: Tensor, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs().split(sizes), y.split(sizes), strict=True))


def fresh(
    criterion: Any, y: Tensor, sizes: tuple[int, ...] = (6, 6), **more: Any
) -> Objective:
    """The loss of a fresh network on the 12 examples, cut into batches."""
    data = cut(y, list(sizes))
    return Objective(network(nn.Identity()), criterion, data, **more)


def plain_mean(outputs: Tensor, y: Tensor) -> Tensor:
    """What torch's loss says of a batch, and no more."""
    return F.cross_entropy(outputs, y)


def loss_of(one: Case, model: nn.Module, at: slice = slice(None)) -> Any:
    """The oracle as a function of the weights, on all examples or on some."""
    x, y = inputs(), one.targets
    names = [name for name, p in model.named_parameters() if p.requires_grad]

    def loss(w: list[Tensor]) -> Tensor:
        named = dict(zip(names, w, strict=True))
        outputs = torch.func.functional_call(model, named, (x[at],))
        return one.oracle(outputs, y[at])

    return loss


def hessian(one: Case, model: nn.Module) -> Tensor:
    """The whole matrix of the oracle."""
    loss, w = loss_of(one, model), weights(model)
    sizes = [p.numel() for p in w]

    def flat(v: Tensor) -> Tensor:
        parts = zip(v.split(sizes), w, strict=True)
        return loss([x.view(p.shape) for x, p in parts])

    v = torch.cat([p.flatten() for p in w])
    return torch.autograd.functional.hessian(flat, v)  # pyright: ignore
