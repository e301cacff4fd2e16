"""Composer: its Trainer calls its events in a closure, which SAM refuses."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from composer.core import Precision  # pyright: ignore[reportMissingImports]
from composer.models import ComposerModel  # pyright: ignore[reportMissingImports]
from composer.trainer import Trainer  # pyright: ignore[reportMissingImports]
from torch import Tensor

from tests.frameworks.judge import ALL_COLUMNS, NONE, REFUSED, Host
from tests.frameworks.scenario import (
    EPOCHS,
    SIZE,
    Examples,
    Scenario,
    Trace,
    loss_of,
    network,
    optimizer_of,
    start,
    trace,
)


class Model(ComposerModel):
    def __init__(self, of: Scenario) -> None:
        super().__init__()
        self.net = network(of)

    def forward(self, batch: Any) -> Tensor:
        return self.net(batch[0])

    def loss(self, outputs: Tensor, batch: Any, *args: Any, **kwargs: Any) -> Tensor:
        return loss_of(outputs, batch[1])


def train(of: Scenario, rank: int = 0) -> Trace:
    model = Model(of)
    trainer = Trainer(
        model=model,
        optimizers=optimizer_of(of, model),
        train_dataloader=torch.utils.data.DataLoader(Examples(rank), SIZE),
        max_duration=EPOCHS,
        precision=Precision.FP32,
        device="cpu",
        progress_bar=False,
        console_stream=None,
        log_to_console=False,
    )
    start()
    trainer.fit()
    return trace(model, [])


# Mixed precision is for CUDA alone. Its own launcher starts several processes.
LEFT_OUT: dict[tuple[str | None, str], str] = {
    (None, column): NONE
    for column in (
        "bf16",
        "fp16",
        "fp16, overflow in the ascent",
        "fp16, overflow in the descent",
    )
}
HOSTS = [
    Host(
        "Composer, Trainer",
        ("mosaicml",),
        train,
        several=False,
        expected=dict.fromkeys(product([None], ALL_COLUMNS), REFUSED) | LEFT_OUT,
    )
]
