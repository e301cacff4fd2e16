"""The experiments and the command line; no part of the API promise.

Needs the extra: ``pip install "flatmin[experiments]"``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatmin.experiments.runs.export import Loaded

__all__ = ["load"]


def load(folder: str | Path) -> Loaded:
    """Load the trained network of a finished run, ready for images.

    Args:
        folder: of a run, such as ``runs/figure1/sam/x1/seed-0``, or what
            ``flatmin export`` wrote.

    Returns:
        The model in evaluation mode, the names of the classes, and the transform from
        a PIL image to the model's input ``[channels, height, width]``.

    Raises:
        flatmin.experiments.errors.BadInput: the folder is neither, is damaged, or is
            of an older flatmin.
    """
    # Imported late: the command line does not have to wait for torchvision.
    from flatmin.experiments.runs import export

    return export.load(Path(folder))
