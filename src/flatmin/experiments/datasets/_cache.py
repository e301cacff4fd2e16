"""Keep the decoded images of a folder for the next time."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import flatmin
from flatmin.experiments.datasets._types import ImageFiles, Tensors, memory
from flatmin.experiments.errors import BadInput
from flatmin.experiments.runs.files import in_turn

_Decode = Callable[[ImageFiles, int], Tensors]


def kept(
    cache: Path, splits: Sequence[ImageFiles], side: int, decode: _Decode
) -> list[Tensors]:
    """Decode each split, or read the result from a file in ``cache``.

    The file is used if the images' names, sizes in bytes and times of change are those
    of its images. Where nothing can be written, nothing is kept.

    Args:
        cache: a folder; there is one file for each folder of images and side.
        splits: images below one root.
        side: in pixels.
        decode: makes the tensors.
    """
    root = hashlib.sha256(os.fsencode(splits[0].root.resolve())).hexdigest()[:16]
    path, key = cache / f"{root}-{side}.safetensors", _key(splits)
    found = _read(path, key)
    with ExitStack() as stack:
        if found is None:
            try:
                stack.enter_context(in_turn(cache))
            except BadInput:
                return [decode(split, side) for split in splits]
            found = _read(path, key)  # Another process may have written it meanwhile.
        if found is None:
            found = [decode(split, side).x for split in splits]
            _write(path, key, found)
    return [Tensors(x, split.y) for x, split in zip(found, splits, strict=True)]


def _key(splits: Sequence[ImageFiles]) -> str:
    import PIL
    import torchvision

    versions = (flatmin.__version__, PIL.__version__, torchvision.__version__)
    sha = hashlib.sha256(repr(versions).encode())
    for split in splits:
        sha.update(f"{len(split)}\0".encode())
        for name in split.names:
            sha.update(os.fsencode(name) + _state(split.root / name))
    return sha.hexdigest()


def _state(path: Path) -> bytes:
    try:
        found = path.stat()
    except OSError:  # `decode` reports it.
        return b"\0"
    return f"\0{found.st_size}\0{found.st_mtime_ns}\0".encode()


def _read(path: Path, key: str) -> list[Tensor] | None:
    try:
        with safe_open(path, "pt") as file:
            kept = file.metadata() or {}
            if kept.get("key") != key:
                return None
            names = map(str, range(len(file.keys())))
            # Copies, because the file may change later.
            found = [file.get_tensor(name).clone() for name in names]
    except (OSError, SafetensorError):
        return None
    return found if kept.get("crc") == _crc(found) else None


def _write(path: Path, key: str, found: Sequence[Tensor]) -> None:
    half = path.with_name(f".{path.name}.part")
    tensors = {str(i): x for i, x in enumerate(found)}
    try:
        save_file(tensors, half, {"key": key, "crc": _crc(found)})
        half.replace(path)
    except (OSError, SafetensorError):  # For instance, the disk is full.
        half.unlink(missing_ok=True)


def _crc(found: Sequence[Tensor]) -> str:
    return " ".join(str(zlib.crc32(memory(x))) for x in found)
