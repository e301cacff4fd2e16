"""The folder of a comparison, the file that describes it, and its images.

FOLDER/
comparison.json         what decides the numbers, and fingerprints of images and weights
SETTING/search/ARM/POINT/seed-K     runs to choose from, tested on held-out images
SETTING/final/ARM/POINT/seed-K      runs with the chosen settings, on all images
landscapes.json, results.json, table.md, report.html, *.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from flatmin.experiments.compare.plan import BASE, Comparison, Setting
from flatmin.experiments.datasets import SETS, DataSet, images_of, prepared
from flatmin.experiments.errors import BadInput
from flatmin.experiments.jobs import Request
from flatmin.experiments.runs.asked import COMPARISON
from flatmin.experiments.runs.files import (
    check,
    check_outside,
    differences,
    read_json,
    write_json,
)
from flatmin.experiments.runs.record import weights_sha256

#: The images of each setting, by its name.
Sets = dict[str, DataSet]


class Stored(BaseModel):
    """The contents of ``comparison.json``.

    Attributes:
        comparison: its settings.
        data_sha256: the fingerprint of the images, by the name of the setting.
        images: how many there are to train on, by the name of the setting.
        weights_sha256: the fingerprint of the file of initial weights, if any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    comparison: Comparison
    data_sha256: dict[str, str]
    images: dict[str, int]
    weights_sha256: str | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a file that has lost the images of a setting.

        Raises:
            ValueError: the names differ.
        """
        del context
        names = {one.name for one in self.comparison.settings}
        if not names == self.data_sha256.keys() == self.images.keys():
            every = ", ".join(sorted(names))
            raise ValueError(f"data_sha256 and images must have the keys {every}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a comparison is.

    Attributes:
        root: its folder.
        data: where data sets are.
        images: how many there are to train on, by the name of the setting.
        data_sha256: the fingerprint of the images, likewise.
    """

    root: Path
    data: Path
    images: dict[str, int]
    data_sha256: dict[str, str]

    @property
    def request(self) -> Request:
        """The request for `flatmin.experiments.jobs.train_job`."""
        return Request("compare", root=self.root, data=self.data)


def check_place(root: Path, what: Comparison) -> None:
    """Refuse a folder inside of that of the images.

    Raises:
        BadInput: it is.
    """
    if what.experiment.data not in SETS:
        check_outside(root, Path(what.experiment.data))


def claim(root: Path, data: Path, what: Comparison, sets: Sets) -> Place:
    """Store a comparison in a folder, or check that the folder is its own.

    Args:
        root: the folder.
        data: where data sets are.
        what: the comparison.
        sets: the images, by the name of the setting.

    Raises:
        BadInput: the folder holds another comparison, or something else; its file is
            damaged, or of another version of flatmin.
    """
    mine = Stored(
        comparison=what,
        data_sha256={name: one.digest() for name, one in sets.items()},
        images={name: len(one.train.y) for name, one in sets.items()},
        weights_sha256=weights_sha256(what.experiment),
    )
    path = root / COMPARISON
    stored = read_json(path)
    if stored is None:
        _check_empty(root)
        write_json(path, mine.model_dump(mode="json"))
    elif different := differences(_checked(stored, path), mine):
        raise BadInput(
            f"{root} holds another comparison (different: {', '.join(different)}). "
            "Choose another folder with --out."
        )
    return Place(root, data, mine.images, mine.data_sha256)


def read_place(root: Path, data: Path) -> tuple[Comparison, Place]:
    """Read the comparison that was begun in a folder.

    Raises:
        BadInput: there is none, or its file is damaged.
    """
    path = root / COMPARISON
    stored = read_json(path)
    if stored is None:
        raise BadInput(
            f"{root} has no {COMPARISON}: it is no folder of flatmin compare."
        )
    found = _checked(stored, path)
    return found.comparison, Place(root, data, found.images, found.data_sha256)


def _checked(stored: Any, path: Path) -> Stored:
    return check(Stored, stored, path, "Choose another folder with --out.")


def check_images(place: Place, sets: Sets) -> None:
    """Refuse images that the comparison in a folder was not made with.

    Raises:
        BadInput: some have changed since.
    """
    now = {name: one.digest() for name, one in sets.items()}
    if different := [name for name in now if now[name] != place.data_sha256[name]]:
        raise BadInput(
            f"the images of {different[0]} are not those that {place.root} was made "
            "with. Put those back, or run flatmin compare on these with another --out."
        )


def _check_empty(root: Path) -> None:
    there = root.iterdir() if root.exists() else ()
    if any(not path.name.startswith(".") for path in there):
        raise BadInput(
            f"{root} is not empty and no folder of flatmin compare. Choose another "
            "with --out."
        )


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


def parts(what: Comparison, setting: Setting, data: DataSet) -> tuple[int, int]:
    """Return how many images a run that chooses settings trains on, and is judged on.

    Args:
        what: the comparison.
        setting: under which it is trained.
        data: the images.
    """
    one = what.candidates(setting, BASE)[0]
    found = prepared(data, what.search(one, len(data.train.y), seed=0))
    return len(found.train.y), len(found.test.y)


def _check_search(what: Comparison, setting: Setting, data: DataSet) -> None:
    """Refuse images that the runs that choose settings could not be trained on."""
    n, one = len(data.train.y), what.common(setting)
    left, _ = parts(what, setting, data)
    if left < one.batch_size <= n:
        raise BadInput(
            f"a batch of {one.batch_size} is more than the {left} training images that "
            f"are left while settings are chosen on {n - left}. Use --set "
            f"batch_size={max(1, left // 2)}."
        )
