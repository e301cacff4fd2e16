"""No host is imported before its module is, and each module stays small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

INTEGRATIONS = Path(__file__).parents[2] / "src" / "flatmin" / "integrations"
FILES = sorted(INTEGRATIONS.glob("*.py"))
HOSTS = [path.stem for path in FILES if not path.stem.startswith("_")]

PROGRAM = """
import sys
import flatmin, flatmin.integrations, flatmin.integrations._batch
foreign = {name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])
sys.exit(f"imported: {sorted(foreign)}" if foreign else 0)
"""


def test_flatmin_imports_no_host() -> None:
    hosts = [*HOSTS, "lightning_fabric", "pytorch_lightning", "ignite", "timm"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *hosts],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 200
