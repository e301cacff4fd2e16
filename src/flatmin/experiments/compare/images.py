"""Read the images of a comparison, and refuse too few before anything is trained."""

from __future__ import annotations

from pathlib import Path

from flatmin.experiments.compare.plan import BASE, Comparison, Setting
from flatmin.experiments.datasets import DataSet, images_of, prepared
from flatmin.experiments.errors import BadInput

#: The images of each setting, by its name.
Sets = dict[str, DataSet]


def read(what: Comparison, root: Path) -> Sets:
    """Read the images of each setting.

    Args:
        what: the comparison.
        root: where data sets are.

    Raises:
        BadInput: they are not there, or too few to hold some out and train on a batch
            of the others.
    """
    found: Sets = {}
    for one in what.settings:
        found[one.name] = images_of(what.common(one), root)
        _check_search(what, one, found[one.name])
    return found


def _check_search(what: Comparison, setting: Setting, data: DataSet) -> None:
    """Refuse images that the runs that choose settings could not be trained on."""
    n = len(data.train.y)
    one = what.search(what.candidates(setting, BASE)[0], n, seed=0)
    left = len(prepared(data, one).train.y)
    if left < one.batch_size <= n:
        raise BadInput(
            f"a batch of {one.batch_size} is more than the {left} training images that "
            f"are left while settings are chosen on {n - left}. Use --set "
            f"batch_size={max(1, left // 2)}."
        )
