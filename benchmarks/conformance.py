"""The conformance suite, for flatmin and for other SAMs in one run.

Prints the table and writes it, with versions and notes, as a page of the documentation.
Packages that are not installed are left out, and the page says so.

    pip install pytorch_optimizer sam-pytorch heavyball temperon
    python benchmarks/conformance.py
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from machine import machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flatmin.conformance import CHECKS, Adapter, _table, load_adapter, run  # noqa: E402

PEERS = "tests.conformance.peers"
ALWAYS = [
    "flatmin.conformance.ours:sam",
    f"{PEERS}.two_call:sam",
    f"{PEERS}.in_place:sam",
]
PACKAGES = {
    "pytorch_optimizer": [
        f"{PEERS}.pytorch_optimizer:{name}"
        for name in ("sam", "gsam", "wsam", "look_sam", "friendly_sam")
    ],
    "sam-pytorch": [f"{PEERS}.sam_pytorch:sam"],
    "heavyball": [f"{PEERS}.heavyball:sam"],
    "temperon": [f"{PEERS}.temperon:sam"],
}
QUICK = {"C2", "C16", "T2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="three checks, no package")
    page = ROOT / "docs" / "conformance-table.md"
    parser.add_argument("--out", type=Path, default=page, metavar="PATH")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    checks = [c for c in CHECKS if not chosen.smoke or c.id in QUICK]
    installed, header = ([], []) if chosen.smoke else packages()
    began = time.perf_counter()
    columns = {a.name: run(a, checks) for a in adapters(ALWAYS + installed)}
    seconds = time.perf_counter() - began
    header = ["# Conformance table", "", f"{machine()}; {seconds:.0f} s.", *header]
    print(header[2] + "\n\n" + _table.plain(checks, columns))
    _table.write(chosen.out, _table.markdown(checks, columns, header))


def packages() -> tuple[list[str], list[str]]:
    """Return the adapters of installed packages, and a line about each package."""
    found: list[str] = []
    header: list[str] = []
    for package, names in PACKAGES.items():
        try:
            header.append(f"{package} {version(package)}.")
        except PackageNotFoundError:
            header.append(f"{package} is not installed and left out.")
            continue
        found += names
    return found, header


def adapters(names: list[str]) -> list[Adapter]:
    return [load_adapter(name) for name in names]


if __name__ == "__main__":
    main()
