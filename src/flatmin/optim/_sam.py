"""SAM: the one optimizer, a `torch.optim.Optimizer` around any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from flatmin.core import (
    Decayed,
    Gradients,
    LpBall,
    Method,
    PerGroup,
    Scope,
    Step,
    TwoPoint,
    World,
)
from flatmin.core._checks import radius
from flatmin.core._scope import agree
from flatmin.optim._bases import check_base, check_parameters, check_saved
from flatmin.optim._checks import (
    check_accumulation,
    check_decay,
    check_method,
    check_model,
    check_scope,
)
from flatmin.optim._closure import call_after_loop, call_per_pass
from flatmin.optim._engine import Engine
from flatmin.optim._foreign import check_closure, explained
from flatmin.optim._guard import (
    alone_over,
    check_nothing_lost,
    check_used_is_cleared,
    is_cleared,
    mark_used,
    wait,
)
from flatmin.optim._hooks import untraced
from flatmin.optim._lightning import runs_probes, split
from flatmin.optim._probe import Probe
from flatmin.optim._scaling import check_scaling
from flatmin.optim._shared import RHO, STEP, SharedOptimizer
from flatmin.optim._states import States
from flatmin.optim._statistics import Statistics
from flatmin.optim._trainers import check_trainer


class SAM(SharedOptimizer):
    r"""Sharpness-aware minimization around any base optimizer.

    .. math::
        \min_w \max_{\|\epsilon\|_p \le \rho} L(w + \epsilon), \qquad
        \hat\epsilon = \rho \, \mathrm{sign}(g) |g|^{q-1} / (\|g\|_q^q)^{1/p}, \qquad
        g_\epsilon = \nabla L(w) |_{w + \hat\epsilon}

    The base optimizer steps from ``w`` along :math:`g_\epsilon`. A step takes two
    passes over the batch, which the training loop makes itself:

    Example:
        >>> import torch, flatmin
        >>> model = torch.nn.Linear(4, 2)
        >>> x, y = torch.randn(8, 4), torch.randint(2, (8,))
        >>> base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> optimizer = flatmin.SAM(base, model, rho=0.05)
        >>> for probe in optimizer.probes():
        ...     loss = torch.nn.functional.cross_entropy(model(x), y)
        ...     loss.backward()
        >>> optimizer.step()

    After the loop the weights are ``w`` again, bit for bit, and ``.grad`` holds the
    vector to descend, so clipping and schedulers work as always. Buffers and random
    streams are left as after one pass. ``param_groups`` and ``state`` are the base
    optimizer's own: schedulers, checkpoints and hooks may use either object. Each
    group holds its radius under ``"sam_rho"`` (give one there to override ``rho``)
    and the number of steps under ``"sam_step"``.

    A gradient that is zero or not finite in the first pass gives no perturbation: the
    step is the base optimizer's, and `unperturbed_steps` counts it.

    Differs from the paper: the base optimizer's weight decay acts at ``w`` and does
    not enter the perturbation. The paper's code adds the L2 penalty to the loss, which
    ``decay_in_ascent=True`` does too.

    Args:
        base: a built optimizer; any that needs no closure.
        model: the module that the loop runs. Its buffers are protected, and the
            gradients of all its parameters are cleared before every pass.
        rho: the radius; finite, zero or greater. 0.05 is the paper's advice, its grid
            is 0.01, 0.02, 0.05, 0.1, 0.2, 0.5. With 0 the step is the base's.
        p: which norm bounds the perturbation, from 1 to ``math.inf``.
        norm_over: ``"model"`` takes the norm over all groups together, ``"group"``
            gives each parameter group a ball of its own.
        method: a program other than SAM's; it then says what the ball is, so that
            ``p`` and ``norm_over`` must keep their defaults.
        scope: who shares one perturbation, if the model is in
            DistributedDataParallel: ``"replica"`` (the default, and the paper's
            choice), ``"world"``, or a `flatmin.core.Group` of replicas. With sharded
            parameters (FSDP2, tensor parallelism) it is always ``"world"``.
        decay_in_ascent: whether the loss that is climbed, and descended at ``w + eps``,
            includes ``weight_decay / 2 ||w||^2``.
        protect_buffers: whether buffers, and what else a forward pass changes in the
            model, keep the first pass's update alone.
        replay_rng: whether every pass draws the same random numbers (torch's global
            generators, ``random``, and NumPy's if it is loaded).
        track: whether `statistics` has ``||eps||`` and ``cos(g, g_eps)`` too; this
            keeps the first gradient in memory during the second pass.
        check: ``"replay"`` makes the first pass of every step twice, at the same point,
            and raises a RuntimeError that names the first module to differ, if the
            second run differs: something changes that is not rewound. For a trial of a
            few steps, because each step takes a pass more.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or base and model do not fit.

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412.
    """

    _kept = ("base", "model", "method", "scope", "chosen_scope", "options", "defaults")

    @explained
    def __init__(
        self,
        base: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        p: float = 2.0,
        norm_over: Literal["model", "group"] = "model",
        method: Method | None = None,
        scope: Scope | Literal["replica", "world"] | None = None,
        decay_in_ascent: bool = False,
        protect_buffers: bool = True,
        replay_rng: bool = True,
        track: bool = False,
        check: Literal["replay"] | None = None,
    ) -> None:
        check_base(base)
        check_model(model)
        check_parameters(base, model)
        if norm_over not in ("model", "group"):
            raise ValueError(f"norm_over is 'model' or 'group', got {norm_over!r}.")
        if check not in (None, "replay"):
            raise ValueError(f"check is 'replay' or None, got {check!r}.")
        if method is None:
            ball = LpBall(p)
            method = TwoPoint(metric=ball if norm_over == "model" else PerGroup(ball))
        elif (p, norm_over) != (2.0, "model"):
            raise ValueError("give either method or p and norm_over, not both.")
        check_method(method)
        if decay_in_ascent:
            check_decay(base)
            method = Decayed(method)
        self.base = base
        self.model = model
        self.method = method
        self.chosen_scope = scope
        self.scope = check_scope(scope, model)
        self.options: dict[str, Any] = {
            "protect_buffers": protect_buffers,
            "replay_rng": replay_rng,
            "track": track,
            "check": check,
        }
        # Wrappers of optimizers may have no defaults.
        self.defaults = {**getattr(base, "defaults", {}), RHO: radius(rho)}
        check_saved(base, States(base), method)
        self._complete_groups()
        self._begin({})

    def attach(self, model: nn.Module) -> None:
        """Continue with another module around the same parameters.

        For a model that was wrapped after SAM was built::

            model = DistributedDataParallel(model)
            optimizer.attach(model)

        The scope is chosen anew: the one that was given to SAM, or the default for this
        model.

        Args:
            model: the module that the loop runs from now on.

        Raises:
            TypeError: it is no module.
            ValueError: it does not hold the base's parameters, or does not fit the
                scope.
            RuntimeError: a `probes` loop is open.
        """
        if self._progress.open:
            raise RuntimeError(
                "attach() inside a probes() loop. Call it after the loop."
            )
        check_model(model)
        check_parameters(self.base, model)
        scope = check_scope(self.chosen_scope, model)
        unperturbed = self._engine.unperturbed
        self.__dict__.update(model=model, scope=scope)
        self._engine = self._new_engine()
        self._engine.unperturbed = unperturbed

    def probes(
        self, *, accumulate: bool = False, scaler: GradScaler | None = None
    ) -> Iterator[Probe]:
        """The passes of one step: run the model, call backward, once per probe.

        Gradients are cleared before each pass. In between the weights move; after the
        loop, and as soon as it is left by an exception or a break, they are ``w``.

        Args:
            accumulate: add the result to the gradients already there, so that every
                micro-batch has a perturbation of its own (m-SAM): call `zero_grad`
                first, and make one loop per micro-batch. Micro-batches inside the body
                of one loop share one perturbation instead.
            scaler: the GradScaler that scales the losses in the body. SAM needs it only
                for ``decay_in_ascent`` and for `statistics` without the scale. What
                remains in ``.grad`` is scaled in any case.

        Yields:
            One `Probe` per gradient the method needs.

        Raises:
            RuntimeError: another loop over these parameters is open; this would clear
                gradients that no step has used; the model runs inside of a wrapper that
                SAM was not given; the body left no gradient; or an accumulating loop
                is inside of ``no_sync()``, of a method whose results do not add up, or
                begins with the gradients of the last step.
        """
        progress = self._progress
        if progress.open:
            raise RuntimeError(
                "a probes() loop of this optimizer is still open. Finish it before the "
                "next one; if you hold its iterator, call close() on it."
            )
        step = self._step()
        if accumulate:
            check_accumulation(self.method, self.model)
            check_used_is_cleared(progress, self.model, step.w)
        else:
            check_nothing_lost(progress, self.model, step.w)
        was_ready = progress.ready
        progress.open, progress.ready, progress.depth = True, False, 0
        progress.unscaled = scaler is not None
        try:
            self._memory.go_on(accumulate)
            program = self.method.program(step)
            with alone_over(step.w):
                yield from self._engine.run(
                    program, step, accumulate=accumulate, scaler=scaler
                )
            self._memory.end()
            wait(progress, step.w)
        except BaseException:
            # What an unfinished loop left in .grad is of no use. What earlier loops
            # have accumulated is back in place.
            progress.ready = accumulate and was_ready
            if not accumulate:
                mark_used(step.w)
            raise
        finally:
            progress.open = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Let the base optimizer step along the gradient that the probes found.

        Args:
            closure: torch's convention: clears gradients, runs the model, calls
                backward and returns the loss. It is called once per probe, in place of
                a `probes` loop. After a finished loop it is called once, and must leave
                the gradients alone: some trainers pass one that does nothing.

        Returns:
            What the closure returned at ``w``, a tensor detached; None without closure,
            or if the method makes no pass at ``w``.

        Raises:
            RuntimeError: there is no finished `probes` loop since the last step; the
                closure adds to gradients that were there, or changes those of a loop;
                the closure is that of a trainer which runs its hooks in it; or a
                GradScaler is called with a closure, whose gradients it cannot check, or
                was told to unscale the base and to step SAM.
        """
        value = self._prepare(closure)
        try:
            self.base.step()
        finally:
            self._progress.stepping = False
        self._finish()
        return value

    # A compiled step is the base's arithmetic; there is nothing to compile in the rest.
    @untraced
    def _prepare(self, closure: Callable[[], Any] | None) -> Any:
        """Run the closure, if one is given; refuse a step without a gradient."""
        closure = self._call_pre_hooks(closure)
        check_closure(closure)
        check_scaling(self.method, closure, self._progress.unscaled)
        closure, afterwards = split(closure)
        value = None if closure is None else self._call(closure)
        afterwards()
        if not self._is_idle(closure):
            self._check_ready()
        self._engine.reshard()
        self._begin_step()
        return value

    @untraced
    def _finish(self) -> None:
        if not self._progress.counted:
            self._count()
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (self,), {})

    def _call(self, closure: Callable[[], Any]) -> Any:
        """Run a closure in place of a loop, around one, or once after one."""
        if runs_probes(closure):
            return closure()
        if self._progress.ready and not is_cleared(self._progress):
            return call_after_loop(self._progress, closure)
        check_trainer(closure)
        return call_per_pass(self.probes(), self._trained(), closure)

    @property
    def statistics(self) -> Statistics:
        """What the last finished `probes` loop measured."""
        return self._engine.statistics

    @property
    def sharpness(self) -> Tensor | None:
        """``L(w + eps) - L(w)`` of the last step, if the loop set ``probe.loss``."""
        return self.statistics.sharpness

    @property
    def unperturbed_steps(self) -> int:
        """How many steps since construction had a zero or non-finite gradient.

        Reading it waits for the device.
        """
        return int(self._engine.unperturbed)

    def __repr__(self) -> str:
        return f"SAM({self.method!r}, base={self.base!r})"

    def _new_engine(self) -> Engine:
        return Engine(self.model, self.scope, **self.options)

    def _mean(self, w: list[Tensor], g: Gradients) -> Gradients:
        return self.scope.average(self.model, w, g)

    def _agree(self, x: Tensor) -> Tensor:
        # In scope World all have seen the same gradient.
        return x if isinstance(self.scope, World) else agree(self.model, x)

    def _step(self) -> Step:
        self._check_groups()
        self._memory.clear_trial()
        of = [
            (p, k)
            for k, group in enumerate(self.param_groups)
            for p in group["params"]
            if p.requires_grad
        ]
        self._memory.begin([p for p, _ in of])
        return Step(
            index=self.param_groups[0][STEP],
            model=self.model,
            w=[p for p, _ in of],
            groups=self.param_groups,
            group_of=[k for _, k in of],
            memory=self._memory,
            state=self._states,
            agree=self._agree,
            mean=partial(self._mean, [p for p, _ in of]),
        )


# Keep torch from wrapping `step` in a call of all hooks: the base's step has called the
# global ones.
SAM.step.hooked = True  # pyright: ignore[reportFunctionMemberAccess]
