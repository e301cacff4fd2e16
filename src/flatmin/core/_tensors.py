# pyright: reportPrivateImportUsage=false, reportPrivateUsage=false
"""Arithmetic on lists of tensors; the one file that calls ``torch._foreach_*``.

Every function takes flat lists and returns new tensors, unless its name ends in ``_``.
Scalars stay 0-dim tensors on the device of the first tensor: nothing here waits for
an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

#: Norms between this and its inverse have squares well inside float32.
_SAFE = 1e-15

#: How many squares are added in float32.
_RUN = 512

#: Not annotated in torch. The second makes one vector of tensors of one dtype, in half
#: the time of reshaping them in Python.
_vector_norm: Any = torch.linalg.vector_norm  # pyright: ignore
_joined: Any = torch._utils._flatten_dense_tensors  # pyright: ignore

_is_cpu = attrgetter("is_cpu")

#: How many products are made at a time: enough to keep an accelerator busy.
_MANY = 2**24

_INTEGER = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def wide(xs: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors, those narrower than float32 widened to it."""
    return [x.float() if x.dtype.itemsize < 4 else x for x in xs]


def as_gradient(x: Tensor, p: Tensor) -> Tensor:
    """``x`` in the dtype that the gradient of ``p`` has to have."""
    return x.to(p.grad_dtype or p.dtype)


