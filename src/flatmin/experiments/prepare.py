"""Build a run's labels, network, optimizer and schedule, or refuse its settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from flatmin.experiments.batches import Batches
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, Files, Series, flip_labels
from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import FORECASTERS, READERS, build
from flatmin.experiments.tasks import task_of
from flatmin.methods import METHODS, RENAMED
from flatmin.optim import SAM

#: The share of a group's examples that a pass has, or the option that says it, by
#: method; for sparse_sam the option that says how many examples find the mask.
_SHARES: dict[str, str | float] = {
    "split_rwp": 0.5,
    "subset_sam": "share",
    "late_subset_sam": "share",
    "matched_sam": "share",
    "k_sam": "share",
    "esam": "gamma",
}
_COUNTS = {"sparse_sam": "m"}

#: Methods that give each of two passes a part of the examples, and no pass all of them.
_SPLITTING = {"split_rwp"}


def check_measurable(experiment: Experiment, data: DataSet) -> None:
    """Refuse before training what could not be measured after it.

    Raises:
        BadInput: sharpness or spectra are asked for, and images are read from files, or
            weights are sharded or have 16 bits.
    """
    if experiment.flatness_rho is None and not experiment.spectrum_at:
        return
    why = None
    if isinstance(data.train, Files):
        why = f"all images in memory, and those of {data.name} are read from files"
    elif experiment.strategy == "fsdp":
        why = "the weights in one piece, and strategy fsdp shards them"
    elif experiment.precision == "bf16-true":
        why = "weights of 32 bits, and precision bf16-true has 16"
    if why is not None:
        raise BadInput(
            f"sharpness and spectra need {why}. Use --set flatness_rho=null"
            f"{' spectrum_at=[]' if experiment.spectrum_at else ''}."
        )


def noisy_labels(experiment: Experiment, data: DataSet) -> Tensor:
    """Return the labels to train ``[n]``, with the experiment's noise.

    For a series, return the positions of its windows.
    """
    if isinstance(data.train, Series):
        return data.train.y
    return flip_labels(
        data.train.y.cpu(),
        experiment.noise,
        len(data.classes),
        experiment.seed,
        true_class=experiment.true_class,
    )


def network(experiment: Experiment, classes: int, channels: int) -> nn.Module:
    """Build the network with the initial weights of the experiment's seed.

    Args:
        experiment: names it.
        classes: length of its output rows: the classes, or the steps of a forecast.
        channels: of the images, or of the series; 0 of sentences.

    Raises:
        BadInput: there is no such network, it has another task, or it does not take
            these options.
    """
    _check_task(experiment)
    shown = {} if experiment.horizon is None else {"lookback": experiment.lookback}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(experiment.seed)
        try:
            built = build(
                experiment.model,
                classes,
                channels,
                experiment.weights,
                **experiment.model_options,
                **shown,
            )
        except BadInput:
            raise
        except Exception as refused:
            raise BadInput(f"model {experiment.model}: {refused}") from None
    if experiment.channels_last:
        # Module.to() refuses weights of five dimensions.
        for t in (*built.parameters(), *built.buffers()):
            if t.dim() == 4:
                t.data = t.data.contiguous(memory_format=torch.channels_last)
    return built


def _check_task(experiment: Experiment) -> None:
    """Refuse a network that was made for another task."""
    model, horizon, tokens = experiment.model, experiment.horizon, experiment.tokens
    if horizon is not None and model not in FORECASTERS:
        raise BadInput(
            f"horizon {horizon} asks for a forecast, and model {model} makes none. "
            f"Use --set model={' or '.join(FORECASTERS)}."
        )
    if tokens is not None and model not in READERS:
        raise BadInput(
            f"tokens {tokens} asks for sentences, and model {model} reads none. "
            f"Use --set model={' or '.join(READERS)}."
        )
    if horizon is None and model in FORECASTERS:
        raise BadInput(
            f"model {model} forecasts a series. Use --set horizon=96 --set data=etth1, "
            "or another network."
        )
    if tokens is None and model in READERS:
        raise BadInput(
            f"model {model} reads sentences. Use --set tokens=64 --set data=sst2, or "
            "another network."
        )


def check_pass(
    experiment: Experiment, network: nn.Module, x: Tensor, outputs: int
) -> None:
    """Refuse a network that cannot be trained on such images.

    Args:
        experiment: names the network.
        network: on the device of ``x``; its running statistics stay.
        x: as few images as a pass may have, see `fewest`.
        outputs: length of its output rows.

    Raises:
        BadInput: the forward pass fails, or returns something else than such rows.
    """
    before = [buffer.clone() for buffer in network.buffers()]
    train_mode(experiment, network)
    try:
        with torch.no_grad():
            found = network(x)
    except Exception as refused:
        size = " x ".join(map(str, x.shape[1:][-2:]))
        unit = "pixels" if experiment.horizon is None else "numbers"
        unit = unit if experiment.tokens is None else "word pieces"
        raise BadInput(
            f"model {experiment.model} cannot train on passes of {len(x)} or more "
            f"{task_of(experiment).examples} of {size} {unit}: {refused}"
        ) from None
    # The rows of a forecast are those of its channels.
    rows = x.shape[:1] if experiment.horizon is None else x.shape[:2]
    if not isinstance(found, Tensor) or found.shape != (*rows, outputs):
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise BadInput(
            f"model {experiment.model} with these model_options returns {shape}, not "
            f"{[*rows, outputs]}."
        )
    for buffer, value in zip(network.buffers(), before, strict=True):
        buffer.copy_(value)


def fewest(experiment: Experiment, examples: int) -> int:
    """Return how few examples a pass of the experiment's method may have.

    Args:
        experiment: names the method; ``accumulate`` cuts its passes.
        examples: of a group.
    """
    name = _method(experiment)
    taken = examples
    if (share := _SHARES.get(name)) is not None:
        taken = round(_option(experiment, name, share) * examples)
    if (count := _COUNTS.get(name)) is not None:
        taken = round(_option(experiment, name, count))
    return max(1, min(taken, examples) // experiment.accumulate)


def _method(experiment: Experiment) -> str:
    """Return the present name of the experiment's method."""
    return RENAMED.get(experiment.method, experiment.method)


