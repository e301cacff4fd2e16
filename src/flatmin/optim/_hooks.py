# pyright: reportPrivateUsage=false
"""Hooks of the base optimizer, so that SAM and its base act as one object.

Stepping, saving and loading go through the base, whichever of the two is called. The
base's hooks notify SAM, also when the base alone is stepped or saved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from flatmin.optim._shared import SharedOptimizer

#: Marks functions that torch.compile skips. The public decorator imports the compiler,
#: which takes a second; torch's own optimizers use this one.
untraced: Any = torch._disable_dynamo  # pyright: ignore[reportPrivateImportUsage]


def listen(base: Optimizer, sam: SharedOptimizer) -> None:
    """Make the base notify SAM when it steps, saves and loads.

    The hook for loading comes first, so that a user's hooks find complete groups. The
    hook for saving comes first, so that it sees the state dict before a user's hooks
    change its shape. Wrappers of optimizers may have no hooks; SAM then sees only calls
    of its own.
    """
    listener = _Listener(sam)
    if hasattr(base, "_optimizer_step_pre_hooks"):
        base.register_step_pre_hook(listener.before_step)
        base.register_step_post_hook(listener.after_step)
    if hasattr(base, "_optimizer_state_dict_post_hooks"):
        base.register_state_dict_post_hook(listener.saved, prepend=True)
        base.register_load_state_dict_pre_hook(listener.loading)
        base.register_load_state_dict_post_hook(listener.loaded, prepend=True)


class _Listener:
    """Notifies a SAM by a weak reference: the base must not keep it alive."""

    def __init__(self, sam: SharedOptimizer | None) -> None:
        self._sam = (lambda: None) if sam is None else ref(sam)

    def __reduce__(self) -> Any:
        # A copy of the base belongs to the copy of SAM, which listens by itself.
        return _Listener, (None,)

    @untraced
    def before_step(self, *_: Any) -> None:
        self._tell(lambda sam: sam._before_base())

    @untraced
    def after_step(self, *_: Any) -> None:
        self._tell(lambda sam: sam._after_base())

    def saved(self, _: Optimizer, content: dict[str, Any]) -> None:
        self._tell(lambda sam: sam._complete(content))

    def loading(self, _: Optimizer, content: dict[str, Any]) -> None:
        self._tell(lambda sam: sam._before_loading(content))

    def loaded(self, _: Optimizer) -> None:
        self._tell(lambda sam: sam._after_loading())

    def _tell(self, what: Callable[[SharedOptimizer], None]) -> None:
        sam = self._sam()
        if sam is not None:
            what(sam)
