"""Open pictures of any format, depth and orientation as RGB."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flatmin.experiments.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image

#: The only formats that Pillow tries: its EPS reader, for one, starts Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags


def open_image(path: Path) -> Image:
    """Open a picture as RGB, turned by its EXIF orientation.

    16-bit grey levels are scaled to 8 bits. Transparent pixels become white. Of an
    animation, the first frame is read.

    Raises:
        BadInput: the file is missing, no image in one of `FORMATS`, damaged or too
            large, or its pixels are 32-bit numbers of unknown range.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Opening a pipe would wait for somebody to write into it.
        if not path.is_file():
            raise BadInput(f"not a readable image: {path} (no such regular file)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Given a path, Pillow maps TIFF files and mixes up rows of turned ones.
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as picture:
                return rgb(path, picture)
    except BadInput:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise BadInput(f"not a readable image: {path} (none of {known})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = Image.MAX_IMAGE_PIXELS
        raise BadInput(f"image too large: {path} (more than {most:,} pixels)") from None
    except Exception as error:  # On damaged files, Pillow's decoders raise anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"not a readable image: {path} ({reason})") from None


def rgb(name: object, picture: Image) -> Image:
    """Convert an open picture to RGB, as `open_image` does.

    Args:
        name: what errors call it.
        picture: of any mode.

    Raises:
        BadInput: its pixels are 32-bit numbers of unknown range.
    """
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(picture)
    if turned.mode in ("I", "F"):
        raise BadInput(
            f"{name} has 32-bit pixels (mode {turned.mode}), and nothing tells their "
            "range. Save it with 8 or 16 bits."
        )
    if turned.mode.startswith("I;16"):
        turned = Image.fromarray(_levels(turned, getattr(picture, "tag_v2", {})))
    if not turned.has_transparency_data:
        return turned.convert("RGB")
    shown = turned.convert("RGBA")
    white = Image.new("RGBA", shown.size, "white")
    return Image.alpha_composite(white, shown).convert("RGB")


def _levels(picture: Image, tags: Any) -> NDArray[np.uint8]:
    """Scale grey levels of up to 16 bits to 8 bits; ``tags`` are a TIFF file's."""
    top = 2 ** int(tags.get(_BITS, (16,))[0]) - 1
    deep = np.asarray(picture).astype(np.uint32)
    levels = ((deep * 255 + top // 2) // top).astype(np.uint8)
    white_is_zero = tags.get(_PHOTOMETRIC) == 0
    return 255 - levels if white_is_zero else levels
