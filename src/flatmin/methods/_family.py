"""The family: every method, what it costs, and in one line what it does.

A new method is imported here, gets a row in the table below and its name in
``__all__``; `flatmin` and `flatmin.methods` export the names in that list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flatmin.methods._adapters import flat_lora
from flatmin.methods._ball import (
    asam,
    fisher_sam,
    layer_sam,
    random_sam,
    usam,
)
from flatmin.methods._examples import esam, k_sam, matched_sam, split_rwp
from flatmin.methods._mix import coupled_wsam, gnp, gsam, pnm, sagm, stable_sam, wsam
from flatmin.methods._parts import part_sam
from flatmin.methods._points import (
    bsam,
    cr_sam,
    gam,
    lookbehind_sam,
    multi_step_sam,
    second_order_sam,
)
from flatmin.methods._sampa import sampa
from flatmin.methods._source import (
    friendly_sam,
    gcsam,
    momentum_sam,
    stale_sam,
    vasso,
    zsharp,
)
from flatmin.methods._weights import ire, sam_on, sparse_sam
from flatmin.methods._when import (
    ae_sam,
    alternating_sam,
    interval_sam,
    late_sam,
    late_subset_sam,
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


#: The table of methods; `flatmin.methods.METHODS` has them by name.
ROWS = (
    Entry(asam, "2"),
    Entry(fisher_sam, "2"),
    Entry(layer_sam, "2"),
    Entry(usam, "2"),
    Entry(sam_on, "2"),
    Entry(sparse_sam, "2, and single examples"),
    Entry(random_sam, "1"),
    Entry(split_rwp, "1"),
    Entry(ire, "1"),
    Entry(friendly_sam, "2"),
    Entry(vasso, "2"),
    Entry(gcsam, "2"),
    Entry(zsharp, "2"),
    Entry(stale_sam, "1"),
    Entry(momentum_sam, "1"),
    Entry(sampa, "2"),
    Entry(gnp, "2"),
    Entry(gsam, "2"),
    Entry(wsam, "2"),
    Entry(coupled_wsam, "2"),
    Entry(stable_sam, "2"),
    Entry(sagm, "2"),
    Entry(interval_sam, "1 + 1/k"),
    Entry(late_sam, "1 + share"),
    Entry(late_subset_sam, "1 + late share"),
    Entry(ss_sam, "1 + probability"),
    Entry(ae_sam, "1 to 2"),
    Entry(looksam, "1 + 1/k"),
    Entry(subset_sam, "1 + share"),
    Entry(matched_sam, "1 + share"),
    Entry(k_sam, "2 share, and a forward pass"),
    Entry(esam, "1 + gamma, and a forward pass"),
    Entry(alternating_sam, "1"),
    Entry(lookbehind_sam, "1 + 1/k"),
    Entry(multi_step_sam, "1 + k"),
    Entry(second_order_sam, "2, and a Hessian product"),
    Entry(cr_sam, "3"),
    Entry(gam, "4"),
    Entry(bsam, "2"),
    Entry(part_sam, "3"),
    Entry(flat_lora, "1"),
)

#: Former names, for experiments that were recorded under these.
RENAMED = {"pnm": "gnp"}

__all__ = [
    "ae_sam",
    "alternating_sam",
    "asam",
    "bsam",
    "coupled_wsam",
    "cr_sam",
    "esam",
    "fisher_sam",
    "flat_lora",
    "friendly_sam",
    "gam",
    "gcsam",
    "gnp",
    "gsam",
    "interval_sam",
    "ire",
    "k_sam",
    "late_sam",
    "late_subset_sam",
    "layer_sam",
    "lookbehind_sam",
    "looksam",
    "matched_sam",
    "momentum_sam",
    "multi_step_sam",
    "part_sam",
    "pnm",
    "random_sam",
    "sagm",
    "sam_on",
    "sampa",
    "second_order_sam",
    "sparse_sam",
    "split_rwp",
    "ss_sam",
    "stable_sam",
    "stale_sam",
    "subset_sam",
    "usam",
    "vasso",
    "wsam",
    "zsharp",
]
