"""The runs of a comparison, beside what trains them."""

from pathlib import Path
from typing import Any

from rich.progress import Progress

from flatmin.experiments.compare.place import Place
from flatmin.experiments.compare.plan import BASE
from flatmin.experiments.compare.recipes import digits
from flatmin.experiments.compare.search import train_jobs
from flatmin.experiments.jobs import Job
from flatmin.experiments.runs import checkpoint
from flatmin.experiments.runs.record import Run


def test_the_checkpoint_of_a_finished_run_is_cleared(tmp_path: Path) -> None:
    """Its process was killed between the result and the clearing."""
    what = digits()
    one = what.candidates(what.settings[0], BASE)[0]
    folder = tmp_path / "seed-0"
    Run(folder).finish({}, {"test_error": 1.0, "gradient_examples": 1, "seconds": 1.0})
    part = checkpoint.part(folder, 3, 0)
    part.parent.mkdir(parents=True)
    part.touch()
    checkpoint.commit(folder, 3, 1)
    fabric: Any = None  # Nothing is trained.
    place = Place(tmp_path, tmp_path, {})
    train_jobs(fabric, [Job(one, folder)], place, "", Progress())
    assert {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "result.json",
    }
