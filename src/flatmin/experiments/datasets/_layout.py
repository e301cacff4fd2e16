"""Find the parts, classes and files of an image folder without opening a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from flatmin.experiments.datasets._types import ImageFiles
from flatmin.experiments.errors import BadInput, refuse_unreadable, shortened

#: Suffixes of images, in lower case.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp"),
    *(".gif", ".webp", ".tif", ".tiff"),
)
_SPLIT_SEED = 0

#: Test share of each class, in a folder without test and validation.
_TEST_SHARE = 0.2

#: Names of folders that hold a part of the images, in lower case.
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

#: How names begin that look like those of parts: ``eval``, ``test_2``, ``holdout``.
_LIKE_A_PART = re.compile(r"(train|test|val|eval|dev|hold)", re.IGNORECASE)

#: Folders in which operating systems and archives keep copies of pictures.
_COPIES = {"__MACOSX", "@eaDir", "$RECYCLE.BIN"}

#: Control characters, line ends, changes of direction, and bytes that are not UTF-8.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Listed(NamedTuple):
    """The files of a folder.

    Attributes:
        train: what is trained on.
        test: what is tested on.
        classes: the names of the classes.
        split: one sentence on where the test set comes from.
        validation: the folder's own; None if it has none, or has it as its test set.
    """

    train: ImageFiles
    test: ImageFiles
    classes: tuple[str, ...]
    split: str
    validation: ImageFiles | None = None


def listed(root: Path) -> Listed:
    """List the images of a folder.

    Sub-folders of a class belong to it, and symbolic links are followed. Hidden files
    and folders are left out.

    Args:
        root: holds ``CLASS/*``, or ``train/CLASS/*`` and perhaps ``val/CLASS/*`` and
            ``test/CLASS/*``. Without the last two, a fifth of each class is tested on.

    Raises:
        BadInput: this is no folder of images in classes, or a name in it cannot be
            printed.
    """
    _check_folder(root)
    parts = _parts(root)
    place = parts.pop("train", "")
    classes = _classes(root / place)
    train = _labelled(root, place, classes)
    own = {part: _checked(root, name, classes) for part, name in parts.items()}
    if "test" in own:
        return _with_test(train, own["test"], classes, own.get("validation"))
    if "validation" in own:
        split = f"the folder's own {parts['validation']}, for it has no test"
        return Listed(train, own["validation"], classes, split)
    return _drawn(root, train, classes)


def trained(root: Path) -> tuple[ImageFiles, tuple[str, ...]]:
    """List the images and classes of a folder, or of its ``train``, without a split.

    Raises:
        BadInput: as `listed`.
    """
    _check_folder(root)
    place = _parts(root).get("train", "")
    classes = _classes(root / place)
    return _labelled(root, place, classes), classes


def left_out(root: Path) -> list[Path]:
    """List the files in a folder's folders whose names are not those of images."""
    files = (path for name in _folders(root) for path in _walk(root, root / name))
    return [path for path in files if path.suffix.lower() not in SUFFIXES]


def split_each_class(
    y: Tensor, share: float, seed: int = _SPLIT_SEED
) -> tuple[Tensor, Tensor]:
    """Return indices of the examples that stay, and of the ``share`` of each class.

    At least one example of each class is taken and one stays, if it has two.
    """
    order = shuffled(len(y), seed)
    stay: list[Tensor] = []
    taken: list[Tensor] = []
    for label in y.unique():
        mine = order[y[order] == label]
        cut = min(max(round(share * len(mine)), 1), len(mine) - 1)
        taken.append(mine[:cut])
        stay.append(mine[cut:])
    return torch.cat(stay), torch.cat(taken)


def shuffled(n: int, seed: int = _SPLIT_SEED) -> Tensor:
    """Return the numbers from 0 to n - 1 in an order that depends on the seed alone."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        raise BadInput(f"no such folder: {root}")
    _printable(root)


def _with_test(
    train: ImageFiles,
    test: ImageFiles,
    classes: tuple[str, ...],
    validation: ImageFiles | None,
) -> Listed:
    split = "the folder's own train and test"
    if validation is not None:
        split += "; its validation images are for the choice of settings"
    return Listed(train, test, classes, split, validation)


def _drawn(root: Path, whole: ImageFiles, classes: tuple[str, ...]) -> Listed:
    train, test = (_chosen(whole, i) for i in split_each_class(whole.y, _TEST_SHARE))
    if not len(train) or not len(test):
        raise BadInput(f"{root} has too few images to split: {len(whole)}.")
    split = f"{_TEST_SHARE:.0%} of each class for the test, drawn with a fixed seed"
    return Listed(train, test, classes, split)


def _parts(root: Path) -> dict[str, str]:
    """Return the folders of ``root`` that hold parts; none if its folders are classes.

    A ``train`` beside classes such as ``car`` is a class.
    """
    found: dict[str, str] = {}
    names = _folders(root)
    for name in names:
        part = _PARTS.get(name.casefold())
        if part in found:
            raise BadInput(f"{root} has both {found[part]} and {name}. Remove one.")
        if part is not None:
            found[part] = name
    others = [name for name in names if name.casefold() not in _PARTS]
    if "train" in found and (len(found) > 1 or not _with_images(root, others)):
        return found
    if len(found) > 1 and not _with_images(root, others):
        raise BadInput(f"{root} has {' and '.join(found.values())}, but no train.")
    _check_no_parts(root, _with_images(root, names))
    return {}


def _check_no_parts(root: Path, names: Sequence[str]) -> None:
    """Refuse parts that would be taken for classes, such as ``train`` and ``eval``."""
    if len(names) < 2 or not all(map(_LIKE_A_PART.match, names)):
        return
    inside = [set(_with_images(root / name, _folders(root / name))) for name in names]
    if shared := sorted(set.intersection(*inside)):
        raise BadInput(
            f"the folders {' and '.join(names)} of {root} have the same folders in "
            f"them, such as {shared[0]}. Is one of them for tests? Call the parts "
            "train, validation and test."
        )


def _classes(root: Path) -> tuple[str, ...]:
    full = _with_images(root, _folders(root))
    if not full:
        raise BadInput(
            f"no images in {root}. Put them into one folder per class, {root}/CLASS/*; "
            f"they are called {', '.join(SUFFIXES)}."
        )
    if len(full) == 1:
        below = root / full[0]
        hint = f" Is {below} meant?" if _with_images(below, _folders(below)) else ""
        raise BadInput(f"only one class in {root}: {full[0]!r}; 2 are needed.{hint}")
    return full


def _checked(root: Path, part: str, classes: Sequence[str]) -> ImageFiles:
    """List the images of test or validation, or refuse the folder."""
    here = _with_images(root / part, _folders(root / part))
    if not here:
        raise BadInput(
            f"no images in {root / part}. Put them into one folder per class, "
            f"{root / part}/CLASS/*, or move {part} elsewhere."
        )
    if strange := sorted(set(here) - set(classes)):
        named = shortened(", ".join(strange))
        raise BadInput(f"{root / part} has classes that train lacks: {named}.")
    return _labelled(root, part, classes)


def _labelled(root: Path, part: str, classes: Sequence[str]) -> ImageFiles:
    found = [
        (path.relative_to(root).as_posix(), label)
        for label, name in enumerate(classes)
        if (root / part / name).is_dir()
        for path in _files(root, root / part / name)
    ]
    for name, _ in found:
        if not (root / name).is_file():
            raise BadInput(f"not a readable image: {root / name} (no regular file)")
    names, y = zip(*found, strict=True)
    return ImageFiles(root, names, torch.tensor(y))


def _chosen(images: ImageFiles, index: Tensor) -> ImageFiles:
    names = [images.names[i] for i in index.tolist()]
    return ImageFiles(images.root, names, images.y[index])


def _folders(root: Path) -> list[str]:
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and not _hidden(p.name))
    for name in found:
        _printable(root / name)
    return found


def _with_images(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if next(_files(root, root / name), None))


def _files(root: Path, folder: Path) -> Iterator[Path]:
    """Yield the images of a folder and its sub-folders, in order."""
    for path in _walk(root, folder):
        if path.suffix.lower() in SUFFIXES:
            _printable(path)
            yield path


def _walk(root: Path, folder: Path) -> Iterator[Path]:
    # A link may lead back to a folder that was visited.
    seen = {_identity(place) for place in (root, *root.resolve().parents)}
    walk = os.walk(folder, onerror=refuse_unreadable, followlinks=True)
    for place, folders, files in walk:
        here = Path(place)
        if _identity(here) in seen:
            folders.clear()
            continue
        seen.add(_identity(here))
        folders[:] = sorted(name for name in folders if not _hidden(name))
        yield from (here / name for name in sorted(files) if not _hidden(name))


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _COPIES


def _printable(path: Path) -> None:
    if _UNPRINTABLE.search(str(path)):
        raise BadInput(f"a name cannot be printed: {str(path)!r}. Rename it.")
