"""The runs of a comparison, beside what trains them."""

from pathlib import Path
from typing import Any

from rich.progress import Progress

from flatmin.experiments.compare.place import Place
from flatmin.experiments.compare.plan import BASE
from flatmin.experiments.compare.request import changed, digits
from flatmin.experiments.compare.search import base_jobs, method_jobs, train_jobs
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
    place = Place(tmp_path, tmp_path, {}, {})
    train_jobs(fabric, [Job(one, folder)], place, "", Progress())
    assert {path.name for path in folder.iterdir()} == {
        "weights.safetensors",
        "result.json",
    }


def test_methods_are_tried_at_the_rate_that_the_base_chose(tmp_path: Path) -> None:
    what = changed(digits(), ["search_seeds=2"])
    place = Place(tmp_path, tmp_path, {"noise-40": 900, "few": 100}, {})
    rates = {"noise-40": 0.2, "few": 0.1}

    def rate(job: Job) -> float:
        return rates[job.folder.relative_to(tmp_path).parts[0]]

    for job in base_jobs(what, place):
        error = 1.0 if job.experiment.lr == rate(job) else 2.0
        numbers = {"test_error": 3.0, "last_error": error}
        Run(job.folder).finish({}, {**numbers, "gradient_examples": 1, "seconds": 1.0})
    found = method_jobs(what, place)
    assert {job.experiment.method for job in found} == {"sam", "subset_sam"}
    for job in found:
        assert job.experiment.lr == rate(job)
        assert f"/lr-{rate(job):g}-rho-{job.experiment.rho:g}-" in str(job.folder)
