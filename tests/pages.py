"""What tests read around the source: pages of Markdown, YAML, pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())[
    "project"
]
#: Files of YAML by hand.
YAMLS = [
    ROOT / "CITATION.cff",
    ROOT / ".pre-commit-config.yaml",
    ROOT / ".readthedocs.yaml",
    GITHUB / "dependabot.yml",
    *sorted(GITHUB.glob("workflows/*")),
    *sorted(GITHUB.glob("ISSUE_TEMPLATE/*")),
]
#: Where the project is, without a slash at the end.
ADDRESS: str = PROJECT["urls"]["Source"]

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)*(?:e-?\d+)?")


def read(path: Path) -> dict[Any, Any]:
    """A file of YAML."""
    return yaml.safe_load(path.read_text())


def blocks(page: str, language: str) -> list[str]:
    """The code blocks in a language; that of commands is empty."""
    return [code for found, code in _BLOCK.findall(page) if found == language]


def prose(page: str) -> str:
    """The page without its code blocks."""
    return _BLOCK.sub("", page)


def headings(page: str) -> list[str]:
    """The headings, each with its number signs."""
    return re.findall(r"^#+ .*$", prose(page), re.M)


def sections(page: str) -> list[str]:
    """The prose below each heading, without tables."""
    lines = [line for line in prose(page).splitlines() if not line.startswith("|")]
    return re.split(r"^#+ .*$", "\n".join(lines), flags=re.M)[1:]


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table whose header begins so."""
    lines = prose(page).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading}"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip(" *") for cell in line[1:-1].split("|")])
    return rows


def links(page: str) -> list[str]:
    """What links, pictures and badges point to."""
    return _LINK.findall(prose(page))


def numbers(text: str) -> list[str]:
    """The numbers in a text, without those in the addresses of links."""
    return _NUMBER.findall(_LINK.sub("]", text))


def missing(address: str) -> bool:
    """Whether an address is that of a file in this repository which is not there."""
    raw = ADDRESS.replace("github.com", "raw.githubusercontent.com")
    for beginning, is_there in (
        (f"{ADDRESS}/blob/main/", Path.is_file),
        (f"{ADDRESS}/tree/main/", Path.is_dir),
        (f"{ADDRESS}/actions/workflows/", _is_workflow),
        (f"{raw}/main/", Path.is_file),
    ):
        if address.startswith(beginning):
            path = address.removeprefix(beginning).partition("#")[0]
            return not is_there(ROOT / path)
    return False


def _is_workflow(path: Path) -> bool:
    name = path.relative_to(ROOT).parts[0]
    return (ROOT / ".github" / "workflows" / name).is_file()
