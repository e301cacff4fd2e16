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


def said_in_price(program: str, *arguments: Path) -> str:
    """What a program prints that runs in the folder of the price's benchmark."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
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


CONTINUED = """
import sys
from pathlib import Path
import study
from ledger import Ledger
from tasks import TASKS

def scores(root, known, seeds):
    root.mkdir()
    ledger = Ledger(root / "runs.csv")
    if known is not None:
        ledger.read(known)
    small = study.Study(
        TASKS["digits"], root, ledger, root, seeds, ("base", "sam"), None, True
    )
    return {one.arm.name: one.scores(averaged=False) for one in small.tested()}

trained = []
train = study.train_job
def noted(fabric, job, *rest):
    trained.append(str(job.folder))
    return train(fabric, job, *rest)
study.train_job = noted

root = Path(sys.argv[1])
one = scores(root / "one", None, 1)
first = len(trained)
two = scores(root / "two", root / "one" / "runs.csv", 2)
assert {arm: {0: found[0]} for arm, found in two.items()} == one
print(first, *(Path(path).parts[-4:] for path in trained[first:]), sep="\\n")
both = Ledger(root / "again.csv")
both.read(root / "two" / "runs.csv")
print([of[:2] + of[-1:] for of in both.runs][-2:])
"""


def test_a_study_goes_on_from_the_runs_of_another_machine(tmp_path: Path) -> None:
    """Of 3 arms with a choice of 2; the second time, the second seed alone."""
    first, *rest = said_in_price(CONTINUED, tmp_path).splitlines()
    assert first == "9"
    assert [path.count("seed-1") for path in rest[:-1]] == [1, 1, 1]
    assert all("test" in path for path in rest[:-1])
    assert rest[-1] == "[('test', 'sam', 1), ('test', 'late-quarter', 1)]"


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
