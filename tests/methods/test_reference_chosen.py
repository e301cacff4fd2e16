"""Methods that choose examples or weights, or nest steps, against their formulas."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin import SAM
from flatmin.core.examples import HighestLoss, HighestRise, Matched
from flatmin.core.nested import Lookbehind
from flatmin.core.sparse import FisherMasked
from flatmin.methods import (
    esam,
    k_sam,
    lookbehind_sam,
    matched_sam,
    sparse_sam,
)
from tests.methods.against import (
    ONE,
    STEPS,
    TWO,
    Pair,
    batch_of,
    close,
    each_of,
    pair_of,
    passes,
)
from tests.problems import Quadratic, untouched
from tests.reference import chosen

GROUPS = pytest.mark.parametrize("groups", [ONE, TWO], ids=["one", "two"])
KINDS = pytest.mark.parametrize("kind", ["sgd", "adamw"])


def train(pair: Pair, optimizer: SAM, repeat: int = 1) -> list[list[list[Tensor]]]:
    """All the steps, each batch so often; the displacements of every pass."""
    return [list(passes(optimizer, pair.net, k // repeat)) for k in range(STEPS)]


@GROUPS
@KINDS
@pytest.mark.parametrize(("share", "n"), [(0.25, 3), (0.5, 6), (0.01, 1), (1.0, 12)])
def test_k_sam_equals_its_formula(kind: str, groups: Any, share: float, n: int) -> None:
    pair = pair_of(kind, groups)
    train(pair, k_sam(pair.base, pair.net, rho=pair.rho, share=share))
    losses = [each_of(pair, k) for k in range(STEPS)]
    pair.check(chosen.k_sam(losses, pair.start, pair.reference, pair.rhos, n), {})


@GROUPS
@KINDS
@pytest.mark.parametrize(("beta", "gamma", "n"), [(0.5, 0.5, 6), (0.8, 0.2, 2)])
def test_esam_equals_its_formula(
    kind: str, groups: Any, beta: float, gamma: float, n: int
) -> None:
    pair = pair_of(kind, groups)
    optimizer = esam(pair.base, pair.net, rho=pair.rho, beta=beta, gamma=gamma)
    away = train(pair, optimizer)
    moves = [[bool(e.any()) for e in step[1]] for step in away]
    assert any(moves[0])
    # The forward pass and the descent stand at the same point.
    for step in away:
        assert len(step) == 3
        assert all(torch.equal(a, b) for a, b in zip(step[1], step[2], strict=True))
    losses = [each_of(pair, k) for k in range(STEPS)]
    w = chosen.esam(
        losses, pair.start, pair.reference, pair.rhos, moves, beta=beta, n=n
    )
    pair.check(w, {})


@GROUPS
@KINDS
@pytest.mark.parametrize(
    ("share", "first", "decay"), [(0.25, 3, 0.9), (0.5, 6, 0.0), (0.01, 1, 1.0)]
)
def test_a_matched_ascent_equals_its_formula(
    kind: str, groups: Any, share: float, first: int, decay: float
) -> None:
    pair = pair_of(kind, groups, 0.03)
    options: dict[str, Any] = {"share": share, "decay": decay}
    train(pair, matched_sam(pair.base, pair.net, rho=pair.rho, **options))
    losses = [each_of(pair, k) for k in range(STEPS)]
    w, ratio = chosen.matched_sam(
        losses, pair.start, pair.reference, pair.rhos, first, share, decay
    )
    pair.check(w, {})
    noted = pair.base.param_groups[0]["sam_matched"]
    assert noted == pytest.approx(ratio, rel=1e-10)


@pytest.mark.parametrize("size", [0.0, math.inf])
def test_a_length_that_is_no_number_is_not_matched(size: float) -> None:
    model = Quadratic()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = matched_sam(base, model, share=0.25)
    for probe in optimizer.probes():
        probe.take(torch.ones(8))
        probe.backward(model() * (size if probe.index == 0 else 1.0))
    optimizer.step()
    assert base.param_groups[0]["sam_matched"] == 2.0


def test_esam_moves_each_tensor_with_its_probability_and_always_as_far() -> None:
    pair = Pair()
    optimizer = esam(pair.base, pair.net, rho=0.1, beta=0.3, gamma=0.5)
    counts = torch.zeros(len(pair.start))
    for _ in range(40):
        for step in train(pair, optimizer):
            moved = torch.tensor([float(e.any()) for e in step[1]])
            counts += moved
            far = chosen.length(step[1])
            assert far == pytest.approx(0.1 / 0.3 if moved.any() else 0.0)
    shares = counts / (40 * STEPS)
    # Four standard deviations of a coin of 1000 throws.
    torch.testing.assert_close(shares, torch.full_like(shares, 0.3), atol=0.06, rtol=0)
    assert len(set(shares.tolist())) > 1


def test_esam_takes_no_forward_pass_if_all_examples_descend() -> None:
    pair = Pair()
    optimizer = esam(pair.base, pair.net, beta=0.5, gamma=1.0)
    assert {len(step) for step in train(pair, optimizer)} == {2}


@GROUPS
@KINDS
@pytest.mark.parametrize(
    ("share", "every", "samples", "m"), [(0.5, 4, 5, 1), (0.1, 25, 3, 4)]
)
def test_sparse_sam_equals_its_formula(
    kind: str, groups: Any, share: float, every: int, samples: int, m: int
) -> None:
    pair = pair_of(kind, groups)
    options = {"share": share, "every": every, "samples": samples, "m": m}
    optimizer = sparse_sam(pair.base, pair.net, rho=pair.rho, **options)
    away = train(pair, optimizer)
    assert [len(step) for step in away[:2]] == [samples + 2, 2]
    examples = [list(range(k * m, (k + 1) * m)) for k in range(samples)]
    keep = int(share * sum(t.numel() for t in pair.start))
    losses = [each_of(pair, k) for k in range(STEPS)]
    w, mask = chosen.sparse_sam(
        losses, pair.start, pair.reference, pair.rhos, examples, keep, every
    )
    assert sum(float(t.sum()) for t in mask) == keep
    pair.check(w, {})
    for p, expected in zip(pair.net.parameters(), mask, strict=True):
        assert torch.equal(pair.base.state[p]["sam_mask"], expected)


def test_sparse_sam_begins_again_where_the_batch_ends() -> None:
    pair = Pair()
    optimizer = sparse_sam(pair.base, pair.net, every=9, samples=14)
    seen: list[Tensor] = []
    for probe in optimizer.probes():
        x, y = probe.take(*batch_of(0))
        seen.append(x)
        F.cross_entropy(pair.net(x), y).backward()
    whole = batch_of(0)[0]
    for k, x in enumerate(seen[1:-1]):
        assert torch.equal(x, whole[k % 12 : k % 12 + 1])
    assert torch.equal(seen[0], whole)
    assert torch.equal(seen[-1], whole)


@GROUPS
@KINDS
@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (2, 0.5), (5, 0.2), (3, 0.01)])
def test_lookbehind_sam_equals_its_formula(
    kind: str, groups: Any, k: int, alpha: float
) -> None:
    pair = pair_of(kind, groups, 0.05)
    optimizer = lookbehind_sam(pair.base, pair.net, rho=pair.rho, k=k, alpha=alpha)
    blocks = STEPS // k
    for step in range(blocks * k):
        away = list(passes(optimizer, pair.net, step // k))
        assert len(away) == (2 if step % k == 0 else 1)
    losses = [each_of(pair, i) for i in range(blocks)]
    w = chosen.lookbehind_sam(
        losses, pair.start, pair.reference, pair.rhos, k=k, alpha=alpha
    )
    parameters: list[Tensor] = [*pair.net.parameters()]
    close(parameters, w)


@pytest.mark.parametrize("build", [k_sam, esam])
@pytest.mark.parametrize("way", ["mean", "twice", "silent", "matrix"])
def test_a_loop_that_hides_the_losses_is_told_what_to_write(
    build: Any, way: str
) -> None:
    pair = Pair()
    optimizer = build(pair.base, pair.net)
    error, words = {
        "mean": (ValueError, 'reduction="none"'),
        "twice": (RuntimeError, "once per pass"),
        "silent": (RuntimeError, r"probe\.backward\(losses\)"),
        "matrix": (ValueError, r"got shape \(12, 1\)"),
    }[way]
    with untouched(pair.net), pytest.raises(error, match=words):
        hide(optimizer, pair.net, way)


def hide(optimizer: SAM, net: nn.Module, way: str) -> None:
    """A loop that does not tell the loss of each example, and once."""
    x, y = batch_of(0)
    for probe in optimizer.probes():
        losses = F.cross_entropy(net(x), y, reduction="none")
        told = {
            "mean": [losses.mean()],
            "matrix": [losses[:, None]],
            "twice": [losses, losses],
            "silent": [],
        }
        for loss in told[way]:
            probe.backward(loss)


@pytest.mark.parametrize("build", [k_sam, esam])
def test_a_pass_with_another_number_of_examples_is_refused(build: Any) -> None:
    pair = Pair()
    optimizer = build(pair.base, pair.net)
    at = 2 if build is esam else 1
    with pytest.raises(ValueError, match="chosen among 12, got 8"):
        shrink(optimizer, pair.net, at)


def shrink(optimizer: SAM, net: nn.Module, at: int) -> None:
    """A loop that has fewer examples in one of its passes."""
    for probe in optimizer.probes():
        n = 8 if probe.index == at else 12
        x, y = probe.take(*(t[:n] for t in batch_of(0)))
        probe.backward(F.cross_entropy(net(x), y, reduction="none"))


def test_only_a_pass_for_losses_alone_has_no_graph() -> None:
    pair = Pair()
    graphs: list[bool] = []
    for probe in k_sam(pair.base, pair.net).probes():
        x, y = probe.take(*batch_of(0))
        losses = F.cross_entropy(pair.net(x), y, reduction="none")
        graphs.append(losses.requires_grad)
        probe.backward(losses)
    assert graphs == [False, True, True]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Matched(0.0, 0.9), "share must be in (0, 1]"),
        (lambda: Matched(0.5, 1.1), "decay must be in [0, 1]"),
        (lambda: HighestLoss(0.0), "share must be in (0, 1]"),
        (lambda: HighestRise(1.5, 0.5), "beta must be in (0, 1]"),
        (lambda: HighestRise(0.5, 0.0), "gamma must be in (0, 1]"),
        (lambda: FisherMasked(0.0, 1, 1), "share must be in (0, 1]"),
        (lambda: FisherMasked(0.5, 0, 1), "every must be at least 1"),
        (lambda: FisherMasked(0.5, 1, 0), "samples must be at least 1"),
        (lambda: FisherMasked(0.5, 1, 1, 0), "m must be at least 1"),
        (lambda: Lookbehind(0, 0.5), "k must be at least 1"),
        (lambda: Lookbehind(2, 1.5), "alpha must be in (0, 1]"),
    ],
)
def test_impossible_settings_are_refused(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        build()
