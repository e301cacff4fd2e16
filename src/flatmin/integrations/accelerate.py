"""Hugging Face Accelerate: the passes of a step over what ``prepare`` returned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from flatmin.core._scope import replicas
from flatmin.optim import SAM, Probe

if TYPE_CHECKING:
    from accelerate import Accelerator


def probes(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    accumulate: bool | None = None,
) -> Iterator[Probe]:
    """`SAM.probes` for a prepared model and optimizer.

    SAM may have been built before or after ``prepare``: this attaches it to the model
    as it is wrapped now (`SAM.attach`). In ``with accelerator.accumulate(model)`` each
    micro-batch has a perturbation of its own (m-SAM), and its result is averaged over
    the processes at once, not only with the last micro-batch.

    Example:
        >>> import torch, flatmin
        >>> from accelerate import Accelerator
        >>> from flatmin.integrations.accelerate import probes
        >>> accelerator = Accelerator(cpu=True)
        >>> model = torch.nn.Linear(4, 2)
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> optimizer = flatmin.SAM(base, model, rho=0.05)
        >>> model, optimizer = accelerator.prepare(model, optimizer)
        >>> x, y = torch.randn(8, 4), torch.randint(2, (8,))
        >>> for probe in probes(accelerator, model, optimizer):
        ...     loss = torch.nn.functional.cross_entropy(model(x), y)
        ...     accelerator.backward(loss)
        >>> optimizer.step()
        >>> optimizer.zero_grad()

    Args:
        accelerator: knows the number of micro-batches and the loss scale.
        model: what ``accelerator.prepare`` returned for the model.
        optimizer: what it returned for SAM.
        accumulate: add to the gradients that are there; by default if the accelerator
            accumulates over several micro-batches.

    Returns:
        The passes of one step, or of one micro-batch.

    Raises:
        TypeError: the optimizer is no SAM.
        ValueError: the model does not fit SAM, or is sharded by FSDP1 or DeepSpeed.
        RuntimeError: what `SAM.probes` raises.
    """
    sam = sam_in(optimizer)
    if sam.model is not model:
        sam.attach(model)
    if accumulate is None:
        accumulate = accelerator.gradient_accumulation_steps > 1
    _average_now(model)
    # A schedule-free base moves the weights here: before SAM does, as Trainers will.
    getattr(sam, "train", lambda: None)()
    return sam.probes(accumulate=accumulate, scaler=accelerator.scaler)


def sam_in(optimizer: Any) -> SAM:
    """Return the SAM in what ``accelerator.prepare`` returned.

    Raises:
        TypeError: there is none.
    """
    found = find_sam(optimizer)
    if found is None:
        inner = getattr(optimizer, "optimizer", optimizer)
        raise TypeError(
            f"the optimizer is a {type(inner).__name__}, no SAM. Write optimizer = "
            "flatmin.SAM(base, model) before accelerator.prepare(model, optimizer)."
        )
    return found


def find_sam(optimizer: Any) -> SAM | None:
    """The SAM inside of Accelerate's wrappers, if there is one."""
    while not (optimizer is None or isinstance(optimizer, SAM)):
        optimizer = getattr(optimizer, "optimizer", None)
    return optimizer


def _average_now(model: nn.Module) -> None:
    """Undo ``no_sync()``, in which Accelerate runs all micro-batches but the last.

    SAM adds the micro-batches up by itself, so that the last backward pass would
    average only its own gradient. Accelerate can still end its ``no_sync()``.
    """
    for replica in replicas(model):
        replica.require_backward_grad_sync = True
    sharded: Any = getattr(model, "set_requires_gradient_sync", None)
    if sharded is not None:
        sharded(True)
