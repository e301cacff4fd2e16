"""The data sets of the SAM paper, read from the files that their authors publish.

Reference: Foret, Kleiner, Mobahi, Neyshabur. Sharpness-Aware Minimization for
Efficiently Improving Generalization. ICLR 2021, arXiv:2010.01412.
"""

from __future__ import annotations

from flatmin.experiments.datasets._checks import findings, shared
from flatmin.experiments.datasets._folder import folder_in_memory
from flatmin.experiments.datasets._made_up import made_up_images, made_up_split
from flatmin.experiments.datasets._select import (
    check_first,
    first_n,
    flip_labels,
    held_out,
    images_of,
    prepared,
)
from flatmin.experiments.datasets._series import (
    Windows,
    made_up_series,
    windows_of,
)
from flatmin.experiments.datasets._sets import SETS, Source, load
from flatmin.experiments.datasets._text import (
    VOCABULARY,
    made_up_sentences,
    pieces,
    sentences_of,
)
from flatmin.experiments.datasets._types import (
    DataSet,
    Files,
    ImageFiles,
    Kind,
    Sentences,
    Series,
    Split,
    Tensors,
    check_kind,
)

__all__ = [
    "SETS",
    "VOCABULARY",
    "DataSet",
    "Files",
    "ImageFiles",
    "Kind",
    "Sentences",
    "Series",
    "Source",
    "Split",
    "Tensors",
    "Windows",
    "check_first",
    "check_kind",
    "findings",
    "first_n",
    "flip_labels",
    "folder_in_memory",
    "held_out",
    "images_of",
    "load",
    "made_up_images",
    "made_up_sentences",
    "made_up_series",
    "made_up_split",
    "pieces",
    "prepared",
    "sentences_of",
    "shared",
    "windows_of",
]
