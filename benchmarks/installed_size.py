"""What each dependency of pyproject.toml weighs, installed.

The first number is the size of the package's own files. The second adds all packages
that it requires and that torch does not.

    python benchmarks/installed_size.py

docs/dependencies.md has the numbers, beside the reason for each package.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from machine import machine
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="the library's own alone")
    smoke = parser.parse_args().smoke
    print(f"{machine()}\n")
    print("| package | version | MB | MB with what it brings |")
    print("| --- | --- | ---: | ---: |")
    torch = brought("torch", set())
    for name in required(smoke):
        found = found_in(name)
        if found is None:
            print(f"| {name} | not installed | | |")
            continue
        whole = brought(name, set()) - (torch if name != "torch" else set())
        own, all_of_it = megabytes(found), sum(map(megabytes, map(distribution, whole)))
        print(f"| {name} | {found.version} | {own:.1f} | {all_of_it:.1f} |")


def required(smoke: bool) -> list[str]:
    """List the packages that pyproject.toml requires, each once."""
    project = PROJECT["project"]
    extras = [] if smoke else project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    names = dict.fromkeys(normal(Requirement(line).name) for line in lines)
    return [name for name in names if name != "flatmin"]


def normal(name: str) -> str:
    """Spell a name as the package index does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def found_in(name: str) -> Distribution | None:
    """Return a package if it is installed."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def brought(name: str, seen: set[str]) -> set[str]:
    """Return the names of a package and of all that it requires on this machine."""
    found = found_in(name)
    if found is None or name in seen:
        return seen
    seen.add(name)
    for line in found.requires or []:
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            brought(normal(needed.name), seen)
    return seen


def megabytes(package: Distribution) -> float:
    """Return the size of a package's files."""
    paths = [Path(str(file.locate())) for file in package.files or []]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
