"""``flatmin methods``: the table of the family in the terminal."""

import subprocess
import sys

from flatmin.methods import METHODS


def test_every_method_has_a_row_with_its_cost_and_its_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flatmin", "methods"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "140", "PATH": "", "TERM": "dumb"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    _, *rows = done.stdout.splitlines()
    assert [row.split()[0] for row in rows] == list(METHODS)
    for row, entry in zip(rows, METHODS.values(), strict=True):
        assert entry.gradients in row
        assert entry.line.replace("``", "") in row
