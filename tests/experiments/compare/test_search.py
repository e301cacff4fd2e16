"""The runs of a comparison, beside what trains them."""

from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from flatmin.experiments.compare import search
from flatmin.experiments.compare.place import Place
from flatmin.experiments.compare.plan import ARMS, BASE, Comparison
from flatmin.experiments.compare.request import changed, digits
from flatmin.experiments.compare.search import (
    Chosen,
    base_jobs,
    choose,
    final_jobs,
    finished,
    method_jobs,
    train_jobs,
)
from flatmin.experiments.config import Experiment
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


def chosen(root: Path, plain: int, averaged: int) -> list[Chosen]:
    """What each arm chooses if its candidates with these numbers are the best."""
    what, place = one_setting(), Place(root, root, {"few": 100}, {})
    for jobs in (base_jobs, method_jobs):
        by_arm: dict[str, list[Path]] = {}
        for job in jobs(what, place):
            by_arm.setdefault(job.experiment.method, []).append(job.folder)
        for folders in by_arm.values():
            for k, folder in enumerate(folders):
                numbers = {"last_error": float(k != plain), "test_error": 2.0}
                numbers["test_error"] += k != averaged
                rest = {"gradient_examples": 1, "seconds": 1.0}
                Run(folder).finish({}, {**numbers, **rest})
    return choose(what, place)


def one_setting() -> Comparison:
    what = changed(digits(), ["search_seeds=1", "seeds=2"])
    return what.model_copy(update={"settings": what.settings[1:]})


def test_equal_choices_share_a_training(tmp_path: Path) -> None:
    found = final_jobs(chosen(tmp_path, plain=0, averaged=0))
    twins = [job.twin for job in found if job.twin is not None]
    assert len(twins) == 2 * len(ARMS)
    for job, twin in zip(found, twins, strict=False):
        assert job.experiment.ema is not None
        assert twin.experiment == job.experiment.model_copy(update={"ema": None})
        averaged, plain = (one.folder.relative_to(tmp_path) for one in (job, twin))
        assert str(plain) == str(averaged).replace("-averaged", "")
    # They come later again, in case that an older version has trained one of the two.
    assert twins == [job for job in found[len(twins) :] if job in twins]
    longest = {job.folder for job in found[len(twins) :]} - {t.folder for t in twins}
    assert len(longest) == 2
    assert len(found) == len({job.folder for job in found}) == 4 * len(ARMS) + 2


def test_other_choices_have_trainings_of_their_own(tmp_path: Path) -> None:
    found = final_jobs(chosen(tmp_path, plain=0, averaged=1))
    assert not any(job.twin for job in found)


def test_an_average_may_share_the_longest_schedule(tmp_path: Path) -> None:
    what = one_setting()
    tries = what.candidates(what.settings[0], BASE)
    # Of the longest ones, all as good, the first is chosen.
    at = [one.epochs for one in tries].index(max(one.epochs for one in tries))
    found = chosen(tmp_path, plain=0, averaged=at)
    (longest,) = [one for one in found if one.longest]
    twins = [job.twin for job in final_jobs(found)]
    assert all(job in twins for job in longest.jobs)


def test_the_bar_counts_a_shared_training_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = final_jobs(chosen(tmp_path, plain=0, averaged=0))
    trained: list[Experiment] = []

    def train(fabric: Any, job: Job, *_: Any) -> dict[str, Any]:
        del fabric
        trained.append(job.experiment)
        result = {"test_error": 1.0, "gradient_examples": 1, "seconds": 1.0}
        for one in (job, job.twin):
            if one is not None:
                Run(one.folder).finish({}, result)
        return result

    monkeypatch.setattr(search, "train_job", train)
    progress = Progress(disable=True)
    place = Place(tmp_path, tmp_path, {}, {})
    fabric: Any = None
    train_jobs(fabric, jobs, place, "", progress)
    assert finished(jobs)
    assert len(trained) == 2 * len(ARMS) + 2
    (bar,) = progress.tasks
    assert bar.completed == bar.total == sum(map(search.cost, trained))
