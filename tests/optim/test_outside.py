"""Parameters and modules that SAM was not given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flatmin import SAM, momentum_sam
from tests.problems import batch, loss_of, mlp, sam_steps, two_layers, untouched

X = torch.linspace(-1, 1, 32).view(8, 4).double()


def loop(optimizer: SAM, loss: Callable[[], Tensor]) -> None:
    for _ in optimizer.probes():
        loss().backward()


def norm_and_head() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)).double()


def test_parameters_of_the_base_outside_of_the_model_are_named() -> None:
    model, head = two_layers(), norm_and_head()
    both = [*model.parameters(), *head.parameters()]
    with pytest.warns(
        UserWarning, match=r"4 parameters .* \(4,\), \(4,\), \(1, 4\), \.\.\."
    ):
        SAM(torch.optim.SGD(both, lr=0.1), model)


def test_few_parameters_are_all_named() -> None:
    model = two_layers()
    scale = nn.Parameter(torch.ones(3))
    with pytest.warns(
        UserWarning, match=r"1 parameters .* \(of shapes \(3,\)\)"
    ) as seen:
        SAM(torch.optim.SGD([*model.parameters(), scale], lr=0.1), model)
    assert seen[0].filename == __file__


def test_modules_together_are_a_model() -> None:
    model, head = nn.Linear(4, 4).double(), norm_and_head()
    both = nn.ModuleList([model, head])
    optimizer = SAM(torch.optim.SGD(both.parameters(), lr=0.1), both)
    for _ in optimizer.probes():
        head(model(X)).mean().backward()
    optimizer.step()
    assert head[0].num_batches_tracked == 1


def test_a_module_outside_of_the_model_that_changes_its_buffers_is_refused() -> None:
    model, critic = nn.Linear(4, 4).double(), norm_and_head()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with untouched(model), pytest.raises(RuntimeError, match="BatchNorm1d outside"):
        loop(optimizer, lambda: critic(model(X)).mean())
    # Once, as in a plain step.
    assert critic[0].num_batches_tracked == 1


class Centre(nn.Module):
    """A loss with a buffer that it replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(4).double())

    def forward(self, x: Tensor) -> Tensor:
        self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        return (x - self.centre).square().mean()


def test_a_module_outside_of_the_model_that_replaces_its_buffer_is_refused() -> None:
    model, loss = nn.Linear(4, 4).double(), Centre()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    with pytest.raises(RuntimeError, match="Centre outside"):
        loop(optimizer, lambda: loss(model(X)))


@pytest.mark.parametrize("how", ["eval", "unprotected", "no buffers"])
def test_modules_outside_of_the_model_that_change_nothing_are_welcome(how: str) -> None:
    model, critic = nn.Linear(4, 4).double(), norm_and_head()
    critic.train(how != "eval")
    if how == "no buffers":
        critic = nn.Linear(4, 1).double()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = SAM(base, model, protect_buffers=how != "unprotected")
    for _ in range(2):
        for _ in optimizer.probes():
            critic(model(X)).mean().backward()
        optimizer.step()


def test_a_method_whose_first_pass_is_away_looks_too() -> None:
    model, critic = nn.Linear(4, 4).double(), norm_and_head()
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = momentum_sam(base, model)
    with pytest.raises(RuntimeError, match="BatchNorm1d outside"):
        loop(optimizer, lambda: critic(model(X)).mean())


def test_no_hook_remains() -> None:
    hooks = torch.nn.modules.module._global_forward_pre_hooks
    model = mlp(torch.float64)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    for _ in optimizer.probes():
        assert len(hooks) == 1
        break
    assert not hooks
    sam_steps(optimizer, model, batch(torch.float64), 1)
    for _ in optimizer.probes():
        assert not hooks
        loss_of(model, batch(torch.float64)).backward()


def test_buffers_of_inference_are_left_alone() -> None:
    model, critic = nn.Linear(4, 4).double(), norm_and_head().eval()
    with torch.inference_mode():
        critic.register_buffer("mask", torch.zeros(4))
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model)
    for _ in optimizer.probes():
        critic(model(X)).mean().backward()
    optimizer.step()


class Metric(nn.Module):
    """As torchmetrics has them: its hash is another one after every call."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __hash__(self) -> int:
        return hash(self.total)

    def forward(self, x: Tensor) -> None:
        self.total += float(x.sum())


@pytest.mark.parametrize("inside", [False, True])
def test_a_metric_whose_hash_changes_may_be_called_in_a_pass(inside: bool) -> None:
    model, metric = two_layers(), Metric()
    both = nn.ModuleList([model, metric]) if inside else model
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), both)
    for _ in range(2):
        for _ in optimizer.probes():
            metric(torch.ones(2))
            metric(torch.ones(2))
            loss_of(model, batch(torch.float64)).backward()
        optimizer.step()
    # One that SAM was not given counts in every pass.
    assert metric.total == (8 if inside else 16)
