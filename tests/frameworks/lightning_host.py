"""Lightning: automatic optimization with the mixin, manual, and without the mixin."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from flatmin.integrations.lightning import SharpnessAware
from tests.frameworks.judge import ALL_COLUMNS, REFUSED, Host
from tests.frameworks.scenario import (
    EPOCHS,
    Scenario,
    Trace,
    batches,
    loss_of,
    network,
    optimizer_of,
    schedule_of,
    start,
    trace,
)

#: Hooks of which the column "hooks once" counts the calls.
HOOKS = (
    "on_train_batch_start", "on_before_backward", "on_after_backward",
    "on_before_zero_grad", "on_before_optimizer_step", "on_train_batch_end",
)  # fmt: skip


class Plain(lightning.LightningModule):
    """The network as Lightning trains it, without the mixin."""

    def __init__(self, of: Scenario) -> None:
        super().__init__()
        self.of, self.net = of, network(of)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = loss_of(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = optimizer_of(self.of, self.wrapped())
        if not self.of.schedule:
            return optimizer
        schedule = {"scheduler": schedule_of(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def wrapped(self) -> nn.Module:
        return self


class Automatic(SharpnessAware, Plain):
    """With the mixin: the two lines."""


class Manual(Plain):
    """The loop of the documentation, in manual optimization."""

    def __init__(self, of: Scenario) -> None:
        super().__init__(of)
        self.automatic_optimization = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # In manual optimization Lightning's DDP broadcasts buffers at the first batch
        # alone, with SAM as without. The loop by hand does at each.
        if self.of.processes > 1:
            for buffer in self.buffers():
                dist.broadcast(buffer, 0)

    def wrapped(self) -> nn.Module:
        model = self.trainer.model
        assert model is not None
        return model

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        every = self.of.accumulate
        if batch_idx % every == 0:
            optimizer.zero_grad()
        self.log("loss", self.passes(optimizer, *batch))
        if (batch_idx + 1) % every:
            return None
        if self.of.precision != "16":
            # Otherwise the plugin has to unscale gradients first.
            self.clip(optimizer)
        optimizer.step()
        if self.of.schedule:
            schedule: Any = self.lr_schedulers()
            schedule.step()
        return None

    def passes(self, optimizer: Any, x: Tensor, y: Tensor) -> Tensor:
        if self.of.method is None:
            return self.one_pass(x, y)
        losses = []
        more = self.of.accumulate > 1
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        for probe in optimizer.probes(accumulate=more, scaler=scaler):
            losses.append(self.one_pass(*probe.take(x, y)))
        return losses[0]

    def one_pass(self, x: Tensor, y: Tensor) -> Tensor:
        loss = loss_of(self.net(x), y)
        self.manual_backward(loss / self.of.accumulate)
        return loss.detach()

    def clip(self, optimizer: Any) -> None:
        for name, bound in ("norm", self.of.clip_norm), ("value", self.of.clip_value):
            if bound is not None:
                self.clip_gradients(optimizer, bound, name)


class Batches:
    """A loader that says where it is, so that a resumed epoch goes on from there."""

    def __init__(self, rank: int) -> None:
        self.content, self.at = batches(rank), 0

    def __len__(self) -> int:
        return len(self.content)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for k in range(self.at % len(self), len(self)):
            self.at = k + 1
            yield self.content[k]

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class Watch(lightning.Callback):
    """Sets the random stream, and notes losses and calls; kills the training."""

    def __init__(self, stop: int | None = None) -> None:
        self.losses: list[float] = []
        self.counts: dict[str, int] = dict.fromkeys(HOOKS, 0)
        self.stop = stop
        for name in HOOKS:
            setattr(self, name, partial(self.count, name))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        start()

    def count(self, name: str, trainer: Any, *_: Any) -> None:
        self.counts[name] += 1
        if name != "on_train_batch_end":
            return
        self.losses.append(float(trainer.callback_metrics["loss"]))
        if len(self.losses) == self.stop:
            trainer.save_checkpoint(Path(trainer.default_root_dir, "last.ckpt"))
            raise Killed


class Killed(BaseException):
    """What ends a training that is to be resumed."""


def trainer_of(
    of: Scenario, watch: Watch, folder: str, *, manual: bool, strategy: Any = None
) -> Any:
    """A quiet trainer; in manual optimization clipping and accumulation are ours."""
    options: dict[str, Any] = {"plugins": [LightningEnvironment()]}
    if not manual:
        options["accumulate_grad_batches"] = of.accumulate
        if of.clip_norm is not None:
            options["gradient_clip_val"] = of.clip_norm
        if of.clip_value is not None:
            options["gradient_clip_val"] = of.clip_value
            options["gradient_clip_algorithm"] = "value"
    if of.processes > 1:
        ddp = DDPStrategy(process_group_backend="gloo")
        options["strategy"] = strategy or ddp
    if of.precision == "bf16":
        options["precision"] = "bf16-mixed"
    if of.precision == "16":
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        options["plugins"].append(MixedPrecision("16-mixed", "cpu", scaler))
    return lightning.Trainer(
        accelerator="cpu",
        devices=of.processes,
        max_epochs=EPOCHS,
        callbacks=[watch],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def train(kind: type[Plain], of: Scenario, rank: int) -> Trace:
    """Train, in two parts if the training is killed."""
    with tempfile.TemporaryDirectory() as folder:
        watch, checkpoint = Watch(of.stop), None
        if of.stop is not None:
            with suppress(Killed):
                fit(kind(of), watch, rank, folder)
            watch.stop, checkpoint = None, Path(folder, "last.ckpt")
        model = fit(kind(of), watch, rank, folder, checkpoint)
    return trace(model, watch.losses, **watch.counts)


def fit(
    model: Plain, watch: Watch, rank: int, folder: str, checkpoint: Path | None = None
) -> Plain:
    """Train, or go on from the checkpoint."""
    manual = not model.automatic_optimization
    trainer = trainer_of(model.of, watch, folder, manual=manual)
    with quiet():
        trainer.fit(model, Batches(rank), ckpt_path=checkpoint)
    watch.counts["global_step"] = trainer.global_step
    if manual:
        # A loop by hand calls manual_backward once per pass, and these hooks with it.
        del watch.counts["on_before_backward"], watch.counts["on_after_backward"]
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice, and a warning of torch's to Lightning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PossibleUserWarning)
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`")
        yield


HOSTS = [
    Host("Lightning, mixin", ("lightning",), partial(train, Automatic)),
    Host("Lightning, manual optimization", ("lightning",), partial(train, Manual)),
    Host(
        "Lightning without the mixin",
        ("lightning",),
        partial(train, Plain),
        expected={(None, column): REFUSED for column in ALL_COLUMNS},
    ),
]
