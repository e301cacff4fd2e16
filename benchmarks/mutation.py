"""Does every line matter to some test? Defects by rule in core, optim and methods.

One run of the tests records which test reaches which line. Each mutant then has to make
one of the tests that reach it fail. First come a few tests from the files nearest to
the module, then one case of each test function in all files, and then, for some
modules, the tests with several processes, a compiler or a trainer; ``--again`` adds the
other cases. The page has counts, and every survivor with the reason from
``mutation_survivors.toml``, which is not run again.

Results go to ``runs/mutation/results.jsonl``, one line each; a run that was interrupted
goes on from there. Which test reaches which line is in ``runs/mutation/coverage``:
delete that file after writing a test, or the folder to begin anew.

    python benchmarks/mutation.py > benchmarks/results/mutation.md
    python benchmarks/mutation.py --again 'core/_metric.py'   # survivors
    python benchmarks/mutation.py --sample 200                # drawn with a fixed seed

Needs the ``dev`` extra. Hours on two cores, and minutes for a sample.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

from coverage import CoverageData
from mutants import Mutant, mutants
from mutation_page import page, reasons

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.test_mutants import SOURCE, copied  # noqa: E402

FOLDERS = ("methods", "core", "optim")
SUITE = ("tests/core", "tests/methods", "tests/optim")
#: Tests that are too slow for every mutant, or in processes of their own.
LAST = ["tests/optim/test_compile.py"]
RANKS = "tests/distributed/test_"
#: Tests outside of the suite that reach some modules.
ALSO = {
    "core/gates.py": ["tests/test_schedules.py"],
    "optim/_sam.py": ["tests/integrations/test_lightning.py"],
    "optim/_weights.py": ["tests/averaging"],
    "optim/_shared.py": ["tests/integrations/test_lightning.py"],
    "optim/_guard.py": ["tests/integrations/test_lightning.py"],
    "optim/_lightning.py": ["tests/integrations/test_lightning.py"],
    "optim/_outside.py": ["tests/optim/test_compile.py"],
    "optim/_trainers.py": ["tests/integrations", "tests/frameworks"],
}
#: Beginnings of tests, those nearest to the module first; all other tests come last.
NEAR = (
    *("tests/core", "tests/methods/test_closed", "tests/methods/test_reference"),
    *("tests/methods/test_reductions", "tests/optim/test_step", "tests/optim"),
)
#: Modules with code that only tests with several processes reach, and these tests.
SEEN_BY_RANKS = {
    "core/_adapted.py": ["adapters"],
    "core/_scope.py": ["ddp", "methods", "join"],
    "core/_shards.py": ["shards", "methods", "hybrid"],
    "core/_tensors.py": ["shards", "scaler"],
    "core/_metric.py": ["shards", "hybrid"],
    "core/_decay.py": ["shards"],
    "core/_program.py": ["methods", "checkpoint_methods"],
    "core/combine.py": ["methods"],
    "core/filters.py": ["methods"],
    "core/programs.py": ["methods"],
    "core/adapters.py": ["adapters"],
    "core/sources.py": ["methods"],
    "core/_ranking.py": ["methods"],
    "core/stretch.py": ["methods"],
    "core/_rounding.py": ["shards"],
    "optim/_checks.py": ["ddp", "wrapped"],
    "optim/_engine.py": ["ddp", "wrapped"],
    "optim/_gradient_view.py": ["scaler", "shards"],
    "optim/_memory.py": ["checkpoint_methods"],
    "optim/_sam.py": ["attach", "join", "checkpoint_sam", "whole"],
    "optim/_scaling.py": ["overflow", "scaler"],
    "optim/_shared.py": ["checkpoint_sam"],
    "optim/_states.py": ["checkpoint_sam", "checkpoint_methods"],
    "optim/_statistics.py": ["ddp", "monitor"],
    "optim/_tensor_copy.py": ["shards"],
    "optim/_watch.py": ["attach", "wrapped"],
    "optim/_weights.py": ["shards"],
    "optim/_wrapping.py": ["attach", "wrapped", "ddp"],
}
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
FLAGS = ["-p", "pytest_timeout", "--timeout=30", "--no-header"]
#: Seconds for one request, after which a mutant counts as hanging.
LIMIT = 300
#: Tests of one request, of those that come last.
_AT_ONCE = 400

Tests = list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a handful of mutants")
    parser.add_argument("--only", default="*", metavar="GLOB", help="these files")
    parser.add_argument("--again", metavar="GLOB", help="survivors with all tests")
    parser.add_argument("--sample", type=int, metavar="N", help="so many at random")
    chosen = parser.parse_args()
    folder = ROOT / "runs" / "mutation"
    if chosen.smoke:
        with tempfile.TemporaryDirectory() as place:
            smoke(Path(place))
        return
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(folder / "results.jsonl")
    shown = everything()
    wanted = matching(chosen.again or chosen.only)
    if chosen.sample:
        shown = wanted = Random(0).sample(wanted, min(chosen.sample, len(wanted)))
    if chosen.again:
        named = set(reasons())
        wanted = [m for m in wanted if results.outcome(m) == "survived"]
        wanted = [m for m in wanted if m.key not in named]
    else:
        wanted = [m for m in wanted if results.outcome(m) is None]
    run(wanted, reached(folder / "coverage"), results, every=bool(chosen.again))
    print(page(shown, results.by_key, {m.key for m in everything()}))


def smoke(folder: Path) -> None:
    """Run the first mutants of one small module."""
    some = [m for m in everything() if m.file == "core/gates.py"][:3]
    tests = ["tests/core/test_when_joints.py"]
    results = Results(folder / "results.jsonl")
    run(some, reached(folder / "coverage", tests), results)
    print(page(some, results.by_key, {m.key for m in everything()}))


def everything() -> list[Mutant]:
    files = [
        path.relative_to(SOURCE).as_posix()
        for folder in FOLDERS
        for path in sorted((SOURCE / folder).glob("*.py"))
    ]
    return [mutant for file in files for mutant in mutants(SOURCE, file)]


def matching(pattern: str) -> list[Mutant]:
    return [m for m in everything() if fnmatch.fnmatch(m.file, pattern)]


class Results:
    """The outcome of each mutant, in a file of JSON lines; the last line counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.by_key = {one["key"]: one for one in map(json.loads, lines)}

    def outcome(self, mutant: Mutant) -> str | None:
        return self.by_key.get(mutant.key, {}).get("outcome")

    def add(self, mutant: Mutant, **found: object) -> None:
        one = {"key": mutant.key, **found}
        self.by_key[mutant.key] = one
        with self.path.open("a") as file:
            file.write(json.dumps(one) + "\n")