def _option(experiment: Experiment, name: str, option: str | float) -> float:
    """Return the number that an option of a method has; `optimizer` refuses others."""
    if not isinstance(option, str):
        return option
    default = signature(METHODS[name].build).parameters[option].default
    value = experiment.method_options.get(option, default)
    return value if isinstance(value, int | float) else default


def train_mode(experiment: Experiment, model: nn.Module) -> None:
    """Put a model into training mode; frozen BatchNorm keeps its statistics."""
    model.train()
    if experiment.freeze_norm:
        for layer in model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()


def optimizer(experiment: Experiment, model: nn.Module) -> SAM:
    """Build the method around the base optimizer.

    Method "sgd" is SAM with radius 0, which is the base optimizer bit for bit, in one
    pass.

    Raises:
        BadInput: the method does not take these options.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    rates: dict[str, Any] = {"lr": experiment.lr}
    rates["weight_decay"] = experiment.weight_decay
    base: Optimizer
    if experiment.optimizer != "sgd":
        adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        base = adam[experiment.optimizer](weights, **rates)
    else:
        momentum, nesterov = experiment.momentum, experiment.nesterov
        base = torch.optim.SGD(weights, momentum=momentum, nesterov=nesterov, **rates)
    if experiment.method == "sgd":
        return SAM(base, model, rho=0.0)
    # JSON has no infinity.
    options = {
        name: math.inf if value == "inf" else value
        for name, value in experiment.method_options.items()
    }
    try:
        return METHODS[_method(experiment)].build(
            base, model, rho=experiment.rho, **options
        )
    except (TypeError, ValueError) as refused:
        raise BadInput(f"method {experiment.method}: {refused}") from None


def check_groups(experiment: Experiment, batches: Batches, method: SAM) -> None:
    """Refuse groups that the method cannot take.

    Raises:
        BadInput: there are several per process, and the method cannot add them up; or
            there is one example in each, and the method splits them.
    """
    if batches.groups > 1 and not method.method.traits.adds_up:
        raise BadInput(
            f"method {experiment.method} takes a process's part of the batch as one "
            f"group. Use --set m={experiment.batch_size // batches.share.world}."
        )
    passed = batches.examples // experiment.accumulate
    if _method(experiment) in _SPLITTING and passed < 2:
        raise BadInput(
            f"method {experiment.method} splits the examples of a pass, and there is "
            f"{passed}. Use --set m={2 * experiment.accumulate}, or a larger m."
        )


def schedule(
    experiment: Experiment, optimizer: Optimizer, per_epoch: int, steps: int
) -> LambdaLR:
    """Build the learning rate's schedule: a linear warmup, then a cosine to zero.

    Args:
        experiment: says how many epochs it rises.
        optimizer: whose rate it is.
        per_epoch: steps of an epoch.
        steps: of the whole run.

    Raises:
        BadInput: the rate would rise until the end.
    """
    warmup = warmup_steps(experiment, per_epoch, steps)
    return LambdaLR(optimizer, _cosine(steps, warmup))


def warmup_steps(experiment: Experiment, per_epoch: int, steps: int) -> int:
    """Return in how many steps the learning rate rises.

    Args:
        experiment: says how many epochs these are.
        per_epoch: steps of an epoch.
        steps: of the whole run.

    Raises:
        BadInput: the rate would rise until the end.
    """
    warmup = round(min(experiment.warmup * per_epoch, steps))
    if warmup == steps:
        raise BadInput(
            f"warmup of {experiment.warmup:g} epochs leaves none of the {steps} steps. "
            "Use --set warmup=0."
        )
    return warmup


def _cosine(steps: int, warmup: int) -> Callable[[int], float]:
    """The learning rate of a step, relative to the highest."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / (steps - warmup)
        return (1 + math.cos(math.pi * done)) / 2

    return factor
