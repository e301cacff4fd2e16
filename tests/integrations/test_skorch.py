"""The skorch mixin is a net like any other: for sklearn, for files, for set_params."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import Tensor, nn

import flatmin

with warnings.catch_warnings():
    # Of torch_geometric, which skorch imports where it is installed.
    warnings.simplefilter("ignore")
    from skorch import NeuralNet, NeuralNetClassifier
    from skorch.hf import AccelerateMixin

    from flatmin.integrations.skorch import SharpnessAware


class Net(SharpnessAware, NeuralNetClassifier):
    pass


class Model(nn.Module):
    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(24, 4, generator=draw)
    return x, (x[:, 0] > 0).long()


def build(**options: Any) -> Net:
    fixed = {
        "module": Model,
        "criterion": nn.CrossEntropyLoss,
        "lr": 0.1,
        "max_epochs": 2,
        "batch_size": 8,
        "train_split": None,
        "verbose": 0,
    }
    return Net(**{**fixed, **options})


def fitted(net: Net) -> Net:
    torch.manual_seed(0)
    return net.fit(*data())


def weights(net: Net) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.module_.parameters()])


def test_options_of_the_method_are_the_methods() -> None:
    net = build(
        method=flatmin.gsam,
        optimizer__rho=0.3,
        optimizer__alpha=0.7,
        optimizer__momentum=0.9,
    ).initialize()
    assert isinstance(net.optimizer_, flatmin.SAM)
    (group,) = net.optimizer_.param_groups
    assert (group["sam_rho"], group["momentum"]) == (0.3, 0.9)
    assert "rho" not in group
    assert "0.7" in repr(net.optimizer_.method)


def test_a_clone_trains_as_the_net_does() -> None:
    net = build(method=flatmin.gsam, optimizer__rho=0.3)
    copy = cast("Net", clone(net))
    assert copy.get_params()["method"] is flatmin.gsam
    assert torch.equal(weights(fitted(net)), weights(fitted(copy)))


def test_a_grid_search_over_rho_trains_with_each() -> None:
    x, y = data()
    torch.manual_seed(0)
    grid = {"optimizer__rho": [0.0, 0.5], "method": [flatmin.SAM, flatmin.asam]}
    options: dict[str, Any] = {"scoring": "accuracy", "error_score": "raise"}
    search = GridSearchCV(build(), grid, cv=2, **options)
    search.fit(x.numpy(), y.numpy())
    best = search.best_estimator_
    chosen = search.best_params_
    assert best.optimizer_.param_groups[0]["sam_rho"] == chosen["optimizer__rho"]
    assert len(search.cv_results_["params"]) == 4


def test_a_radius_that_is_set_later_acts_at_once_and_survives_a_new_fit() -> None:
    net = build(optimizer__rho=0.1, optimizer__momentum=0.9).initialize()
    before = net.optimizer_
    net.set_params(optimizer__rho=0.4)
    assert net.optimizer_ is before
    assert before.param_groups[0]["sam_rho"] == 0.4
    wanted = weights(fitted(build(optimizer__rho=0.4, optimizer__momentum=0.9)))
    assert torch.equal(weights(fitted(net)), wanted)


def test_another_option_that_is_set_later_builds_a_new_optimizer() -> None:
    net = build(optimizer__rho=0.1).initialize()
    net.set_params(method=flatmin.gsam, optimizer__alpha=0.6)
    assert "0.6" in repr(net.optimizer_.method)
    assert net.optimizer_.param_groups[0]["sam_rho"] == 0.1


def test_a_new_module_is_the_one_that_is_perturbed() -> None:
    net = build().initialize().set_params(module__hidden=3)
    assert net.optimizer_.model is net.module_


def test_a_pickled_net_goes_on_as_the_net_does() -> None:
    net = fitted(build(optimizer__rho=0.3, optimizer__momentum=0.9))
    copy = pickle.loads(pickle.dumps(net))
    for one in (net, copy):
        torch.manual_seed(1)
        one.partial_fit(*data())
    assert torch.equal(weights(net), weights(copy))


def test_saved_parameters_have_the_momentum_and_the_radius(tmp_path: Path) -> None:
    net = fitted(build(optimizer__rho=0.3, optimizer__momentum=0.9))
    paths: dict[str, Any] = {"f_params": tmp_path / "w", "f_optimizer": tmp_path / "o"}
    net.save_params(**paths)
    copy = build(optimizer__momentum=0.9).initialize()
    copy.load_params(**paths)
    assert copy.optimizer_.param_groups[0]["sam_rho"] == 0.3
    for one in (net, copy):
        torch.manual_seed(1)
        one.partial_fit(*data())
    assert torch.equal(weights(net), weights(copy))


def test_groups_have_a_radius_of_their_own() -> None:
    groups = [("body*", {"sam_rho": 0.5})]
    net = build(optimizer__param_groups=groups, optimizer__rho=0.1).initialize()
    assert [g["sam_rho"] for g in net.optimizer_.param_groups] == [0.5, 0.1]
    net.set_params(optimizer__param_groups__0__sam_rho=0.2)
    assert [g["sam_rho"] for g in net.optimizer_.param_groups] == [0.2, 0.1]


def test_a_radius_of_a_group_under_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match='radius of a group is "sam_rho"'):
        build(optimizer__param_groups=[("body*", {"rho": 0.5})]).initialize()
    net = build().initialize()
    with pytest.raises(ValueError, match='radius of a group is "sam_rho"'):
        net.set_params(optimizer__param_groups__0__rho=0.2)


def test_a_name_that_base_and_method_share_is_refused() -> None:
    net = build(optimizer=torch.optim.Adadelta, optimizer__rho=0.1)
    with pytest.raises(ValueError, match="may be the method's or the base"):
        net.initialize()


def adadelta(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adadelta(parameters, lr=lr, rho=0.8)


def test_a_base_built_by_a_function_keeps_its_own_option_of_that_name() -> None:
    net = build(optimizer=adadelta, optimizer__rho=0.1).initialize()
    net.set_params(optimizer__rho=0.2)
    (group,) = net.optimizer_.param_groups
    assert (group["rho"], group["sam_rho"]) == (0.8, 0.2)


def test_a_wrong_name_is_refused_as_without_the_mixin() -> None:
    with pytest.raises(TypeError, match="roh"):
        build(optimizer__roh=0.1).initialize()


class Weighted(nn.Module):
    """A criterion with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out * self.weight, y)


