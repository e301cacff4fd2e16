"""SAM: the one optimizer, a `torch.optim.Optimizer` around any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

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
from flatmin.optim._checks import (
    check_accumulation,
    check_base,
    check_decay,
    check_group,
    check_model,
    check_parameters,
    check_scaling,
    check_scope,
    claim,
)
from flatmin.optim._engine import Engine
from flatmin.optim._memory import StateMemory
from flatmin.optim._probe import Probe, Progress, Statistics

_RHO, _STEP = "sam_rho", "sam_step"
_KEPT = ("base", "model", "method", "scope", "options", "defaults")


class SAM(Optimizer):
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
            DistributedDataParallel: `Replica` (the default, and the paper's choice),
            `World`, or a `Group` of replicas, all in ``flatmin.core``. With sharded
            parameters (FSDP2, tensor parallelism) it is always `World`.
        decay_in_ascent: whether the loss that is climbed, and descended at ``w + eps``,
            includes ``weight_decay / 2 ||w||^2``.
        protect_buffers: whether buffers keep the first pass's update alone.
        replay_rng: whether every pass draws the same random numbers (torch's global
            generators, ``random``, and NumPy's if it is loaded).
        track: whether `statistics` has ``||eps||`` and ``cos(g, g_eps)`` too; this
            keeps the first gradient in memory during the second pass.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range, or base and model do not fit.

    Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
    Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412.
    """

    def __init__(
        self,
        base: Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        p: float = 2.0,
        norm_over: Literal["model", "group"] = "model",
        method: Method | None = None,
        scope: Scope | None = None,
        decay_in_ascent: bool = False,
        protect_buffers: bool = True,
        replay_rng: bool = True,
        track: bool = False,
    ) -> None:
        check_base(base)
        check_model(model)
        check_parameters(base, model)
        if norm_over not in ("model", "group"):
            raise ValueError(f"norm_over is 'model' or 'group', got {norm_over!r}.")
        if method is None:
            ball = LpBall(p)
            method = TwoPoint(metric=ball if norm_over == "model" else PerGroup(ball))
        elif (p, norm_over) != (2.0, "model"):
            raise ValueError("give either method or p and norm_over, not both.")
        if decay_in_ascent:
            check_decay(base.param_groups)
            method = Decayed(method)
        self.base = base
        self.model = model
        self.method = method
        self.scope = check_scope(scope, model)
        self.options = {
            "protect_buffers": protect_buffers,
            "replay_rng": replay_rng,
            "track": track,
        }
        self.defaults = {**base.defaults, _RHO: radius(rho)}
        self._complete_groups()
        self.__setstate__({})

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in _KEPT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What torch does to unpickle an optimizer; its __init__ would build groups
        # and a state of its own, and SAM's are the base's.
        super().__setstate__(state)
        claim(self.base, self)
        self._engine = Engine(self.model, self.scope, **self.options)
        self._memory = StateMemory(self.base)
        self._progress = Progress()

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base optimizer's groups, the same list."""
        return self.base.param_groups

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base optimizer's state, the same mapping."""
        return self.base.state

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
            scaler: the GradScaler that scales the losses in the body. SAM needs to know
                only for ``decay_in_ascent`` and for `statistics` without the scale.
                What remains in ``.grad`` is scaled in any case.

        Yields:
            One `Probe` per gradient the method needs.

        Raises:
            RuntimeError: another loop of this optimizer is open, the body left no
                gradient, or an accumulating loop is inside of ``no_sync()`` or of a
                method whose results do not add up.
        """
        if self._progress.open:
            raise RuntimeError(
                "a probes() loop of this optimizer is still open. Finish it before the "
                "next one; if you hold its iterator, call close() on it."
            )
        if accumulate:
            check_accumulation(self.method, self.model)
        progress = self._progress
        progress.open, progress.ready = True, False
        progress.unscaled = scaler is not None
        try:
            step = self._step()
            if not accumulate or all(p.grad is None for p in step.w):
                self._memory.forget()
            program = self.method(step)
            yield from self._engine.run(
                program, step, accumulate=accumulate, scaler=scaler
            )
            progress.ready = True
        finally:
            progress.open = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Let the base optimizer step along the gradient that the probes found.

        Args:
            closure: torch's convention: clears gradients, runs the model, calls
                backward and returns the loss. It is called once per probe, in place of
                a `probes` loop.

        Returns:
            The loss at ``w`` that the closure returned; None without closure.

        Raises:
            RuntimeError: there is no finished `probes` loop since the last step, or a
                GradScaler called with a closure, whose gradients it cannot check.
        """
        check_scaling(self.method, closure, self._progress.unscaled)
        loss = None
        if closure is not None:
            for probe in self.probes():
                with torch.enable_grad():
                    value = closure()
                if value is not None:
                    probe.loss = value
            loss = self.statistics.loss
        if not self._progress.ready and self._is_trial():
            self.base.step()
            return loss
        if self._progress.open or not self._progress.ready:
            raise RuntimeError(
                "step() needs the gradient of a finished probes() loop. Write: "
                "for probe in optimizer.probes(): loss = ...; loss.backward(). "
                "Then, after the loop, optimizer.step()."
            )
        self._progress.ready = False
        self.base.step()
        self._memory.commit()
        for group in self.param_groups:
            group[_STEP] += 1
        return loss

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

    def zero_grad(self, set_to_none: bool = True) -> None:
        """The base optimizer's."""
        if not self._progress.open:
            self._memory.forget()
        self.base.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer; ``"sam_rho"`` in it overrides rho."""
        self.base.add_param_group(param_group)
        try:
            self._complete_groups()
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's; the groups carry radius and step.

        What a method may remember but does not yet is there as NaN.
        """
        content = self.base.state_dict()
        self._memory.complete(content, self.method)
        return content

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, or that of a plain base optimizer."""
        self.base.load_state_dict(state_dict)
        self._memory.clear_blanks()
        self._complete_groups()

    def register_state_dict_pre_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """The base optimizer's, which is also what the hook is given."""
        return self.base.register_state_dict_pre_hook(hook, prepend)

    def register_state_dict_post_hook(
        self,
        hook: Callable[[Optimizer, dict[str, Any]], dict[str, Any] | None],
        prepend: bool = False,
    ) -> RemovableHandle:
        """The base optimizer's, which is also what the hook is given."""
        return self.base.register_state_dict_post_hook(hook, prepend)

    def register_load_state_dict_pre_hook(
        self,
        hook: Callable[[Optimizer, dict[str, Any]], dict[str, Any] | None],
        prepend: bool = False,
    ) -> RemovableHandle:
        """The base optimizer's, which is also what the hook is given."""
        return self.base.register_load_state_dict_pre_hook(hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """The base optimizer's, which is also what the hook is given."""
        return self.base.register_load_state_dict_post_hook(hook, prepend)

    def __repr__(self) -> str:
        return f"SAM({self.method!r}, base={self.base!r})"

    def _is_trial(self) -> bool:
        """Whether this step is one that torch.distributed.checkpoint makes.

        To find out what the state looks like, it makes a step of length zero along
        gradients of zero.
        """
        ps = [p for group in self.param_groups for p in group["params"]]
        grads = [p.grad for p in ps if p.requires_grad]
        return all(float(group.get("lr", 1)) == 0 for group in self.param_groups) and (
            all(g is not None and not g.any() for g in grads)
        )

    def _mean(self, w: list[Tensor], g: Gradients) -> Gradients:
        return self.scope.average(self.model, w, g)

    def _agree(self, x: Tensor) -> Tensor:
        # In scope World all have seen the same gradient.
        return x if isinstance(self.scope, World) else agree(self.model, x)

    def _complete_groups(self) -> None:
        """Give new groups, and those of a plain optimizer's checkpoint, our entries."""
        for group in self.param_groups:
            check_group({_RHO: self.defaults[_RHO], **group})
        newest = max(int(group.get(_STEP, 0)) for group in self.param_groups)
        for group in self.param_groups:
            group.setdefault(_RHO, self.defaults[_RHO])
            group[_STEP] = newest

    def _step(self) -> Step:
        if any(_STEP not in group for group in self.param_groups):
            self._complete_groups()
        of = [
            (p, k)
            for k, group in enumerate(self.param_groups)
            for p in group["params"]
            if p.requires_grad
        ]
        self._memory.begin([p for p, _ in of])
        return Step(
            index=self.param_groups[0][_STEP],
            model=self.model,
            w=[p for p, _ in of],
            groups=self.param_groups,
            group_of=[k for _, k in of],
            memory=self._memory,
            state=self.base.state,
            agree=self._agree,
            mean=partial(self._mean, [p for p, _ in of]),
        )
