"""Every method on two real processes, replicated and sharded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from tests.distributed import method_jobs
from tests.distributed.jobs import part
from tests.distributed.method_jobs import STEPS, data_of, network, one_process
from tests.distributed.ranks import WORLD_SIZE, Ranks
from tests.methods.table import NAMES
from tests.reference import chosen, points
from tests.reference.bases import Sgd
from tests.reference.points import Loss, Rule, added, gradients, inner, long

every_method = pytest.mark.parametrize("name", NAMES)
every_base = pytest.mark.parametrize("base", ["sgd", "adamw"])


def leaves(result: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """Weights and state, by place and name."""
    found = [(f"weight {i}", w) for i, w in enumerate(result["weights"])]
    for i, entry in enumerate(result["state"]):
        found += [(f"{name} {i}", value) for name, value in sorted(entry.items())]
    for group in result["groups"]:
        found += [(name, value) for name, value in sorted(group.items())]
    return [(name, torch.tensor(v, dtype=torch.float64)) for name, v in found]


def close(a: dict[str, Any], b: dict[str, Any]) -> None:
    mine, others = leaves(a), leaves(b)
    assert [name for name, _ in mine] == [name for name, _ in others]
    for (name, x), (_, y) in zip(mine, others, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12, msg=name)


#: Every process chooses among its own examples, or looks at single ones of them.
CHOOSING = ("k_sam", "esam", "sparse_sam")


@every_method
@every_base
@pytest.mark.parametrize("scope", ["replica", "world"])
def test_replicas_have_the_same_weights_and_memory(
    name: str, base: str, scope: str, ranks: Ranks
) -> None:
    one, two = ranks.run(method_jobs.replicated, name, base, scope)
    assert one == two
    if scope == "world" and name not in CHOOSING:
        close(one, one_process(name, base))


@pytest.mark.parametrize("name", ["sam", "gsam", "friendly_sam"])
def test_replicas_stretch_their_steps_alike(name: str, ranks: Ranks) -> None:
    one, two = ranks.run(method_jobs.stretched, name)
    assert one == two


@every_method
@pytest.mark.parametrize(
    ("kind", "base"), [("layers", "sgd"), ("layers", "adamw"), ("tensor", "sgd")]
)
def test_sharded_training_is_that_of_one_process(
    name: str, kind: str, base: str, ranks: Ranks
) -> None:
    if (name, kind) in REFUSED:
        return
    one, two = ranks.run(method_jobs.sharded, name, base, kind)
    assert one == two
    if name in CHOOSING and kind == "layers":
        # Each process has its own examples, as in data parallel training.
        other, _ = ranks.run(method_jobs.replicated, name, base, "world")
        close(one, other)
    else:
        close(one, one_process(name, base))


SECOND = "second-order SAM needs whole parameters, got sharded ones"
SINGLE = "sparse SAM needs the gradients of single examples"
REFUSED = {
    ("sparse_sam", "layers"): SINGLE,
    ("sparse_sam", "tensor"): SINGLE,
    ("second_order_sam", "layers"): SECOND,
    ("second_order_sam", "tensor"): SECOND,
    ("gcsam", "tensor"): "centring needs whole weight vectors",
    ("flat_lora", "layers"): "its weight is sharded (DTensor)",
    ("flat_lora", "tensor"): "its weight is sharded (DTensor)",
}


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_a_method_that_cannot_be_sharded_says_so(
    name: str, kind: str, ranks: Ranks
) -> None:
    for message in ranks.run(method_jobs.sharded_error, name, kind):
        assert message.startswith("ValueError: ")
        assert REFUSED[name, kind] in message


def gnp(loss: Loss, w: list[Tensor]) -> list[Tensor]:
    g = gradients(loss, w)
    there = gradients(loss, added(1, w, 1, long([0.1] * len(w), g)))
    return added(0.2, g, 0.8, there)


def gsam(loss: Loss, w: list[Tensor]) -> list[Tensor]:
    g = gradients(loss, w)
    there = gradients(loss, added(1, w, 1, long([0.04] * len(w), g)))
    across = added(1, g, -inner(g, there) / inner(there, there), there)
    return added(1, there, -0.01, across)


EVERY_RHO = [0.1] * len([*network().parameters()])
OWN: dict[str, Rule] = {
    "gnp": gnp,
    "gsam": gsam,
    "cr_sam": points.cr_sam(EVERY_RHO, 0.1, 0.1),
    "gam": points.gam(
        [2 * r for r in EVERY_RHO], [r / 5 for r in EVERY_RHO], 0.6, 0.5, 0.03
    ),
    "second_order_sam": points.second_order_sam([0.05] * len(EVERY_RHO)),
}


def loss_on(rank: int, step: int) -> Loss:
    model = network()
    names = [name for name, _ in model.named_parameters()]
    x, y = (part(rank, t) for t in data_of(step))

    def loss(w: list[Tensor]) -> Tensor:
        out = functional_call(model, dict(zip(names, w, strict=True)), (x,))
        return cross_entropy(out, y)

    return loss


def each_on(rank: int, step: int) -> chosen.Each:
    model = network()
    names = [name for name, _ in model.named_parameters()]
    x, y = (part(rank, t) for t in data_of(step))

    def each(w: list[Tensor]) -> Tensor:
        out = functional_call(model, dict(zip(names, w, strict=True)), (x,))
        return cross_entropy(out, y, reduction="none")

    return each


def k_sam_of_all(shared: bool) -> list[Tensor]:
    """Each replica chooses among its own half; they climb together or alone."""
    w = [p.detach() for p in network().parameters()]
    base = Sgd([0.1] * len(w), 0.9, [1e-3] * len(w))
    for k in range(STEPS):
        each = [each_on(rank, k) for rank in range(WORLD_SIZE)]
        half = len(each[0](w)) // 2
        losses = [chosen.mean_of(e, chosen.worst(e(w), half)) for e in each]
        up = [gradients(loss, w) for loss in losses]
        if shared:
            up = [mean(up)] * WORLD_SIZE
        far = [long([0.05] * len(w), g) for g in up]
        found = [
            gradients(loss, added(1, w, 1, eps))
            for loss, eps in zip(losses, far, strict=True)
        ]
        w = base(w, mean(found))
    return w


def mean(each: list[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(vs).mean(0) for vs in zip(*each, strict=True)]


@pytest.mark.parametrize(("scope", "shared"), [("replica", False), ("world", True)])
def test_replicas_choose_among_their_own_examples(
    scope: str, shared: bool, ranks: Ranks
) -> None:
    one, _ = ranks.run(method_jobs.replicated, "k_sam", "sgd", scope)
    for mine, expected in zip(one["weights"], k_sam_of_all(shared), strict=True):
        found = torch.tensor(mine, dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def mean_of_replicas(rule: Rule) -> list[Tensor]:
    """Each combines its own gradients; what is descended is the mean of the results."""
    w = [p.detach() for p in network().parameters()]
    base = Sgd([0.1] * len(w), 0.9, [1e-3] * len(w))
    for k in range(STEPS):
        w = base(w, mean([rule(loss_on(rank, k), w) for rank in range(WORLD_SIZE)]))
    return w


@pytest.mark.parametrize("name", OWN)
def test_replicas_combine_their_own_gradients(name: str, ranks: Ranks) -> None:
    one, _ = ranks.run(method_jobs.replicated, name, "sgd", "replica")
    for mine, expected in zip(one["weights"], mean_of_replicas(OWN[name]), strict=True):
        found = torch.tensor(mine, dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


#: Averages by DDP and all-reduces of the scope's own, per step.
REDUCTIONS: dict[str, list[list[int]]] = {
    "sam": [[1, 0]],
    "stable_sam": [[0, 1]],
    "gnp": [[0, 1]],
    "gsam": [[0, 1]],
    "wsam": [[0, 2]],
    "sagm": [[0, 1]],
    "friendly_sam": [[1, 1]],
    "vasso": [[1, 1]],
    "cr_sam": [[0, 1]],
    "gam": [[0, 1]],
    "second_order_sam": [[0, 1]],
    "multi_step_sam": [[1, 0]],
    "looksam": [[1, 1], [1, 0], [1, 0], [1, 1]],
    "interval_sam": [[1, 0]],
    "subset_sam": [[1, 0]],
    "alternating_sam": [[1, 0]],
    "stale_sam": [[1, 0]],
    "momentum_sam": [[1, 0]],
    "k_sam": [[1, 0]],
    "esam": [[1, 0]],
    "sparse_sam": [[1, 1], [1, 0], [1, 0], [1, 0]],
    "lookbehind_sam": [[2, 0], [1, 0], [1, 0], [2, 0]],
    "bsam": [[1, 1]],
    "sampa": [[2, 0]],
    "ire": [[1, 0], [1, 1], [1, 0], [1, 1]],
    "part_sam": [[2, 0]],
    "flat_lora": [[1, 0]],
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_step_averages_once_and_what_is_remembered_once_more(
    name: str, ranks: Ranks
) -> None:
    expected = REDUCTIONS[name] if len(REDUCTIONS[name]) > 1 else REDUCTIONS[name] * 4
    for counts in ranks.run(method_jobs.reductions, name, "replica", 4):
        assert counts == expected


def test_ae_sam_shares_one_number_and_averages_once(ranks: Ranks) -> None:
    for counts in ranks.run(method_jobs.reductions, "ae_sam", "replica", 6):
        # A plain step averages what it found already, one of SAM its second pass.
        assert all(count in ([0, 2], [1, 1]) for count in counts)


@every_method
@pytest.mark.parametrize("scope", ["replica", "world"])
def test_an_overflow_on_one_rank_skips_the_step_on_both(
    name: str, scope: str, ranks: Ranks
) -> None:
    one, two = ranks.run(method_jobs.overflowing, name, scope)
    assert one == two
    assert one["scale"] == 2.0**9
    assert one["groups"][0]["sam_step"] == 6
    assert all(value.isfinite().all() for _, value in leaves(one))
