"""The family: every method by name, what it costs, and in one line what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flatmin.methods._ball import (
    asam,
    fisher_sam,
    layer_sam,
    random_sam,
    sam_on,
    sparse_sam,
    usam,
)
from flatmin.methods._examples import esam, k_sam, matched_sam
from flatmin.methods._mix import coupled_wsam, gsam, pnm, sagm, stable_sam, wsam
from flatmin.methods._points import (
    bsam,
    cr_sam,
    gam,
    lookbehind_sam,
    multi_step_sam,
    second_order_sam,
)
from flatmin.methods._source import (
    friendly_sam,
    gcsam,
    momentum_sam,
    stale_sam,
    vasso,
    zsharp,
)
from flatmin.methods._when import (
    ae_sam,
    alternating_sam,
    interval_sam,
    late_sam,
    looksam,
    ss_sam,
    subset_sam,
)
from flatmin.optim import SAM


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the table of methods.

    Attributes:
        build: from base and model to the optimizer.
        gradients: how many a step takes, in gradients of a whole batch.
        line: what the method does.
    """

    build: Callable[..., SAM]
    gradients: str

    @property
    def line(self) -> str:
        """The first line of the docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]


#: Every method by name; ``SAM`` itself is the first.
METHODS: dict[str, Entry] = {
    "sam": Entry(SAM, "2"),
    "asam": Entry(asam, "2"),
    "fisher_sam": Entry(fisher_sam, "2"),
    "layer_sam": Entry(layer_sam, "2"),
    "usam": Entry(usam, "2"),
    "sam_on": Entry(sam_on, "2"),
    "sparse_sam": Entry(sparse_sam, "2, and single examples"),
    "random_sam": Entry(random_sam, "1"),
    "friendly_sam": Entry(friendly_sam, "2"),
    "vasso": Entry(vasso, "2"),
    "gcsam": Entry(gcsam, "2"),
    "zsharp": Entry(zsharp, "2"),
    "stale_sam": Entry(stale_sam, "1"),
    "momentum_sam": Entry(momentum_sam, "1"),
    "pnm": Entry(pnm, "2"),
    "gsam": Entry(gsam, "2"),
    "wsam": Entry(wsam, "2"),
    "coupled_wsam": Entry(coupled_wsam, "2"),
    "stable_sam": Entry(stable_sam, "2"),
    "sagm": Entry(sagm, "2"),
    "interval_sam": Entry(interval_sam, "1 + 1/k"),
    "late_sam": Entry(late_sam, "1 + share"),
    "ss_sam": Entry(ss_sam, "1 + probability"),
    "ae_sam": Entry(ae_sam, "1 to 2"),
    "looksam": Entry(looksam, "1 + 1/k"),
    "subset_sam": Entry(subset_sam, "1 + share"),
    "matched_sam": Entry(matched_sam, "1 + share"),
    "k_sam": Entry(k_sam, "2 share, and a forward pass"),
    "esam": Entry(esam, "1 + gamma, and a forward pass"),
    "alternating_sam": Entry(alternating_sam, "1"),
    "lookbehind_sam": Entry(lookbehind_sam, "1 + 1/k"),
    "multi_step_sam": Entry(multi_step_sam, "1 + k"),
    "second_order_sam": Entry(second_order_sam, "2, and a Hessian product"),
    "cr_sam": Entry(cr_sam, "3"),
    "gam": Entry(gam, "4"),
    "bsam": Entry(bsam, "2"),
}

__all__ = [
    "METHODS",
    "Entry",
    "ae_sam",
    "alternating_sam",
    "asam",
    "bsam",
    "coupled_wsam",
    "cr_sam",
    "esam",
    "fisher_sam",
    "friendly_sam",
    "gam",
    "gcsam",
    "gsam",
    "interval_sam",
    "k_sam",
    "late_sam",
    "layer_sam",
    "lookbehind_sam",
    "looksam",
    "matched_sam",
    "momentum_sam",
    "multi_step_sam",
    "pnm",
    "random_sam",
    "sagm",
    "sam_on",
    "second_order_sam",
    "sparse_sam",
    "ss_sam",
    "stable_sam",
    "stale_sam",
    "subset_sam",
    "usam",
    "vasso",
    "wsam",
    "zsharp",
]
