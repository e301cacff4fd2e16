"""skorch: a mixin that runs the passes of a method in a net's training step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from skorch import NeuralNet
from skorch.hf import AccelerateMixin
from skorch.utils import TeeGenerator
from torch import nn
from torch.optim import Optimizer

from flatmin.integrations._answers import check_answered
from flatmin.integrations._batch import Handed
from flatmin.optim import SAM

PREFIX = "optimizer__"
RADIUS, GROUP_RADIUS = "rho", "sam_rho"
#: What the mixin itself gives a method.
GIVEN = {"base", "model", "options"}


class SharpnessAware(NeuralNet):
    """Trains a skorch net with a sharpness-aware method.

    ``optimizer`` is the base, as without the mixin. Arguments ``optimizer__...`` that
    the method knows are the method's, so ``optimizer__rho`` is the radius. Callbacks
    are called once per batch, ``on_grad_computed`` sees the vector that is descended,
    and the loss in the history is that at ``w``.

    Example:
        >>> import torch
        >>> from skorch import NeuralNetClassifier
        >>> from flatmin.integrations.skorch import SharpnessAware
        >>> class Net(SharpnessAware, NeuralNetClassifier):
        ...     pass
        >>> net = Net(torch.nn.Linear(4, 2), optimizer__rho=0.05, max_epochs=2,
        ...           criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0)
        >>> x, y = torch.randn(32, 4), torch.randint(2, (32,))
        >>> net.fit(x, y).optimizer_.param_groups[0]["sam_step"]
        2

    Args:
        args: the net's own.
        method: what wraps the base, `flatmin.SAM` or a relative such as `flatmin.gsam`.
        kwargs: the net's own.

    Raises:
        TypeError: the class has skorch's ``AccelerateMixin`` too.
        ValueError: base and method have an argument of the same name, or a parameter
            group has a radius under ``"rho"``; or the method asks for more than the
            gradient of a loss.
        RuntimeError: the net has a second optimizer.
    """

    def __init__(
        self, *args: Any, method: Callable[..., SAM] = SAM, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method = method

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, AccelerateMixin):
            raise TypeError(
                f"{cls.__name__} has SharpnessAware and skorch's AccelerateMixin, "
                "which hides SAM's passes. Leave one of them out, or write the loop "
                "with Accelerate itself."
            )

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> SharpnessAware:
        """Build the base as skorch does, and the method around it."""
        named = self.get_all_learnable_params()
        groups, options = self.get_params_for_optimizer("optimizer", named)
        mine = {name: options.pop(name) for name in self._mine() if name in options}
        self._check_names(mine)
        base = self.optimizer(*groups, **options)
        self._check_groups(base)
        self.optimizer_ = self.method(base, self._everything(), **mine)
        check_answered(self.optimizer_.method.traits, "skorch")
        return self

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Run the passes, call ``on_grad_computed`` once, and step."""
        self._check_alone()
        step = self.passes(batch, **fit_params)
        self.notify(
            "on_grad_computed",
            named_parameters=TeeGenerator(self.get_all_learnable_params()),
            batch=batch,
            training=True,
        )
        self.optimizer_.step()
        return step

    def passes(
        self, batch: Any, *, accumulate: bool = False, **fit_params: Any
    ) -> dict[str, Any]:
        """Run the method's passes over a batch; a ``train_step`` of your own calls it.

        Args:
            batch: what the loader gave.
            accumulate: add to the gradients that are there (see `flatmin.SAM.probes`).
            fit_params: passed on to the module.

        Returns:
            What ``train_step_single`` returned at ``w``, or in the first pass if the
            method makes none there.
        """
        at_w, first, handed = None, None, Handed(batch)
        for probe in self.optimizer_.probes(accumulate=accumulate):
            step = self.train_step_single(handed.to(probe), **fit_params)
            probe.loss = step["loss"]
            first = first or step
            if not probe.perturbed:
                at_w = at_w or step
        return at_w or first or {}

    def set_params(self, **kwargs: Any) -> SharpnessAware:
        """Set parameters; a radius acts at once, other options need a new optimizer."""
        mine = {key: kwargs.pop(key) for key in ("method",) if key in kwargs}
        # Which options are the method's depends on the method.
        vars(self).update(mine)
        names = {PREFIX + name for name in self._mine()}
        mine |= {key: kwargs.pop(key) for key in names & kwargs.keys()}
        vars(self).update(mine)
        super().set_params(**kwargs)
        if not self.initialized_:
            return self
        self._check_groups(self.optimizer_)
        if mine.keys() == {PREFIX + RADIUS}:
            for group in self.optimizer_.param_groups:
                group[GROUP_RADIUS] = mine[PREFIX + RADIUS]
        elif mine:
            self.initialize_optimizer()
        return self

    def _mine(self) -> set[str]:
        """The names of the method's arguments."""
        found = {*_arguments(self.method), *_arguments(SAM)}
        return found - GIVEN

    def _everything(self) -> nn.Module:
        """Return what a step runs: the module, with the criterion if it has a state."""
        names = [*self._modules, *self._criteria]
        parts = [getattr(self, f"{name}_") for name in names]
        found = [part for part in parts if isinstance(part, nn.Module)]
        stateful = [part for part in found if part.state_dict()]
        return stateful[0] if len(stateful) == 1 else nn.ModuleList(found)

    def _check_names(self, mine: dict[str, Any]) -> None:
        both = sorted(mine.keys() & _arguments(self.optimizer).keys())
        if both:
            raise ValueError(
                f"{PREFIX}{both[0]} may be the method's or the base optimizer's. Make "
                "`optimizer` a function of (parameters, lr) that builds the base with "
                f"a {both[0]} of its own; {PREFIX}{both[0]} is then the method's."
            )

    def _check_groups(self, optimizer: Optimizer) -> None:
        """Refuse a radius under a name that is never read."""
        if RADIUS in optimizer.defaults:
            return
        found = [
            group.pop(RADIUS) for group in optimizer.param_groups if RADIUS in group
        ]
        if found:
            raise ValueError(
                f'a parameter group has "{RADIUS}": {found[0]}, which nobody reads. '
                f'The radius of a group is "{GROUP_RADIUS}".'
            )

    def _check_alone(self) -> None:
        others = [
            name
            for name, value in vars(self).items()
            if isinstance(value, Optimizer) and value is not self.optimizer_
        ]
        if others:
            raise RuntimeError(
                f"this net has another optimizer, {others[0]}, which the step of "
                "SharpnessAware would leave out. Override train_step, and call "
                "self.passes(batch) there."
            )


def _arguments(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)