def real(xs: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors, a complex one as its real and imaginary parts."""
    return [torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for x in xs]


def largest(xs: Sequence[Tensor]) -> Tensor:
    """``max |x|`` over all entries: float64, 0-dim; NaN if any entry is NaN."""
    return _gather(torch._foreach_norm(list(xs), math.inf)).amax()


def norm(xs: Sequence[Tensor]) -> Tensor:
    """``||x||_2`` over all entries: float64, 0-dim, safe for tiny and huge entries."""
    xs = real(xs)
    if may_look(xs):
        # A float64 accumulator is slow here, and a look at the value costs nothing.
        n = _run_norms(xs).square().sum().sqrt()
        if _SAFE < n < 1 / _SAFE:
            return n
    if _accumulator(xs) == torch.float64 and all(x.dtype.itemsize <= 4 for x in xs):
        # Squares of float32 fit float64 as they are.
        return _euclidean(torch._foreach_norm(list(xs), 2, dtype=torch.float64))
    s = largest(xs)
    s = torch.where(s > 0, s, 1)
    return s * _euclidean(torch._foreach_norm(times(xs, 1 / s), 2))


def total(xs: Sequence[Tensor]) -> Tensor:
    """The sum over all entries, none of them negative: float64, 0-dim."""
    return _gather(torch._foreach_norm(list(xs), 1, dtype=_accumulator(xs))).sum()


def dot(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """``<x, y>`` over all entries, the real part of complex ones: float64, 0-dim."""
    a, b = wide(real(xs)), wide(real(ys))
    pairs = zip(a, b, strict=True)
    return _gather([torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in pairs]).sum()


def times(xs: Sequence[Tensor], c: Tensor) -> list[Tensor]:
    """``c x`` for a 0-dim ``c``, each in its own dtype and on its own device."""
    return list(torch._foreach_mul(list(xs), _like(c, xs)))


def products(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[Tensor]:
    """``x y``, entry by entry, in float32 at least."""
    return list(torch._foreach_mul(wide(xs), wide(ys)))


def times_each_(xs: Sequence[Tensor], cs: Sequence[float]) -> None:
    """``x_i <- c_i x_i``, in place."""
    torch._foreach_mul_(list(xs), list(cs))


def signed_power(xs: Sequence[Tensor], s: Tensor, r: float) -> list[Tensor]:
    """``sign(x) |x / s|^r`` for ``max |x| = s``; ``r = inf`` keeps the largest alone.

    Dividing first keeps the base in [0, 1]: no power of it overflows. The sign of a
    complex number is ``x / |x|``.
    """
    powers = torch._foreach_pow(shares(xs, s), r)
    if any(x.is_complex() for x in xs):
        return [p * torch.sgn(x) for p, x in zip(powers, xs, strict=True)]
    return list(torch._foreach_mul(powers, torch._foreach_sign(list(xs))))


def power_total(xs: Sequence[Tensor], s: Tensor, q: float) -> Tensor:
    """``sum |x / s|^q`` over all entries: float64, 0-dim."""
    return total(torch._foreach_pow(shares(xs, s), q))


def shares(xs: Sequence[Tensor], s: Tensor) -> list[Tensor]:
    """``|x| / s``, exactly 1 where ``|x| = s`` (a product with 1/s would not be)."""
    sizes = torch._foreach_abs(list(xs))
    return list(torch._foreach_div(sizes, _like(s, sizes)))


def zero_unless_(xs: Sequence[Tensor], ok: Tensor) -> None:
    """``x <- x`` where ``ok``, else 0, in place, also where ``x`` is inf or NaN.

    The bits are multiplied, as integers, because ``0 * NaN`` is NaN and a branch on
    ``ok`` would make the host wait for the device; the CPU waits for nothing.
    """
    if may_look([ok]) and ok:
        return
    bits = [x.view(_INTEGER[x.dtype.itemsize]) for x in real(xs)]
    torch._foreach_mul_(bits, _like(ok, bits))


def add_(ws: Sequence[Tensor], xs: Sequence[Tensor]) -> None:
    """``w <- w + x``, in place; rounded once if ``x`` is wider than ``w``."""
    torch._foreach_add_(list(ws), list(xs))


def add_multiple_(
    ws: Sequence[Tensor], c: Tensor, xs: Sequence[Tensor], ok: Tensor
) -> None:
    """``w <- w + c x`` where ``ok``, in place, for a 0-dim ``c``.

    On the CPU every entry is rounded once. Elsewhere the products are made a few
    tensors at a time, so that they do not take as much memory as the weights.
    """
    if may_look([*ws, ok]):
        if ok:
            torch._foreach_add_(list(ws), list(xs), alpha=c.item())
        return
    for at in groups(ws, _MANY):
        products = times([xs[i] for i in at], c)
        zero_unless_(products, ok)
        add_([ws[i] for i in at], products)


def add_times_(ws: Sequence[Tensor], c: float, xs: Sequence[Tensor]) -> None:
    """``w <- w + c x``, in place."""
    torch._foreach_add_(list(ws), list(xs), alpha=c)


def copy_(ws: Sequence[Tensor], xs: Sequence[Tensor]) -> None:
    """``w <- x``, in place."""
    try:
        torch._foreach_copy_(list(ws), list(xs))
    except RuntimeError:
        # Views that conjugate or negate what they show are copied one by one alone.
        for w, x in zip(ws, xs, strict=True):
            w.copy_(x)


def cosine(
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    norm: Callable[[Sequence[Tensor]], Tensor] = norm,
) -> Tensor:
    """``<a, b> / (||a|| ||b||)``: float64, 0-dim; NaN if one is zero.

    From ``1 - ||a/||a|| - b/||b|| ||^2 / 2``, which keeps the digits where the two
    are nearly parallel.
    """
    a, b = wide(real(a)), wide(real(b))
    apart = torch._foreach_sub(times(a, 1 / norm(a)), times(b, 1 / norm(b)))
    return 1 - norm(apart) ** 2 / 2


def _in_memory_order(x: Tensor) -> Tensor:
    """Return ``x``; if it is in channels_last format, as a contiguous view."""
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1) if last and not x.is_contiguous() else x


def groups(xs: Sequence[Tensor], size: int) -> list[list[int]]:
    """Positions in order, cut where the tensors before have ``size`` entries."""
    found: list[list[int]] = []
    before = size
    for i, x in enumerate(xs):
        if before >= size:
            found.append([])
            before = 0
        found[-1].append(i)
        before += x.numel()
    return found


def may_look(xs: Sequence[Tensor]) -> bool:
    """Whether asking for a value costs nothing: on the CPU, outside of a graph."""
    return not torch.compiler.is_compiling() and all(map(_is_cpu, xs))


def _like(c: Tensor, xs: Sequence[Tensor]) -> Any:
    """``c`` once, or once per tensor if they differ in dtype or device."""
    one = xs[0]
    if all(x.dtype == one.dtype and x.device == one.device for x in xs):
        return c.to(one.device, one.dtype)
    return [c.to(x.device, x.dtype) for x in xs]


def _run_norms(xs: Sequence[Tensor]) -> Tensor:
    """``||x||_2`` of runs of entries that make up ``xs``: float64, 1-dim.

    torch adds squares of float32 in float32. The error is up to 1 % of the norm for ten
    million entries, and in the seventh digit at worst for a run of 512. Short tensors
    are joined, because each call costs more than their entries do.
    """
    runs: dict[torch.dtype, list[Tensor]] = {}
    short: dict[torch.dtype, list[Tensor]] = {}
    for x in xs:
        kind, flat = x.dtype, _in_memory_order(x)
        if flat.numel() < 16 * _RUN:
            short.setdefault(kind, []).append(flat)
        elif kind == torch.float64:
            runs.setdefault(kind, []).append(_vector_norm(flat).reshape(1))
        else:
            flat, cut = flat.reshape(-1), flat.numel() // _RUN * _RUN
            rows = flat[:cut].view(-1, _RUN)
            runs.setdefault(kind, []).append(_vector_norm(rows, dim=1))
            short.setdefault(kind, []).append(flat[cut:])
    joined = [_joined(some) for some in short.values()]
    last = [_vector_norm(flat, dtype=torch.float64).reshape(1) for flat in joined]
    return torch.cat([*(torch.cat(some).double() for some in runs.values()), *last])


def _euclidean(norms: Sequence[Tensor]) -> Tensor:
    return _gather(norms).square().sum().sqrt()


def _gather(scalars: Sequence[Tensor]) -> Tensor:
    """One vector of the per-tensor results, on the device of the first."""
    one = scalars[0]
    if not all(s.dtype == one.dtype and s.device == one.device for s in scalars):
        scalars = [s.to(one.device, _accumulator(scalars)) for s in scalars]
    return torch.stack(list(scalars)).to(_accumulator(scalars))


def _accumulator(xs: Sequence[Tensor]) -> torch.dtype:
    return torch.float32 if any(x.device.type == "mps" for x in xs) else torch.float64
