"""The page on recipes is what the recipes say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_table_in_the_documents_is_that_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "recipe_table.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    page = ROOT / "benchmarks" / "results" / "recipes.md"
    assert page.read_text() == done.stdout, (
        "python benchmarks/recipe_table.py > benchmarks/results/recipes.md"
    )
