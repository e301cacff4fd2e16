"""Find what a user should know about an image folder before training on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from flatmin.experiments.datasets._layout import SUFFIXES, Listed, left_out, listed
from flatmin.experiments.datasets._sets import SETS
from flatmin.experiments.datasets._types import DataSet, ImageFiles
from flatmin.experiments.errors import BadInput, expanded
from flatmin.experiments.runs.files import sha256
from flatmin.experiments.table import counted

#: Classes are reported if the largest has so many times the images of the smallest.
_UNEQUAL = 2.0

#: Files with the same bytes, by the bytes' hash; a file is a path and a label.
_Twins = Mapping[str, Sequence[tuple[Path, int]]]


def findings(data: DataSet) -> list[str]:
    """Return sentences on what may mislead in an image folder; none if all is well.

    They are about files whose names are not those of images, classes of unequal size,
    training images that are test or validation images too, and training images in two
    classes. Images are the same if their files are, byte for byte. Only files of equal
    size are read.

    Args:
        data: as of `flatmin.experiments.datasets.load`; there are no sentences on a
            published data set.

    Raises:
        BadInput: the folder or a file of it cannot be read any more.
    """
    if data.name in SETS:
        return []
    found = listed(expanded(data.name))
    twins = _all_twins(found)
    return [
        *_left_out(found.train.root),
        *_unequal(found),
        *_shared(found, twins),
        *_contradicting(found.train, twins),
    ]


def shared(data: DataSet) -> list[str]:
    """Return the sentences of `findings` on images that are trained and tested on."""
    if data.name in SETS:
        return []
    found = listed(expanded(data.name))
    return _shared(found, _all_twins(found))


def _left_out(root: Path) -> list[str]:
    files = left_out(root)
    if not files:
        return []
    first = str(files[0].relative_to(root))
    return [
        f"Files that are no images by their names are left out: {len(files):,}, such "
        f"as {first!r}. Images are called {', '.join(SUFFIXES)}."
    ]


def _unequal(found: Listed) -> list[str]:
    counts = found.train.y.bincount(minlength=len(found.classes)).tolist()
    most, fewest = max(counts), min(counts)
    if most < _UNEQUAL * max(fewest, 1):
        return []
    large, small = (found.classes[counts.index(n)] for n in (most, fewest))
    images, share = counted(fewest, "training image"), most / sum(counts)
    return [
        f"Classes are unequal: from {images} ({small}) to {most:,} ({large}), "
        f"{most / max(fewest, 1):.1f} times as many. Always answering {large} would be "
        f"right for {share:.0%} of them."
    ]


def _shared(found: Listed, twins: _Twins) -> list[str]:
    said = (_shared_with(found.train, one, name, twins) for name, one in _others(found))
    return [sentence for sentence in said if sentence]


def _others(found: Listed) -> list[tuple[str, ImageFiles]]:
    """The images that are not trained on."""
    parts = (("test", found.test), ("validation", found.validation))
    return [(name, images) for name, images in parts if images is not None]


def _shared_with(
    train: ImageFiles, images: ImageFiles, name: str, twins: _Twins
) -> str:
    trained, others = set(_paths(train)), set(_paths(images))
    pairs: list[tuple[Path, Path]] = []
    for files in twins.values():
        mine = [path for path, _ in files if path in trained]
        theirs = [path for path, _ in files if path in others]
        pairs += [(mine[0], path) for path in theirs if mine]
    if not pairs:
        return ""
    return (
        f"{len(pairs):,} of {len(images):,} {name} images are training images "
        f"too, byte for byte, so that the {name} error is too low: "
        f"{_examples(train.root, pairs)}."
    )


def _contradicting(train: ImageFiles, twins: _Twins) -> list[str]:
    trained = set(_paths(train))
    pairs: list[tuple[Path, Path]] = []
    for files in twins.values():
        mine = [(path, label) for path, label in files if path in trained]
        pairs += [(mine[0][0], path) for path, label in mine[1:] if label != mine[0][1]]
    if not pairs:
        return []
    return [
        f"{len(pairs):,} of {len(train):,} training images have the same bytes "
        f"as one of another class: {_examples(train.root, pairs)}."
    ]


def _all_twins(found: Listed) -> _Twins:
    try:
        return _twins([found.train, *(images for _, images in _others(found))])
    except OSError as error:
        raise BadInput(f"cannot read {error.filename}: {error.strerror}.") from None


def _twins(splits: Iterable[ImageFiles]) -> _Twins:
    """Find the files that are there more than once."""
    by_size: dict[int, list[tuple[Path, int]]] = defaultdict(list)
    for images in splits:
        for path, label in zip(_paths(images), images.y.tolist(), strict=True):
            by_size[path.stat().st_size].append((path, label))
    found: dict[str, list[tuple[Path, int]]] = defaultdict(list)
    for files in by_size.values():
        for path, label in files if len(files) > 1 else ():
            found[sha256(path)].append((path, label))
    return {key: files for key, files in found.items() if len(files) > 1}


def _paths(images: ImageFiles) -> list[Path]:
    return [images.root / name for name in images.names]


def _examples(root: Path, pairs: Sequence[tuple[Path, Path]]) -> str:
    """Write the first two pairs."""
    named = [" = ".join(str(p.relative_to(root)) for p in pair) for pair in pairs[:2]]
    return ", ".join(named) + (" and others" if len(pairs) > 2 else "")
