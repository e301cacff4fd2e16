"""fastai: a callback that runs the passes of a method in each batch of a Learner."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, cast

from fastai.callback.core import Callback  # pyright: ignore[reportMissingImports]
from fastai.callback.fp16 import MixedPrecision  # pyright: ignore[reportMissingImports]
from fastai.callback.training import GradientAccumulation  # pyright: ignore[reportMissingImports]
from fastai.torch_core import find_bs  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.optim import Optimizer

from flatmin.integrations._answers import check_answered
from flatmin.integrations._batch import Handed
from flatmin.optim import SAM, Probe


class SharpnessAware(Callback):
    """Trains a fastai ``Learner`` with a sharpness-aware method.

    The Learner's optimizer, one of torch's in an ``OptimWrapper``, is the base. The
    first pass is the Learner's own; the others follow its backward pass, before
    gradients are clipped. With ``GradientAccumulation`` every micro-batch has a
    perturbation of its own. ``learn.loss`` and ``learn.pred`` are those at ``w``.

    Callbacks may change the prediction and the loss in ``after_pred``, ``after_loss``
    and ``before_backward``; these run in every pass. All other events run once.

    Example::

        learn = Learner(
            dls, model, loss_func=F.cross_entropy,
            opt_func=partial(OptimWrapper, opt=torch.optim.AdamW),
            cbs=SharpnessAware(rho=0.05),
        )

    Args:
        method: `flatmin.SAM` or one of its relatives, such as `flatmin.gsam`.
        options: the method's, ``rho`` among them.

    Raises:
        TypeError: the Learner's optimizer is fastai's own.
        ValueError: the method asks for more than the gradient of a loss.
    """

    #: After all that changes the batch or draws random numbers (MixUp is 90).
    order = 1000
    run_valid = False

    def __init__(self, method: Callable[..., SAM] = SAM, **options: Any) -> None:
        super().__init__()
        self.method, self.options = method, options
        self._probes: Generator[Probe] | None = None
        self._handed = Handed(None)

    def before_fit(self) -> None:
        """Wrap the optimizer, or attach it to a model that was wrapped since."""
        self._close()
        wrapper = self.learn.opt
        base = getattr(wrapper, "opt", None)
        if isinstance(base, SAM):
            if base.model is not self.learn.model:
                base.attach(self.learn.model)
        elif isinstance(base, Optimizer):
            wrapper.opt = self.method(base, self.learn.model, **self.options)
            check_answered(wrapper.opt.method.traits, "fastai")
        else:
            raise TypeError(
                f"SharpnessAware wraps an optimizer of torch's, and the Learner has "
                f"fastai's {type(wrapper).__name__}. Write: Learner(..., "
                "opt_func=partial(OptimWrapper, opt=torch.optim.AdamW))."
            )

    def before_batch(self) -> None:
        """Open the passes, and let the Learner make the first."""
        self._close()
        more = bool(self.learn._grab_cbs(GradientAccumulation))
        probes = self.learn.opt.opt.probes(accumulate=more)
        self._probes = cast("Generator[Probe]", probes)
        self._probe = next(self._probes)
        self._handed = Handed((self.learn.xb, self.learn.yb))
        self.learn.xb, self.learn.yb = self._handed.to(self._probe)

    def before_backward(self) -> None:
        """Give a part of the batch the weight of the whole batch.

        ``GradientAccumulation`` weights the loss by the examples it has seen.
        """
        if self.learn._grab_cbs(GradientAccumulation):
            share = find_bs(self.learn.yb) / find_bs(self._handed.batch[1])
            self.learn.loss_grad = self.learn.loss_grad / share

    def after_backward(self) -> None:
        """Make the other passes."""
        if self._probes is None:
            return
        self._probe.loss = self.learn.loss
        seen = [(self._probe.perturbed, self._outcome())]
        try:
            for probe in self._probes:
                self._pass(probe)
                seen.append((probe.perturbed, self._outcome()))
        finally:
            self._close()
        at_w = next((found for away, found in seen if not away), seen[0][1])
        self.learn.pred, self.learn.loss, self.learn.loss_grad = at_w

    def after_cancel_batch(self) -> None:
        """Leave the passes of a batch that a callback has cancelled."""
        self._close()

    def after_cancel_backward(self) -> None:
        """Leave the passes of a batch whose backward pass was cancelled."""
        self._close()

    def _pass(self, probe: Probe) -> None:
        """Do what the Learner does between ``before_batch`` and ``after_backward``."""
        learn = self.learn
        learn.xb, learn.yb = self._handed.to(probe)
        for callback in learn._grab_cbs(MixedPrecision):
            callback.before_batch()
        learn.pred = learn.model(*learn.xb)
        learn("after_pred")
        learn.loss_grad = learn.loss_func(learn.pred, *learn.yb)
        learn.loss = learn.loss_grad.clone()
        learn("after_loss")
        learn("before_backward")
        learn._backward()
        probe.loss = learn.loss

    def _outcome(self) -> tuple[Any, Tensor, Tensor]:
        return self.learn.pred, self.learn.loss, self.learn.loss_grad

    def _close(self) -> None:
        """Bring the weights back to ``w``, however the batch has ended."""
        probes, self._probes = self._probes, None
        if probes is not None:
            probes.close()
            self.learn.xb, self.learn.yb = self._handed.batch
            self._handed = Handed(None)
