"""Lightning's automatic optimization as a `flatmin.SAM.probes` loop.

Works with ``lightning.pytorch`` and ``pytorch_lightning``, and imports neither.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from flatmin.integrations._lightning import Passes, passes_of
from flatmin.optim import SAM

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Module
else:
    _Module = object


class SharpnessAware(_Module):
    """Mixin for a LightningModule whose ``configure_optimizers`` returns SAM.

    Lightning runs the first pass of a step, as always. Its ``backward`` hook then runs
    the others. So every hook is called once per step, and ``on_after_backward``,
    clipping and ``on_before_optimizer_step`` see the vector that is descended. What
    ``training_step`` logs and returns is that of the first pass: L(w) if the method
    begins at w, as SAM does. `self.log` does nothing in the other passes.

    With ``Trainer(accumulate_grad_batches=k)`` each batch has a perturbation of its own
    (m-SAM). In manual optimization you write the loop, and the mixin only attaches SAM
    to the model as the strategy has wrapped it.

    Example:
        >>> import torch, flatmin
        >>> import lightning.pytorch as L
        >>> from flatmin.integrations.lightning import SharpnessAware
        >>> class Net(SharpnessAware, L.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(4, 2)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         x, y = batch
        ...         return torch.nn.functional.cross_entropy(self.layer(x), y)
        ...
        ...     def configure_optimizers(self):
        ...         base = torch.optim.SGD(self.parameters(), lr=0.1)
        ...         return flatmin.SAM(base, self, rho=0.05)

    Raises:
        ValueError: SAM was given a part of the module.
        TypeError: ``training_step`` fetches its batches itself.
        RuntimeError: ``training_step`` changes its batch, another ``backward`` hides
            the mixin's, or the strategy accumulates gradients itself.
    """

    def on_train_start(self) -> None:
        """Attach SAM to the wrapped model, and prepare to run its passes."""
        super().on_train_start()
        strategy = self.trainer.strategy
        if isinstance(strategy.training_step, Passes):
            # An earlier training was left by an exception.
            del strategy.training_step
        found = [x for x in self.trainer.optimizers if isinstance(x, SAM)]
        if self.automatic_optimization and found:
            _check(self, found[0])
            strategy.training_step = Passes(self, found[0])
        for sam in found:
            if sam.model is self:
                sam.attach(cast("nn.Module", strategy.model))

    def on_train_end(self) -> None:
        """Leave the strategy as it was."""
        super().on_train_end()
        passes = passes_of(self)
        if passes is not None:
            passes.close()
            del self.trainer.strategy.training_step

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Finish the pass that Lightning has begun, and run those that follow."""
        passes = passes_of(self)
        if passes is None or not passes.running:
            super().backward(loss, *args, **kwargs)
        else:
            passes.finish(loss)

    def on_after_backward(self) -> None:
        """Refuse a ``backward`` that has not run the other passes."""
        super().on_after_backward()
        passes = passes_of(self)
        if passes is not None and passes.running:
            passes.close()
            raise RuntimeError(
                f"{type(self).__name__}.backward hides that of SharpnessAware, which "
                "runs the other passes. Write super().backward(loss) in it."
            )

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log as Lightning does, but nothing in the passes after the first."""
        passes = passes_of(self)
        if passes is None or not passes.muted:
            super().log(*args, **kwargs)


def _check(module: Any, sam: SAM) -> None:
    """Refuse a module or strategy that cannot run several passes per batch."""
    wrapped = getattr(sam.model, "module", None)
    if sam.model is not module and wrapped is not module:
        raise ValueError(
            f"SAM was given a {type(sam.model).__name__} and would not bring back what "
            "the rest of the LightningModule changes in a pass, metrics for instance. "
            "Write in configure_optimizers: flatmin.SAM(base, self)."
        )
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        raise TypeError(
            "training_step(dataloader_iter) fetches its batches itself, so every pass "
            "would see another one. Write training_step(self, batch, batch_idx)."
        )
    strategy = module.trainer.strategy
    if strategy.handles_gradient_accumulation:
        raise RuntimeError(
            f"{type(strategy).__name__} accumulates gradients and steps by itself, "
            "where SAM has no say. Use the strategy 'ddp', or ModelParallelStrategy "
            "with fully_shard."
        )
