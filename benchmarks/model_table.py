"""The networks of the recipes, and how many parameters they have.

python benchmarks/model_table.py > benchmarks/results/models.md
"""

from __future__ import annotations

import argparse

import torch
from machine import machine

from flatmin.experiments.models import FORECASTERS, MODELS, READERS, build

#: For ImageNet: name in timm, paper, its parameters in millions, side of the images.
TIMM = (
    ("resnet50", "He et al. 2016, arXiv:1512.03385", None, 224),
    ("resnet101", "He et al. 2016, arXiv:1512.03385", None, 224),
    ("resnet152", "He et al. 2016, arXiv:1512.03385", None, 224),
    ("tf_efficientnet_b7.ra_in1k", "Tan, Le 2019, arXiv:1905.11946", 66, 600),
    (
        "tf_efficientnet_l2.ns_jft_in1k_475",
        "Xie et al. 2020, arXiv:1911.04252",
        480,
        475,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--smoke", action="store_true", help="the same: it takes seconds"
    )
    parser.parse_args()
    print(machine() + "\n")
    print("| name | paper | parameters | in the paper | input | note |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, entry in MODELS.items():
        shape = "3 x 32 x 32, 10 classes"
        row(name, 10, entry.paper, entry.millions, shape, entry.note)
    for name, paper, millions, side in TIMM:
        shape = f"3 x {side} x {side}, 1000 classes"
        row(name, 1000, paper, millions, shape, "through timm")
    for name, entry in FORECASTERS.items():
        shape = "7 x 512, horizon 96"
        row(name, 96, entry.paper, entry.millions, shape, entry.note, channels=7)
    for name, entry in READERS.items():
        shape = "word pieces, 2 classes"
        row(name, 2, entry.paper, entry.millions, shape, entry.note, channels=0)


def row(
    name: str,
    classes: int,
    paper: str,
    millions: float | None,
    shape: str,
    note: str,
    channels: int = 3,
) -> None:
    with torch.device("meta"):
        model = build(name, classes, channels, weights="none")
    count = sum(p.numel() for p in model.parameters())
    there = "" if millions is None else f"{millions} M"
    print(f"| `{name}` | {paper} | {count:,} | {there} | {shape} | {note} |")


if __name__ == "__main__":
    main()
