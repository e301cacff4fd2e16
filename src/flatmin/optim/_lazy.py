# pyright: reportPrivateUsage=false
"""Modules that make their parameters when they first see an input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from flatmin.optim._replay import RandomReplay


class LazyReplay:
    """Remembers such modules and the random streams right after parameters are made.

    Parameters are not unmade for the second pass. So for such a module, the second pass
    starts from its state right after making them, and so do the random streams.

    Args:
        made: what to call with a module that has just made its parameters.
        streams: the random streams, if they are replayed.
    """

    def __init__(
        self, made: Callable[[nn.Module], None], streams: RandomReplay | None
    ) -> None:
        self._made = made
        self._streams = streams
        self._modules: Sequence[nn.Module] = ()
        self._unmade: list[nn.Module] = []
        self._hooks: dict[nn.Module, RemovableHandle] = {}
        self._states: dict[nn.Module, Any] = {}

    def begin(self, modules: Sequence[nn.Module]) -> None:
        """Before the first pass: watch the modules without parameters yet.

        Args:
            modules: the same list object as long as the modules are the same.
        """
        self._states = {}
        known = self._unmade if modules is self._modules else modules
        self._modules, self._unmade = modules, [m for m in known if is_unmade(m)]
        for module in self._unmade:
            # After the module's own hook, which makes them.
            self._hooks[module] = module.register_forward_pre_hook(self._note)

    def keep(self) -> None:
        """After the first pass: stop watching."""
        self.finish()

    def rewind(self) -> None:
        """Before a later pass: set the random streams when these modules run.

        Hooks of an earlier pass that did not run the module are gone: the model has
        the hooks again that it had at the start.
        """
        for module in self._states:
            self._hooks[module] = module.register_forward_pre_hook(self._jump)

    def finish(self) -> None:
        """Stop watching."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks = {}

    def _note(self, module: nn.Module, _: Any) -> None:
        # Hooks are a part of the module's state, which this one must not be in.
        self._hooks.pop(module).remove()
        self._states[module] = self._streams.now() if self._streams else None
        self._made(module)

    def _jump(self, module: nn.Module, _: Any) -> None:
        self._hooks.pop(module).remove()
        if self._streams:
            self._streams.set(self._states[module])


def is_unmade(module: nn.Module) -> bool:
    """Whether a module makes its parameters or buffers when it first runs."""
    own: list[Any] = [*module._parameters.values(), *module._buffers.values()]
    return any(is_lazy(t) for t in own)
