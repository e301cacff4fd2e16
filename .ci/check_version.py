"""Refuse a release whose tag, package, citation and changelog name other versions.

python .ci/check_version.py TAG
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main(tag: str, root: Path = ROOT) -> str | None:
    """What is wrong, in a line; None if nothing is."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    version = project["version"]
    if tag != f"v{version}":
        return f"the tag is {tag}, and the version in pyproject.toml is {version}"
    cited = f"^version: {re.escape(version)}$"
    if not re.search(cited, (root / "CITATION.cff").read_text(), re.M):
        return f"CITATION.cff has another version than {version}"
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    if not re.search(heading, (root / "CHANGELOG.md").read_text(), re.M):
        return f"CHANGELOG.md needs the heading: ## [{version}] - YYYY-MM-DD"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
