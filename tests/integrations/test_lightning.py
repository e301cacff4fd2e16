"""Lightning: what the matrix of frameworks does not look at."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint
from torchmetrics.classification import MulticlassAccuracy

import flatmin
from flatmin import SAM
from flatmin.integrations.lightning import SharpnessAware
from tests.integrations.lightning_nets import (
    LR,
    RHO,
    Net,
    Plain,
    body,
    by_hand,
    first,
    loader,
    quiet,
    same,
    trainer,
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet(caplog):
        yield


PACKAGES = ["lightning.pytorch", "pytorch_lightning"]


@pytest.mark.parametrize("package", PACKAGES)
def test_both_packages_train_as_the_loop_by_hand(package: str, tmp_path: Path) -> None:
    host = import_module(package)

    class Mine(SharpnessAware, host.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = body()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            return cross_entropy(self.net(x), y)

        def configure_optimizers(self) -> Any:
            return SAM(SGD(self.parameters(), lr=LR, momentum=0.9), self, rho=RHO)

    module = Mine()
    trainer(tmp_path, package=host).fit(module, loader())
    assert same(module.net, by_hand()[0])


@pytest.mark.parametrize("package", PACKAGES)
def test_without_the_mixin_the_two_lines_are_told(package: str, tmp_path: Path) -> None:
    host = import_module(package)

    class Mine(host.LightningModule):
        training_step = Plain.training_step

        def __init__(self) -> None:
            super().__init__()
            self.net = body()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.net(batch[0])

        def configure_optimizers(self) -> Any:
            return SAM(SGD(self.parameters(), lr=LR), self)

    lines = "import SharpnessAware, and class Net.SharpnessAware, LightningModule."
    with pytest.raises(RuntimeError, match=lines):
        trainer(tmp_path, package=host).fit(Mine(), loader(), loader())


class Record(lightning.Callback):
    """The learning rate in each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(
        self, trainer: Any, pl_module: Any, optimizer: Any
    ) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def scheduled(module: Any) -> Any:
    """Schedules per step, per epoch and on a plateau, in Lightning's two lists."""
    optimizer = Net.sam(module, module) if isinstance(module, Net) else module.base()
    rate = torch.optim.lr_scheduler
    each: Any = {"scheduler": rate.ExponentialLR(optimizer, 0.9), "interval": "step"}
    plateau: Any = {
        "scheduler": rate.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9),
        "monitor": "loss",
    }
    return [optimizer], [each, rate.StepLR(optimizer, 1, 0.5), plateau]


def test_schedules_per_step_and_per_epoch_and_on_a_plateau(tmp_path: Path) -> None:
    rates = []
    for module in Plain(), Net():
        module.make, record = scheduled, Record()
        trainer(tmp_path, record, max_epochs=3).fit(module, loader())
        rates.append(record.rates)
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 9


def test_lr_find_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    module, lightly = Net(), {"num_training": 4, "update_attr": False}
    tried = trainer(tmp_path)
    found: Any = Tuner(tried).lr_find(module, loader(), **lightly)
    assert len(found.results["loss"]) == 4
    assert same(module.net, body())
    tried.fit(module, loader())
    assert same(module.net, by_hand()[0])


@pytest.mark.skipif(
    not hasattr(callbacks, "WeightAveraging"), reason="Lightning before 2.6 has none"
)
def test_the_average_of_the_weights_is_that_of_the_steps(tmp_path: Path) -> None:
    module, averaged = Net(), callbacks.EMAWeightAveraging(decay=0.5)
    trainer(tmp_path, averaged, max_epochs=1).fit(module, loader())
    model, mean = body(), torch.zeros(0)
    sam = SAM(SGD(model.parameters(), lr=LR, momentum=0.9), model, rho=RHO)
    for k, (x, y) in enumerate(loader()):
        for _ in sam.probes():
            cross_entropy(model(x), y).backward()
        sam.step()
        now = first(model).detach().clone()
        mean = now if k == 0 else mean.lerp(now, 0.5)
    torch.testing.assert_close(first(module.net).detach(), mean)


