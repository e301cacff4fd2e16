"""What a measurement must leave as it was, besides the weights."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from flatmin.diagnostics._guards import refuse_change


@contextmanager
def still(model: nn.Module) -> Generator[None]:
    """Restore buffers and the global random streams afterwards.

    A DataLoader draws from torch's stream whenever it is read, shuffling or not.
    Inside, transformers do without the fast path that torch takes where no gradient is
    asked for: it sets padded positions to 0, so that it is another function.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    numpy = sys.modules.get("numpy")
    python = random.getstate()
    drawn = numpy.random.get_state() if numpy else None
    places = [(m._buffers, dict(m._buffers)) for m in model.modules()]  # pyright: ignore[reportPrivateUsage]
    kept = [(b, b.detach().clone()) for b in model.buffers() if _is_whole(b)]
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.random.fork_rng(_accelerators(model)):  # pyright: ignore
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(python)
        if numpy:
            numpy.random.set_state(drawn)
        for buffers, then in places:
            # A pass may have replaced buffers by new ones.
            buffers.update(then)
        _restore(kept)


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Within, the model is in evaluation mode; then each module is in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def collecting(layers: Sequence[_BatchNorm]) -> Generator[None]:
    """Collect running statistics anew within; then give layers their momenta again.

    They become the mean of all batches, each with the same weight.
    """
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@contextmanager
def weights_kept(model: nn.Module) -> Generator[None]:
    """Restore weights that are changed within.

    Raises:
        ValueError: some were.
    """
    kept = [(p, p.detach().clone()) for p in model.parameters() if _is_whole(p)]
    changed = False
    try:
        yield
    finally:
        changed = _restore(kept)
    if changed:
        refuse_change()


def versions(w: Sequence[Tensor]) -> list[int]:
    """How often each was written to, by counts of torch."""
    return [-1 if p.is_inference() else p._version for p in w]


def _restore(kept: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Write only what has changed, as an expanded tensor takes no writes.

    Values are compared, because writing to ``.data`` leaves no other trace.
    """
    changed = [(x, value) for x, value in kept if differs(x, value)]
    for x, value in changed:
        with torch.inference_mode(x.is_inference()), torch.no_grad():
            if x.shape == value.shape:
                x.copy_(value)
            else:
                x.data = value
    return bool(changed)


def _is_whole(x: Tensor) -> bool:
    """Whether it holds its values itself, and is not made of other tensors."""
    return not is_traceable_wrapper_subclass(x)


def differs(x: Tensor, value: Tensor) -> bool:
    """Whether two tensors differ in shape or in a bit of their values."""
    if x.shape != value.shape:
        return True
    pairs = zip(strided(x), strided(value), strict=True)
    return any(not torch.equal(bits(a), bits(b)) for a, b in pairs)


def bits(x: Tensor) -> Tensor:
    """The bits of a tensor, as bytes."""
    return x.contiguous().flatten().view(torch.uint8)


def strided(x: Tensor) -> list[Tensor]:
    """What holds the values of ``x``: of a sparse tensor, their places too."""
    if x.layout == torch.strided:
        return [x.resolve_conj().resolve_neg()]
    pairs = x.to_sparse_coo().coalesce()
    return [pairs.indices(), pairs.values()]


def _accelerators(model: nn.Module) -> list[int]:
    """The devices of the model whose streams have to be kept."""
    return [d.index for d in {p.device for p in model.parameters()} if d.type == "cuda"]
