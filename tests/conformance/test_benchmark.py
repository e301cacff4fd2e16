import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "conformance.py"


def test_the_benchmark_prints_the_table_and_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "table.md"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--out", page],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = page.read_text()
    first, *rest = done.stdout.splitlines()
    assert first in text
    assert "conformance.py --smoke" in first
    assert rest[1].split() == (
        ["check", "flatmin", "two-call", "pattern", "in-place", "pattern"]
    )
    assert text.splitlines()[0] == "# Conformance table"
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + 3