# Which test reaches which line.


def reached(database: Path, tests: Tests | tuple[str, ...] = SUITE) -> CoverageData:
    """Record this in one run of the tests, which have to pass without a defect."""
    if not database.exists():
        command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", *tests]
        command += [
            "--cov",
            "--cov-context=test",
            "--cov-report=",
            "--cov-fail-under=0",
        ]
        command += [f"--deselect={one}" for one in LAST]
        new = database.with_suffix(".new")
        env = {**os.environ, "COVERAGE_FILE": str(new), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=sys.stderr)
        new.rename(database)
    data = CoverageData(str(database))
    data.read()
    return data


def stages(mutant: Mutant, data: CoverageData, *, every: bool) -> Iterator[Tests]:
    """Yield tests that reach the mutant: a few, one of each function, in the end all.

    The last stage, other cases of the same functions, comes only with ``every``.
    """
    lines = data.contexts_by_lineno(str(SOURCE / mutant.file))

    def contexts(span: range) -> set[str]:
        return {context for line in span for context in lines.get(line, [])} - {""}

    # A line that is never executed can matter too: a yield after a return makes the
    # function a generator. Tests that reach the function are taken for such lines.
    here = contexts(range(mutant.edit.line, mutant.edit.last + 1))
    here = here or contexts(mutant.body)
    then = contexts(mutant.edit.then)
    # Those first that a decided condition sends the other way.
    sent = {"if True": here - then, "if False": then}.get(mutant.edit.kind) or here
    by_file, files = _by_file(sent)
    first = [test for file in files[:2] for test in _some(by_file[file], 4)][:60]
    yield first
    one = [test for file in files for test in _some(by_file[file], 1)]
    by_file, files = _by_file(here)
    one += [test for file in files for test in _some(by_file[file], 1)]
    yield list(dict.fromkeys(test for test in one if test not in first))
    names, also = SEEN_BY_RANKS.get(mutant.file, []), ALSO.get(mutant.file, [])
    if names or also:
        yield _of_ranks(names, 10**6 if every else 6) + LAST + also
    if every:
        rest = (test for file in files for test in _some(by_file[file], 10**6))
        done = {*first, *one}
        left = [test for test in rest if test not in done]
        # All at once could take longer than the limit without any that hangs.
        yield from (left[i : i + _AT_ONCE] for i in range(0, len(left), _AT_ONCE))


