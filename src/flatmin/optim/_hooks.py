# pyright: reportPrivateUsage=false
"""What the base optimizer calls back, so that both objects are one.

A step, a saved and a loaded state go through the base, whichever object they are asked
of. Its own hooks tell SAM, also when somebody steps or saves the base alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from flatmin.optim._shared import SharedOptimizer

#: Marks what torch.compile leaves alone. The public decorator imports the compiler, a
#: second's work; this is the one that torch's own optimizers use.
untraced: Any = torch._disable_dynamo  # pyright: ignore[reportPrivateImportUsage]


def listen(base: Optimizer, sam: SharedOptimizer) -> None:
    """Have the base tell SAM of its steps, and of what it saves and loads.

    Loading hooks come first, so that those of a user find complete groups; that of
    saving comes first, so that it sees the state dict before they change its shape.
    Wrappers of optimizers may have no hooks; SAM then sees its own calls alone.
    """
    listener = _Listener(sam)
    if hasattr(base, "_optimizer_step_pre_hooks"):
        base.register_step_pre_hook(listener.before_step)
        base.register_step_post_hook(listener.after_step)
    if hasattr(base, "_optimizer_state_dict_post_hooks"):
        base.register_state_dict_post_hook(listener.saved, prepend=True)
        base.register_load_state_dict_post_hook(listener.loaded, prepend=True)


class _Listener:
    """Passes on to a SAM that may be gone: the base must not keep it alive."""

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

    def loaded(self, _: Optimizer) -> None:
        self._tell(lambda sam: sam._after_loading())

    def _tell(self, what: Callable[[SharedOptimizer], None]) -> None:
        sam = self._sam()
        if sam is not None:
            what(sam)
