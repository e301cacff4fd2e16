"""Addition to weights of two bytes, rounded up or down by chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from flatmin.core import _tensors as ts
from flatmin.core._multiple import Entries, Multiple, entries, pick

#: How many entries of a tensor share a block of noise.
_BLOCK = 2**15

#: How many entries an accelerator adds at a time. The CPU adds one block per thread, so
#: that the intermediate tensors fit its cache.
_MANY = 2**22


def add_by_chance_(
    ws: Sequence[Tensor], eps: Entries, seed: int, numbers: Sequence[int]
) -> None:
    """``w <- w + eps`` for weights of two bytes, rounded up or down by chance.

    Of its two neighbours in the dtype of ``w``, the sum takes the nearer one with the
    greater probability, such that its expectation is ``w + eps``; a sum that the dtype
    can represent is taken as it is. Draws nothing from torch's global generators.

    Args:
        ws: the weights, changed in place.
        eps: how far each moves; no entry is None.
        seed: of the noise.
        numbers: of the weights, from which their noise follows, so that processes with
            different parts of other weights round a weight alike.
    """
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = defaultdict(list)
    for i, w in enumerate(ws):
        if w.numel():
            kinds[w.device, w.dtype].append(i)
    for (device, _), at in kinds.items():
        some, own = [ws[i] for i in at], [numbers[i] for i in at]
        noise = _Noise(seed, device, max(own), max(w.numel() for w in some))
        _add_(some, pick(eps, at), noise, own)


def _add_(
    ws: list[Tensor], eps: Entries, noise: _Noise, numbers: Sequence[int]
) -> None:
    """Add to weights of one kind: short ones are joined, long ones are cut."""
    size = _BLOCK * torch.get_num_threads() if ws[0].is_cpu else _MANY
    short = [i for i, w in enumerate(ws) if w.numel() <= _BLOCK]
    for group in ts.groups([ws[i] for i in short], size):
        at = [short[k] for k in group]
        own = [numbers[i] for i in at]
        _add_joined_([ws[i] for i in at], pick(eps, at), noise, own)
    for i in sorted(set(range(len(ws))) - set(short)):
        _add_cut_(ws[i], pick(eps, [i]), noise, numbers[i], size)


def _add_joined_(
    ws: list[Tensor], eps: Entries, noise: _Noise, numbers: Sequence[int]
) -> None:
    """Add to all weights at once."""
    sizes = [w.numel() for w in ws]
    y = _rounded(_sum(ws, eps), noise.of_short(numbers, sizes), ws[0].dtype)
    pairs = zip(torch.split(y, sizes), ws, strict=True)
    ts.copy_(ws, [x.view(w.shape) for x, w in pairs])


def _add_cut_(w: Tensor, eps: Entries, noise: _Noise, number: int, size: int) -> None:
    """Add to a weight, ``size`` entries at a time; ``eps`` has its entry alone."""
    flat = w.reshape(-1)
    (x,) = entries(eps)
    assert x is not None
    cut = (torch.split(t, size) for t in (flat, x.reshape(-1)))
    for k, (piece, x_piece) in enumerate(zip(*cut, strict=True)):
        one = eps.of([x_piece]) if isinstance(eps, Multiple) else [x_piece]
        bits = noise.of_long(number, k * size // _BLOCK, len(piece))
        piece.copy_(_rounded(_sum([piece], one), bits, w.dtype))
    if not w.is_contiguous():
        w.copy_(flat.view(w.shape))


def _sum(ws: Sequence[Tensor], eps: Entries) -> Tensor:
    """``w + eps`` as one new vector of float32."""
    x = _flat([x for x in entries(eps) if x is not None]).float()
    if isinstance(eps, Multiple):
        (x,) = eps.of([x])
        assert x is not None
    return _flat(ws).float().add_(x)


def _flat(xs: Sequence[Tensor]) -> Tensor:
    """All entries in one vector; of one tensor a view, where there is one."""
    return xs[0].reshape(-1) if len(xs) == 1 else torch.cat([x.reshape(-1) for x in xs])


def _rounded(y: Tensor, noise: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to numbers of ``dtype`` by 16 random bits per entry; ``y`` is destroyed."""
    if dtype == torch.bfloat16:
        return _with_fewer_bits(y, noise)
    nearest = y.to(dtype)
    # Read as integers, a number and its neighbour away from zero differ by one.
    beyond = nearest.float().abs() > y.abs()
    low = nearest.view(torch.int16) - beyond.to(torch.int16)
    here, there = low.view(dtype).float(), (low + 1).view(dtype).float()
    up = noise < 2**16 * ((y - here) / (there - here))
    return (low + up.to(torch.int16)).view(dtype)


def _with_fewer_bits(y: Tensor, noise: Tensor) -> Tensor:
    """Add noise to the 16 bits that bfloat16 lacks, and cut them off."""
    top = torch.finfo(torch.bfloat16).max
    # The largest number has no neighbour to carry into. NaN is not below it either.
    if not ts.may_look([y]) or not y.abs().amax() < top:
        noise = noise.masked_fill(~(y.abs() < top), 0)
    y.view(torch.int32).add_(noise).bitwise_and_(-(2**16))
    return y


class _Noise:
    """Sixteen random bits for every entry: a function of seed, tensor and place.

    Drawing them all would cost more than the rest of a step. Here a word for the
    tensor, one for the block and one for the place in it are combined by exclusive or
    (simple tabulation hashing). Any two entries are independent of each other, so mean
    and variance of any sum are those of independent noise.

    Args:
        seed: of the tables.
        device: where they are drawn: copying them there would wait.
        number: the largest of a tensor.
        size: the entries of the largest tensor.

    Reference: Carter, Wegman. Universal Classes of Hash Functions. 1979. Patrascu,
    Thorup. The Power of Simple Tabulation Hashing. 2012, arXiv:1011.5200.
    """

    def __init__(self, seed: int, device: torch.device, number: int, size: int) -> None:
        draw = torch.Generator(device).manual_seed(seed)

        def words(n: int) -> Tensor:
            return torch.randint(
                2**16, (n,), generator=draw, device=device, dtype=torch.int32
            )

        self._places = words(_BLOCK)
        self._blocks = _pairs(words(2**12), words(2**8), -(-size // _BLOCK))
        self._tensors = _pairs(words(2**12), words(2**8), number + 1)

    def of_short(self, numbers: Sequence[int], sizes: Sequence[int]) -> Tensor:
        """Return the noise of tensors of at most a block each, one after the other."""
        pairs = list(zip(numbers, sizes, strict=True))
        own = torch.cat([self._tensors[i].expand(n) for i, n in pairs])
        return torch.cat([self._places[:n] for n in sizes]) ^ own ^ self._blocks[0]

    def of_long(self, number: int, block: int, n: int) -> Tensor:
        """Return the noise of ``n`` entries of a tensor, from this block on."""
        last = block - (-n // _BLOCK)
        own = self._blocks[block:last] ^ self._tensors[number]
        return (own[:, None] ^ self._places).view(-1)[:n]


def _pairs(high: Tensor, low: Tensor, n: int) -> Tensor:
    """The first ``n`` of all pairs of words, combined."""
    rows = high[: -(-n // len(low)), None]
    return (rows ^ low).view(-1)[:n]
