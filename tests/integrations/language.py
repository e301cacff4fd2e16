"""A tiny language model from a configuration, and Trainers for it."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Seq2SeqTrainingArguments, Trainer
from transformers.trainer_callback import PrinterCallback

from flatmin.integrations.transformers import SharpnessAwareTrainer

WORDS, LENGTH, ROWS, SIZE = 12, 6, 12, 4
LR, RHO = 0.05, 0.1


def model_of() -> GPT2LMHeadModel:
    """The same weights at every call."""
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=WORDS,
        n_positions=8,
        n_embd=8,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def rows() -> list[dict[str, Tensor]]:
    """Sentences, of which some words at the front have no label."""
    draw = torch.Generator().manual_seed(2)
    found: list[dict[str, Tensor]] = []
    for i in range(ROWS):
        words = torch.randint(WORDS, (LENGTH,), generator=draw)
        labels = words.clone()
        labels[: i % 5] = -100
        found.append({"input_ids": words, "labels": labels})
    return found


def micro_batches() -> list[dict[str, Tensor]]:
    """The batches of an epoch."""
    parts = [rows()[i : i + SIZE] for i in range(0, ROWS, SIZE)]
    keys = ("input_ids", "labels")
    return [
        {key: torch.stack([r[key] for r in part]) for key in keys} for part in parts
    ]


def trainer_of(
    kind: type[Trainer] = SharpnessAwareTrainer,
    model: nn.Module | None = None,
    arguments: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A Trainer that sees `rows` in order and writes nothing that stays."""
    AcceleratorState._reset_state(reset_partial_state=True)

    class InOrder(kind):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows())

    settings: dict[str, Any] = {
        "optim": "sgd",
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "per_device_train_batch_size": SIZE,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "use_cpu": True,
    }
    with tempfile.TemporaryDirectory() as folder:
        args = Seq2SeqTrainingArguments(folder, **{**settings, **(arguments or {})})
    trainer = InOrder(
        model_of() if model is None else model,
        args,
        train_dataset=rows(),  # pyright: ignore[reportArgumentType]
        **options,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def weights(model: nn.Module) -> list[list[float]]:
    return [p.detach().flatten().tolist() for p in model.parameters()]


def logged(trainer: Trainer, name: str) -> list[float]:
    """What the Trainer logged under a name."""
    return [row[name] for row in trainer.state.log_history if name in row]
