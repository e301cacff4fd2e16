"""Hugging Face Transformers: a Trainer whose steps are those of SAM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer

from flatmin.core import Scope
from flatmin.integrations._answers import check_answered, check_waits
from flatmin.integrations._batch import Handed
from flatmin.integrations.accelerate import find_sam, probes, sam_in
from flatmin.optim import SAM, Probe

_Items: TypeAlias = Tensor | int | None


class SharpnessAwareTrainer(Trainer):
    """A Trainer with SAM around its optimizer: one perturbation per micro-batch.

    The base optimizer is what the arguments of the Trainer say. The logged loss is the
    one at ``w``; ``"sharpness"`` beside it is the mean of ``L(w + eps) - L(w)`` over
    the steps since the last log. For a Trainer of another class, name this one first::

        class FlatSeq2SeqTrainer(SharpnessAwareTrainer, Seq2SeqTrainer):
            pass

    Example::

        from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments
        from flatmin.integrations.transformers import SharpnessAwareTrainer

        tiny = GPT2Config(vocab_size=8, n_embd=4, n_layer=1, n_head=1)
        words = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8
        args = TrainingArguments(output_dir="runs", max_steps=1, use_cpu=True)
        trainer = SharpnessAwareTrainer(
            GPT2LMHeadModel(tiny), args, train_dataset=words, rho=0.05
        )
        trainer.train()

    Args:
        args: the Trainer's.
        method: builds SAM, as ``method(base, model, rho=rho)``: `flatmin.SAM` (the
            default), another method, or ``functools.partial(flatmin.SAM, p=1)``.
        rho: the radius; None for the method's default.
        scope: who shares a perturbation, if there are several processes; as SAM's.
        kwargs: the Trainer's; ``optimizers=(optimizer, None)`` may hold a base or SAM.

    Attributes:
        probe: the pass that is being made, None outside of one. A ``compute_loss`` that
            counts or collects something must do so only if ``self.probe.index == 0``.

    Raises:
        ValueError: ``optimizers`` holds a SAM, and method, rho or scope is given; the
            optimizer steps in the backward pass; or the method needs more than the
            gradient of one loss, or its results do not add up.
    """

    probe: Probe | None = None

    def __init__(
        self,
        *args: Any,
        method: Callable[..., SAM] | None = None,
        rho: float | None = None,
        scope: Scope | str | None = None,
        **kwargs: Any,
    ) -> None:
        self._build: Callable[..., SAM] = SAM if method is None else method
        self._radius = {} if rho is None else {"rho": rho}
        self._scope: Any = scope
        self._sharpness: dict[int, Tensor] = {}
        super().__init__(*args, **kwargs)
        given = any(option is not None for option in (method, rho, scope))
        if given and find_sam(self.optimizer) is not None:
            raise ValueError(
                "optimizers holds a SAM, to which method, rho and scope would say "
                "nothing. Leave them out, or give its base: optimizers=(base, None)."
            )

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Build a SAM around the Trainer's optimizer, if that is none already."""
        given = [] if model is None else [model]
        optimizer = super().create_optimizer(*given)
        if find_sam(optimizer) is None:
            check_waits(getattr(self.args.optim, "value", self.args.optim))
            built = self._build(optimizer, *(given or [self.model]), **self._radius)
            # The model is wrapped later: SAM chooses its scope when it is attached.
            built.chosen_scope = self._scope
            self.optimizer = optimizer = built
        traits = sam_in(optimizer).method.traits
        check_answered(traits, "the Trainer")
        if self._accumulates and not traits.adds_up:
            raise ValueError(
                "what this method finds in micro-batches does not add up. Use "
                "SharedPerturbationTrainer, or gradient_accumulation_steps=1."
            )
        return optimizer

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: _Items = None
    ) -> Tensor:
        """Run the passes over a micro-batch, and return the loss at ``w``."""
        return self._passes(model, [inputs], num_items_in_batch)[0]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log with the sharpness; passes after a step's first log nothing."""
        if self.probe is not None and self.probe.index > 0:
            return
        if "loss" in logs and self._sharpness:
            total = torch.stack([*self._sharpness.values()]).sum()
            logs["sharpness"] = float(total) / len(self._sharpness)
            self._sharpness.clear()
        super().log(logs, *args, **kwargs)

    @property
    def _accumulates(self) -> bool:
        """Whether each micro-batch has a loop of its own."""
        return self.args.gradient_accumulation_steps > 1

    def _passes(
        self, model: nn.Module, batches: list[Any], items: _Items
    ) -> list[Tensor]:
        """Run all passes over micro-batches that share a perturbation.

        Returns:
            The loss of each at ``w``; of the first pass, if none is made at ``w``.
        """
        reported: list[Tensor] = []
        handed = [Handed(batch) for batch in batches]
        at_w, more = False, self._accumulates
        try:
            for probe in probes(self.accelerator, model, self.optimizer, more):
                self.probe = probe
                losses = self._pass(probe, model, handed, items)
                probe.loss = torch.stack(losses).sum()
                if not (at_w or (reported and probe.perturbed)):
                    reported, at_w = losses, not probe.perturbed
        finally:
            self.probe = None
        sharpness, step = sam_in(self.optimizer).sharpness, self.state.global_step
        if sharpness is not None:
            self._sharpness[step] = self._sharpness.get(step, 0) + sharpness
        return reported

    def _pass(
        self, probe: Probe, model: nn.Module, batches: list[Handed], items: _Items
    ) -> list[Tensor]:
        """Run a pass and return the micro-batches' losses; average gradients once."""
        *first, last = batches
        losses: list[Tensor] = []
        for batch in first:
            with self.accelerator.no_sync(model):
                losses.append(self._backward(probe, model, batch, items))
        return [*losses, self._backward(probe, model, last, items)]

    def _backward(
        self, probe: Probe, model: nn.Module, handed: Handed, items: _Items
    ) -> Tensor:
        """Run the Trainer's own step on the part of the batch that the pass wants."""
        part = handed.to(probe)
        if not probe.wants_part or items is None:
            return super().training_step(model, part, items)
        share = self._count(part) / self._count(handed.batch)
        return super().training_step(model, part, items * share)

    def _count(self, batch: Any) -> Any:
        """How many items the Trainer counts in a batch."""
        return super().get_batch_samples(iter([batch]), 1, self.args.device)[1]


class SharedPerturbationTrainer(SharpnessAwareTrainer):
    """`SharpnessAwareTrainer` with one perturbation for all micro-batches of a step."""

    _batches: list[Any]
    _losses: list[Tensor]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Get the batches; the first call of ``training_step`` runs all of them."""
        self._batches, items = super().get_batch_samples(*args, **kwargs)
        self._losses = []
        return self._batches, items

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: _Items = None
    ) -> Tensor:
        """Run the passes in a step's first call; return a batch's loss at ``w``."""
        if not self._losses:
            self._losses = self._passes(model, self._batches, num_items_in_batch)
        return self._losses.pop(0)

    @property
    def _accumulates(self) -> bool:
        return False
