"""Rows of the Trainer: with SAM built in, and the stock one given a SAM."""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import partial
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from flatmin.integrations.transformers import SharpnessAwareTrainer
from tests.frameworks.accelerate_host import emulate
from tests.frameworks.judge import ALL_COLUMNS, REFUSED, Host
from tests.frameworks.scenario import (
    EPOCHS,
    LR,
    METHODS,
    SIZE,
    Examples,
    Net,
    Scenario,
    Trace,
    base_of,
    loss_of,
    network,
    optimizer_of,
    schedule_of,
    start,
    trace,
)


class Task(nn.Module):
    """The network with its loss, which is how the Trainer wants a model."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": loss_of(self.net(x), labels)}


class Killed(Exception):
    """Ends a training, as a signal would."""


class Watch(TrainerCallback):
    """Counts what is called; clips by value, which the Trainer has no argument for."""

    def __init__(self, of: Scenario) -> None:
        self.of, self.calls, self.kills = of, Counter[str](), False

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        start()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.calls["step_begin"] += 1

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        self.calls["substep_end"] += 1

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.calls["pre_optimizer_step"] += 1
        if self.of.clip_value is not None:
            nn.utils.clip_grad_value_(model.parameters(), self.of.clip_value)

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.calls["optimizer_step"] += 1

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.calls["step_end"] += 1

    def on_log(self, *_: Any, **__: Any) -> None:
        self.calls["log"] += 1

    def on_save(self, *_: Any, **__: Any) -> None:
        if self.kills:
            raise Killed


class Ordered:
    """Each rank's batches in order; the stream of dropout is left alone."""

    rank = 0

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            Examples(self.rank), SIZE, collate_fn=named, generator=torch.Generator()
        )


def named(examples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    x, labels = map(torch.stack, zip(*examples, strict=True))
    return {"x": x, "labels": labels}


class Stock(Ordered, Trainer):
    """The Trainer of the library."""


class Sharp(Ordered, SharpnessAwareTrainer):
    """That of flatmin."""


def arguments(of: Scenario, folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=SIZE,
        gradient_accumulation_steps=of.accumulate,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_grad_norm=of.clip_norm or 0.0,
        bf16=of.precision == "bf16",
        fp16=of.precision == "16",
        save_strategy="no" if of.stop is None else "steps",
        save_steps=of.stop or 500,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        use_cpu=True,
    )


def trainer_of(
    of: Scenario, rank: int, watch: Watch, folder: str, kind: Any, **more: Any
) -> Any:
    AcceleratorState._reset_state(reset_partial_state=True)
    model = Task(network(of))
    plain = kind is Stock or of.method is None
    base = optimizer_of(of, model) if plain else base_of(model)
    options: dict[str, Any] = {
        "args": arguments(of, folder),
        "train_dataset": Examples(rank),
        "callbacks": [watch],
        "optimizers": (base, schedule_of(base) if of.schedule else None),
    }
    if not plain:
        options |= {"method": METHODS[str(of.method)], "rho": of.rho, **more}
    trainer = (Stock if plain else kind)(model, **options)
    trainer.rank = rank
    trainer.remove_callback(PrinterCallback)
    emulate(trainer.accelerator, of)
    return trainer


def train(of: Scenario, rank: int, kind: Any = Sharp, **more: Any) -> Trace:
    watch = Watch(of)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(of, rank, watch, folder, kind, **more)
        if of.stop is not None:
            watch.kills = True
            try:
                trainer.train()
            except Killed:
                watch.kills = False
            trainer = trainer_of(of, rank, watch, folder, kind, **more)
        trainer.train(resume_from_checkpoint=of.stop is not None)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return trace(trainer.model, losses, **watch.calls)


PACKAGES = ("torch", "transformers", "accelerate")
HOSTS = [
    Host("Transformers", PACKAGES, train),
    # One that steps by itself makes a single pass, which SAM refuses to step along.
    Host(
        "Transformers, stock Trainer",
        PACKAGES,
        partial(train, kind=Stock),
        expected={(None, column): REFUSED for column in ALL_COLUMNS},
    ),
]
