import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "rows"),
    [
        ("step_time.py", 4),
        ("step_cost.py", 2),
        ("narrow_weights.py", 12),
        ("method_cost.py", 42),
        ("lambda_max.py", 8),
        ("m_sharpness.py", 20),
        ("landscape.py", 3),
        ("model_table.py", 19),
        ("augment_cost.py", 6),
        ("loop_cost.py", 2),
        ("forecast.py", 9),
        ("price", 3),
        ("frameworks.py", 1),
        ("installed_size.py", 1),
    ],
)
def test_a_benchmark_runs_and_names_machine_and_command(script: str, rows: int) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, "--smoke"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert "cores" in first
    assert "torch" in first
    assert f"{script} --smoke" in first
    assert sum(line.startswith("| ") for line in rest) == 2 + rows


def said_in_price(program: str) -> str:
    """What a program prints that runs in the folder of the price's benchmark."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=BENCHMARKS / "price",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BUILT = """
from pathlib import Path
from tasks import TASKS
from flatmin.experiments.models import build
for name, task in TASKS.items():
    one = task.experiment(Path("data"))
    build(one.model, 2, weights="none", **one.model_options)
    print(name)
"""


def test_every_task_of_the_price_has_a_network_that_can_be_built() -> None:
    assert len(said_in_price(BUILT).split()) == 11


TRIED = """
from arms import FEW, MANY, Setting, arms
for tries in (MANY, FEW):
    base, sam = (next(a for a in arms(tries) if a.name == n) for n in ("base", "sam"))
    assert base.settings((0.1, 0.2), None) == [Setting(1.0, 1.0, None)]
    found = sam.settings((0.1,), Setting(0.5, 2, None))
    print([(x.length, x.lr, x.rho) for x in found])
long = Setting(2.0, 1.0, None)
print(len(sam.settings((0.1, 0.2), long)), FEW.at_base, MANY.at_base)
"""


def test_a_method_of_the_price_is_tried_where_the_base_is_best() -> None:
    many, few, rest = said_in_price(TRIED).splitlines()
    assert many.endswith("(1.0, 1.0, 0.1), (0.5, 2, 0.1)]")
    assert few == "[(1.0, 1.0, 0.1), (0.5, 2, 0.1)]"
    assert rest == "2 True False"


def test_authors_code_that_is_not_there_is_listed_as_absent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "authors", "--checkouts", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert f"authors --checkouts {tmp_path}" in first
    rows = [line for line in rest if line.startswith("| ")][2:]
    assert len(rows) == 47
    assert all(row.endswith("| absent | |") for row in rows)


def test_a_mutation_run_kills_the_first_lines_of_a_module_and_names_its_command() -> (
    None
):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "mutation.py", "--smoke"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert "mutation.py --smoke" in first
    assert "| all | 3 | 3 | 0 | 0 | 0 | 100.0 % |" in rest