def _by_file(contexts: set[str]) -> tuple[dict[str, dict[str, Tests]], Tests]:
    """Return the cases of each function of each file, and the files, nearest first."""
    by_file: dict[str, dict[str, Tests]] = defaultdict(lambda: defaultdict(list))
    for test in sorted({context.partition("|")[0] for context in contexts}):
        file, _, name = test.partition("::")
        by_file[file][name.partition("[")[0]].append(test)

    def nearest(file: str) -> tuple[int, int]:
        return _distance(file), len(by_file[file])

    return by_file, sorted(by_file, key=nearest)


def _of_ranks(names: Tests, each: int) -> Tests:
    """Choose cases of each function of these files, which start several processes."""
    files = {f"{RANKS}{name}.py" for name in names}
    functions: dict[str, Tests] = defaultdict(list)
    for test in _collected():
        if test.partition("::")[0] in files:
            functions[test.partition("[")[0]].append(test)
    return _some(functions, each)


@cache
def _collected() -> Tests:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", ""]
    command.append(Path(RANKS).parent.as_posix())
    found = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [line for line in found.stdout.splitlines() if "::" in line]


def _distance(file: str) -> int:
    near = (i for i, start in enumerate(NEAR) if file.startswith(start))
    return next(near, len(NEAR))


def _some(functions: dict[str, Tests], each: int) -> Tests:
    """Choose cases that are spread over the parameters of each function."""
    chosen: Tests = []
    for cases in functions.values():
        stride = max(1, -(-len(cases) // each))
        chosen += cases[::stride]
    return chosen


# Runs.


def run(
    wanted: list[Mutant], data: CoverageData, results: Results, *, every: bool = False
) -> None:
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as place:
        server = Server(Path(place))
        for done, mutant in enumerate(wanted, 1):
            began = time.monotonic()
            outcome, by = judged(mutant, server, data, every=every)
            seconds = round(time.monotonic() - began, 1)
            results.add(mutant, outcome=outcome, by=by, seconds=seconds)
            message = f"{done}/{len(wanted)} {outcome} {seconds} s {mutant.key}"
            print(message, file=sys.stderr, flush=True)
        server.close()


def judged(
    mutant: Mutant, server: Server, data: CoverageData, *, every: bool
) -> tuple[str, str]:
    """Return killed, survived or invalid, and by which test."""
    text = (SOURCE / mutant.file).read_text()
    server.write(mutant.file, mutant.applied(text))
    try:
        for tests in stages(mutant, data, every=every):
            if not tests:
                continue
            code, output = server.ask(tests)
            if code == "hangs":
                return "killed", "the time limit"
            red = FAILED.search(output)
            if code == 1 and red:
                return "killed", red[1]
            if code != 0:
                return "invalid", output.strip().splitlines()[-1][:200]
    finally:
        server.write(mutant.file, text)
    return "survived", ""


class Server:
    """A copy of the package, and the process that runs tests against it in forks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = copied(folder)
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # Loading plugins that no test needs takes longer than most tests.
        alone |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": ""}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.server"],
            cwd=ROOT,
            env={**os.environ, **alone},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def write(self, file: str, text: str) -> None:
        """Write a file and remove its bytecode: Python checks it by size and second."""
        path = self.package / file
        path.write_text(text)
        for old in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            old.unlink()

    def ask(self, tests: Tests) -> tuple[int | str, str]:
        """Run tests; return exit code and output, or "hangs" after the time limit."""
        requests, answers = self.process.stdin, self.process.stdout
        assert requests is not None
        assert answers is not None
        (self.folder / "output.txt").unlink(missing_ok=True)
        requests.write(json.dumps([str(self.folder), [*FLAGS, *tests]]) + "\n")
        requests.flush()
        if not select.select([answers], [], [], LIMIT)[0]:
            self.close()
            self.process = self.start()
            return "hangs", ""
        code, output = json.loads(answers.readline())
        return code, output

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


if __name__ == "__main__":
    main()