def test_stochastic_weight_averaging_goes_on_as_without_sam(tmp_path: Path) -> None:
    # Its last epoch renews the statistics of BatchNorm in passes without gradient.
    trained = []
    for module in Plain(), Net(rho=0.0):
        swa = callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=1)
        run = trainer(tmp_path, swa)
        run.fit(module, loader())
        trained.append((module.net, run.global_step))
    assert same(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]


def test_a_metric_counts_each_batch_once(tmp_path: Path) -> None:
    class Counting(Net):
        def __init__(self) -> None:
            super().__init__()
            self.right: Any = MulticlassAccuracy(3, average="micro")
            self.outputs = list[Tensor]()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            out = self.net(x)
            self.right.update(out, y)
            self.log("right", self.right, on_epoch=True, on_step=False)
            self.outputs.append((out.argmax(1) == y).float())
            return cross_entropy(out, y)

        def on_train_epoch_end(self) -> None:
            assert int((self.right.tp + self.right.fn).sum()) == 24

    module = Counting()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, loader())
    # Of the attributes of a module, too, only the first pass's changes remain.
    assert len(module.outputs) == 3
    assert run.callback_metrics["right"] == torch.cat(module.outputs).mean()


def test_sharpness_can_be_logged(tmp_path: Path) -> None:
    class Logging(Net):
        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            optimizer: Any = self.optimizers()
            self.log("sharpness", optimizer.sharpness)

    run = trainer(tmp_path)
    run.fit(Logging(), loader())
    assert run.callback_metrics["sharpness"] == by_hand()[1].sharpness


def test_checkpoints_of_activations_change_nothing(tmp_path: Path) -> None:
    class Thrifty(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            hidden: Any = checkpoint(self.net[:3], x, use_reentrant=False)
            return cross_entropy(self.net[3:](hidden), y)

    module = Thrifty()
    # BatchNorm would count what is computed again, with SAM as without.
    module.net[1] = nn.Identity()
    other = Net()
    other.net[1] = nn.Identity()
    for each in module, other:
        trainer(tmp_path).fit(each, loader())
    assert same(module.net, other.net)


def test_methods_that_choose_examples_see_the_loss_of_each(tmp_path: Path) -> None:
    class Each(Net):
        def sam(self, module: Any) -> Any:
            return flatmin.k_sam(self.base(), self, rho=RHO)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            return cross_entropy(self.net(x), y, reduction="none")

    module, model = Each(), body()
    trainer(tmp_path, max_epochs=1).fit(module, loader())
    sam = flatmin.k_sam(SGD(model.parameters(), lr=LR, momentum=0.9), model, rho=RHO)
    for batch in loader():
        for probe in sam.probes():
            x, y = probe.take(*batch)
            probe.backward(cross_entropy(model(x), y, reduction="none"))
        sam.step()
    assert same(module.net, model)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@pytest.mark.parametrize("every", [1, 3])
def test_a_batch_is_skipped_by_returning_none(every: int, tmp_path: Path) -> None:
    class Skipping(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 2 else super().training_step(batch, batch_idx)

    module, model = Skipping(), body()
    run = trainer(tmp_path, max_epochs=1, accumulate_grad_batches=every)
    run.fit(module, loader())
    sam = SAM(SGD(model.parameters(), lr=LR, momentum=0.9), model, rho=RHO)
    for x, y in [*loader()][:2]:
        for _ in sam.probes(accumulate=True):
            (cross_entropy(model(x), y) / every).backward()
        if every == 1:
            sam.step()
            sam.zero_grad()
    if every == 3:
        sam.step()
    assert same(module.net, model)


def test_an_error_in_a_further_pass_leaves_the_weights_at_w(tmp_path: Path) -> None:
    class Failing(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if not torch.equal(first(self.net), first(body())):
                raise KeyError("in the second pass")
            return super().training_step(batch, batch_idx)

    module = Failing()
    with pytest.raises(KeyError, match="in the second pass"):
        trainer(tmp_path).fit(module, loader())
    assert torch.equal(first(module.net), first(body()))


def test_after_an_error_the_trainer_trains_another_module(tmp_path: Path) -> None:
    class Failing(Net):
        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            raise KeyError

    run, module = trainer(tmp_path), Plain()
    with pytest.raises(KeyError):
        run.fit(Failing(), loader())
    run.fit(module, loader())
    other = Plain()
    trainer(tmp_path).fit(other, loader())
    assert same(module.net, other.net)
