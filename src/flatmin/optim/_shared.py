"""An optimizer that shares its groups, state and hooks with its base."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from flatmin.core import Method
from flatmin.optim._bases import claim
from flatmin.optim._checks import check_group, check_names
from flatmin.optim._engine import Engine
from flatmin.optim._foreign import missing
from flatmin.optim._guard import (
    are_zero,
    end_wait,
    is_cleared,
    is_in_place,
    mark_used,
    mark_zero,
    unused,
)
from flatmin.optim._hooks import listen
from flatmin.optim._lightning import runs_probes
from flatmin.optim._memory import StateMemory
from flatmin.optim._progress import Progress
from flatmin.optim._scaling import (
    calling_scaler,
    check_not_unscaling,
    check_scaling,
    check_unscaled_once,
    given_closure,
    skipped_by_scaler,
)
from flatmin.optim._states import States
from flatmin.optim._trainers import advice

RHO, STEP = "sam_rho", "sam_step"

#: What schedule-free optimizers have beside torch's methods, and trainers look for.
_MODES = ("train", "eval")

#: What to write instead of an assignment to an attribute; the first is that of other
#: libraries.
_ELSEWHERE = {
    "rho": f'for group in optimizer.param_groups: group["{RHO}"] = ...',
    "base": "optimizer = flatmin.SAM(base, model)",
    "model": "optimizer.attach(model)",
    "scope": "optimizer = flatmin.SAM(base, model, scope=...)",
}


class SharedOptimizer(Optimizer):
    """What SAM and its base share, so that a step or a checkpoint may use either.

    Attributes:
        base: the optimizer with the groups and the state.
        method: says what is remembered in its state.
    """

    base: Optimizer
    method: Method
    _engine: Engine
    _kept: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        self._check_at_w("copied or pickled")
        return {name: self.__dict__[name] for name in self._kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the state; torch calls this to unpickle an optimizer, and to load one."""
        if "base" in state:
            self._begin(state)
        else:
            self.base.__setstate__(state)
            self._after_loading()

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; refuse one that no step would follow."""
        if name == "rho" or (name in _ELSEWHERE and name in self.__dict__):
            raise AttributeError(
                f"optimizer.{name} = ... would change no step. Write "
                f"{_ELSEWHERE[name]}."
            )
        super().__setattr__(name, value)

    # Hidden from type checkers, so that they report missing attributes.
    if not TYPE_CHECKING:  # pragma: no branch

        def __getattr__(self, name: str) -> Any:
            base = self.__dict__.get("base")
            if name in _MODES and hasattr(base, name):
                # Trainers call train() in every pass; a second call changes nothing.
                if name == "eval":
                    self._check_at_w("put into eval mode")
                return getattr(base, name)
            told = missing(name)
            if told is not None:
                raise AttributeError(told, name=name, obj=self)
            # Raises the original error again, even one from within a property.
            return object.__getattribute__(self, name)

    def _begin(self, state: dict[str, Any]) -> None:
        # torch's __init__ would build groups and a state of its own.
        super().__setstate__(state)
        claim(self.base, self)
        listen(self.base, self)
        self._engine = self._new_engine()
        self._states = States(self.base)
        self._memory = StateMemory(self.base, self._states)
        self._progress = Progress()
        mark_used(self._trained())

    @abstractmethod
    def _new_engine(self) -> Engine:
        """Build the engine for the model as it is wrapped now."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base optimizer's groups, the same list."""
        progress: Progress | None = self.__dict__.get("_progress")
        if progress is not None and progress.open:
            check_not_unscaling()
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.base.param_groups = groups
        self._complete_groups()

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base optimizer's state, the same mapping."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.base.state = state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients as the base does, and drop the result of a finished loop.

        Those that FSDP2 has not yet reduced are dropped too.
        """
        # Some bases have a zero_grad without arguments.
        self.base.zero_grad(**({} if set_to_none else {"set_to_none": False}))
        if not self._progress.open:
            self._engine.drop_unreduced()
            self._memory.forget()
            end_wait(self._progress)
            if not set_to_none:
                mark_zero(self._trained())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer; ``"sam_rho"`` in it overrides rho."""
        self.base.add_param_group(param_group)
        try:
            self._complete_groups()
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's; the groups carry radius and step.

        What a method may remember, but does not yet, is NaN in it.
        """
        content = self.base.state_dict()
        if not self._states.is_plain:
            self._complete(content)
        return content

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, or that of a plain base optimizer."""
        self._memory.expect(state_dict)
        self.base.load_state_dict(state_dict)
        if not self._states.is_plain:
            self._after_loading()

    def _complete(self, content: dict[str, Any]) -> None:
        """Add what a distributed checkpoint needs to the base's state dict."""
        self._check_at_w("saved")
        if "param_groups" in content and "state" in content:
            self._memory.complete(content, self.method)

    def _before_loading(self, content: dict[str, Any]) -> None:
        self._memory.expect(content)

    def _after_loading(self) -> None:
        """Give groups of a plain optimizer's checkpoint our entries."""
        self._states.rejoin_groups()
        self._memory.take_over()
        self._memory.clear_blanks()
        self._complete_groups()

    def _check_at_w(self, what: str) -> None:
        if "_engine" in self.__dict__ and self._engine.away:
            raise RuntimeError(
                f"SAM is {what} inside a probes() loop while the weights are at "
                "w + eps. Do it after the loop."
            )

    def register_state_dict_pre_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """Register the hook with the base, which is also what the hook is given."""
        return self.base.register_state_dict_pre_hook(hook, prepend)

    def register_state_dict_post_hook(
        self,
        hook: Callable[[Optimizer, dict[str, Any]], dict[str, Any] | None],
        prepend: bool = False,
    ) -> RemovableHandle:
        """Register the hook with the base, which is also what the hook is given."""
        return self.base.register_state_dict_post_hook(hook, prepend)

    def register_load_state_dict_pre_hook(
        self,
        hook: Callable[[Optimizer, dict[str, Any]], dict[str, Any] | None],
        prepend: bool = False,
    ) -> RemovableHandle:
        """Register the hook with the base, which is also what the hook is given."""
        return self.base.register_load_state_dict_pre_hook(hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """Register the hook with the base, which is also what the hook is given."""
        return self.base.register_load_state_dict_post_hook(hook, prepend)

    def _call_pre_hooks(
        self, closure: Callable[[], Any] | None
    ) -> Callable[[], Any] | None:
        """Call the hooks of this object; the base's step calls the global ones."""
        for hook in self._optimizer_step_pre_hooks.values():
            given: dict[str, Any] = {} if closure is None else {"closure": closure}
            changed = hook(self, (self,), given)
            if changed is not None:
                args, kwargs = changed
                closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        return closure

    def _begin_step(self) -> None:
        """Note that `step` calls the base now."""
        progress = self._progress
        progress.stepping, progress.counted, progress.depth = True, False, 0
        self._memory.before_base()

    def _before_base(self) -> None:
        """Check a step of the base; its own hook calls this, even without `step`."""
        if self._progress.open:
            raise RuntimeError(
                "the base optimizer steps inside a probes() loop, where the weights "
                "may be at w + eps. Call step() after the loop."
            )
        if not self._progress.stepping and self._progress.ready:
            check_scaling(self.method, None, self._progress.unscaled)
            check_unscaled_once(stepped=self.base, other=self)
        if self._progress.depth == 0:
            self._progress.follows = is_in_place(self._progress)
            self._memory.before_base()
        self._progress.depth += 1

    def _after_base(self) -> None:
        """Count the step, once the base has finished its outermost one."""
        self._progress.depth -= 1
        if self._progress.depth > 0:
            return
        if skipped_by_scaler(self.base):
            self._progress.offered = True
        else:
            self._count()

    def _count(self) -> None:
        """Count the base's step, and keep what the method remembers."""
        progress = self._progress
        progress.counted = True
        # The base may have cleared them since.
        followed = progress.follows and is_cleared(progress)
        ours = progress.stepping or followed or is_in_place(progress)
        if not (progress.ready and ours):
            # A plain step, of the base alone: the loop before it was given up.
            self._memory.forget()
            if self._is_trial():
                self._memory.write_blanks(self.method)
                return
        self._memory.commit()
        self._complete_groups()
        for group in self.param_groups:
            group[STEP] += 1
        mark_used(self._trained())
        end_wait(progress)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """False; GradScaler reads this in each of its steps, before it unscales.

        So SAM learns that it was asked to step, though the scaler may skip the step. It
        also refuses a closure here, because the scaler would not check its gradients.
        """
        if calling_scaler() is not None:
            check_scaling(self.method, given_closure(), unscaled=True)
            self._progress.offered = True
            check_unscaled_once(stepped=self, other=self.base)
        return False

    def _trained(self) -> list[Tensor]:
        """The trainable parameters of the base, in its order."""
        ps = [p for group in self.param_groups for p in group["params"]]
        return [p for p in ps if p.requires_grad]

    def _is_idle(self, closure: Callable[[], Any] | None) -> bool:
        """Whether a trainer's pass was skipped: then the step has no new gradient."""
        skips = closure is not None and runs_probes(closure)
        return skips and not self._progress.ready and not unused(self._trained())

    def _check_ready(self) -> None:
        """Refuse a step without a gradient."""
        progress = self._progress
        ready = progress.ready and not is_cleared(progress)
        if progress.open or not (ready or self._is_trial()):
            raise RuntimeError(
                "step() needs the gradient of a finished probes() loop. Write: "
                "for probe in optimizer.probes(): loss = ...; loss.backward(). "
                f"Then, after the loop, optimizer.step().{advice()}"
            )

    def _is_trial(self) -> bool:
        """Whether this step is one that torch.distributed.checkpoint makes.

        To find out what the state looks like, it makes a step of length zero along
        gradients of zero.
        """
        rates = [group.get("lr", 1) for group in self.param_groups]
        if any(rate is None or float(rate) != 0 for rate in rates):
            return False
        gradients = [p.grad for p in self._trained()]
        there = [g for g in gradients if g is not None]
        return len(there) == len(gradients) and are_zero(there)

    def _check_groups(self) -> None:
        """Complete groups that were added to the base; refuse what nothing reads."""
        if any(STEP not in group for group in self.param_groups):
            self._complete_groups()
        check_names(self.param_groups, self.defaults)

    def _complete_groups(self) -> None:
        """Give new groups, and those of a plain optimizer's checkpoint, our entries."""
        for group in self.param_groups:
            check_group({RHO: self.defaults[RHO], **group})
        newest = max(int(group.get(STEP, 0)) for group in self.param_groups)
        for group in self.param_groups:
            if STEP not in group:
                # This optimizer does not guard gradients from before.
                mark_used(group["params"])
            group.setdefault(RHO, self.defaults[RHO])
            group[STEP] = newest
