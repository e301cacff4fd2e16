"""A small module, its data, and the loop by hand that it has to equal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from flatmin import SAM
from flatmin.integrations.lightning import SharpnessAware

RHO, LR = 0.1, 0.1


@contextmanager
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Without Lightning's advice, and a warning of torch's to Lightning."""
    caplog.set_level(logging.ERROR, "lightning.pytorch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PossibleUserWarning)
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`")
        yield


def body() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def first(net: nn.Sequential) -> Tensor:
    """A weight of the net."""
    layer: Any = net[0]
    return layer.weight


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(24, 6, generator=draw)
    return x, torch.randint(3, (24,), generator=draw)


def loader() -> DataLoader[tuple[Tensor, ...]]:
    """Three batches; it draws nothing from the global random stream."""
    return DataLoader(TensorDataset(*data()), 8, generator=torch.Generator())


class Plain(lightning.LightningModule):
    """A classifier that SGD trains."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.lr = body(), LR
        self.make: Callable[[Any], Any] = self.base

    def base(self, module: Any = None) -> Any:
        return SGD(self.parameters(), lr=self.lr, momentum=0.9)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = cross_entropy(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.make(self)


class Net(SharpnessAware, Plain):
    """The same, and SAM does."""

    def __init__(self, rho: float = RHO) -> None:
        super().__init__()
        self.rho = rho
        self.make = self.sam

    def sam(self, module: Any) -> Any:
        return SAM(self.base(), self, rho=self.rho)


def trainer(folder: Path, *watching: Any, **options: Any) -> Any:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    options = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, **quiet, **options}
    package = options.pop("package", lightning)
    return package.Trainer(default_root_dir=folder, callbacks=list(watching), **options)


def by_hand(epochs: int = 2) -> tuple[nn.Module, SAM]:
    model = body()
    sam = SAM(SGD(model.parameters(), lr=LR, momentum=0.9), model, rho=RHO)
    for x, y in [*loader()] * epochs:
        for probe in sam.probes():
            probe.loss = loss = cross_entropy(model(x), y)
            loss.backward()
        sam.step()
    return model, sam


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)
