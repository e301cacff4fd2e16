"""Lightning: hooks in manual optimization, and what cannot be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from torch import Tensor

from flatmin import SAM
from tests.integrations.lightning_nets import (
    RHO,
    Net,
    Plain,
    body,
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


class Halve(lightning.Callback):
    """Halves the gradient that is descended, and counts how often."""

    calls = 0

    def on_before_optimizer_step(
        self, trainer: Any, pl_module: Any, optimizer: Any
    ) -> None:
        self.calls += 1
        for p in pl_module.parameters():
            p.grad.mul_(0.5)


def with_loop(module: Any, optimizer: Any, batch: Any) -> None:
    for _ in optimizer.probes():
        module.manual_backward(Plain.training_step(module, batch, 0))
    optimizer.step()


def with_closure(module: Any, optimizer: Any, batch: Any) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = Plain.training_step(module, batch, 0)
        module.manual_backward(loss)
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("step", [with_loop, with_closure])
def test_manual_optimization_calls_the_hook_of_a_step_once(
    step: Callable[..., None], tmp_path: Path
) -> None:
    class Manual(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            step(self, self.optimizers(), batch)

        def configure_optimizers(self) -> Any:
            return SAM(self.base(), self, rho=RHO)

    module, automatic, halve, other = Manual(), Net(), Halve(), Halve()
    run = trainer(tmp_path, halve)
    run.fit(module, loader())
    trainer(tmp_path, other).fit(automatic, loader())
    assert halve.calls == other.calls == run.global_step == 6
    assert same(module.net, automatic.net)


class Silent(Net):
    """Its hook hides the mixin's."""

    def on_train_start(self) -> None:
        pass


class Part(Net):
    """SAM knows nothing of the rest of the module."""

    def sam(self, module: Any) -> Any:
        return SAM(self.base(), self.net)


class Fetching(Net):
    """Takes its batches itself."""

    def training_step(self, dataloader_iter: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().training_step(next(dataloader_iter)[0], 0)


class InPlace(Net):
    """Changes what the second pass is to see."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batch[0].mul_(2)
        return super().training_step(batch, batch_idx)


class Doubtful(Net):
    """Skips the batch when it is too late."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if not torch.equal(first(self.net), first(body())):
            return None
        return super().training_step(batch, batch_idx)


class Own(Net):
    """Calls backward itself."""

    def backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        loss.backward()


@pytest.mark.filterwarnings("ignore:Found `dataloader_iter`")
@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Silent, r"call those of super\(\)\.$"),
        (Own, r"Write super\(\)\.backward\(loss\) in it\.$"),
        (Doubtful, r"Decide in the first pass, by the batch, whether to skip it\.$"),
        (Part, r"Write in configure_optimizers: flatmin\.SAM\(base, self\)\.$"),
        (Fetching, r"Write training_step\(self, batch, batch_idx\)\.$"),
        (InPlace, r"Write it as x = x \* 2, not x \*= 2\.$"),
    ],
)
def test_what_cannot_be_right_is_refused(
    kind: type[Net], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError), match=sentence):
        trainer(tmp_path).fit(kind(), loader())