def test_a_criterion_that_is_trained_is_perturbed_too() -> None:
    net = fitted(build(criterion=Weighted))
    weight = cast("Weighted", net.criterion_).weight
    assert set(net.optimizer_.model.parameters()) >= {weight}
    assert not torch.equal(weight, torch.ones(2))


class Two(Net):
    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> Two:
        super().initialize_optimizer(*args, **kwargs)
        head = cast("Model", self.module_).head
        self.other_ = torch.optim.SGD(head.parameters(), lr=0.1)
        return self


def test_a_second_optimizer_is_refused() -> None:
    options = build().get_params(deep=False)
    with pytest.raises(RuntimeError, match="another optimizer, other_"):
        Two(**options).fit(*data())


def test_the_accelerate_mixin_is_refused() -> None:
    with pytest.raises(TypeError, match="AccelerateMixin"):
        type("Both", (SharpnessAware, AccelerateMixin, NeuralNet), {})


def test_the_mixin_works_behind_the_net_too() -> None:
    kind: Any = type("Behind", (NeuralNetClassifier, SharpnessAware), {})
    net = kind(**build(optimizer__rho=0.3).get_params(deep=False))
    wanted = weights(fitted(build(optimizer__rho=0.3)))
    assert torch.equal(weights(fitted(net)), wanted)


@pytest.mark.parametrize("method", ["second_order_sam", "k_sam", "part_sam"])
def test_a_method_that_needs_more_than_a_loss_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"skorch has one loss .*docs/loop\.md"):
        fitted(build(method=getattr(flatmin, method)))


def test_the_class_in_place_of_an_optimizer_is_refused() -> None:
    net = NeuralNetClassifier(Model, optimizer=flatmin.SAM)
    with pytest.raises(TypeError):
        net.initialize()
