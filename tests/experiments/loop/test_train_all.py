"""All runs of a recipe: who trains them, what is written, what is shown."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flatmin.experiments import jobs as module
from flatmin.experiments import train
from flatmin.experiments.jobs import Request, jobs, train_all
from flatmin.experiments.recipes import RECIPES
from flatmin.experiments.runs.asked import run_folder
from flatmin.experiments.runs.files import locked
from flatmin.experiments.runs.record import Run
from tests.experiments.helpers import Program
from tests.experiments.loop.problems import small, trained


def request(root: Path, name: str = "c4", *settings: str) -> Request:
    return Request(name, settings, True, root / "runs", root / "data")


def quiet() -> Console:
    return Console(file=StringIO())


def folders(what: Request) -> list[Path]:
    return [job.folder for job in jobs(what.recipe(), what.root)]


@pytest.mark.parametrize("name", RECIPES)
def test_every_run_of_a_recipe_can_be_trained(name: str, tmp_path: Path) -> None:
    what = request(tmp_path, name)
    assert train_all(what, quiet())
    for cell in what.recipe().cells:
        for arm in cell.arms:
            found = Run(run_folder(what.root, cell, arm, 0))
            result, last = found.result(), found.metrics()[-1]
            assert result is not None
            known = {**last, **result}
            assert cell.metric == "test_accuracy" or cell.metric in known


def test_finished_runs_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = request(tmp_path)
    assert train_all(what, quiet())
    before = [Run(folder).weights() for folder in folders(what)]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished run is built again")

    monkeypatch.setattr(module, "Training", never)
    assert train_all(what, quiet())
    after = [Run(folder).weights() for folder in folders(what)]
    assert [list(w) for w in after] == [list(w) for w in before]


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    what = request(tmp_path)
    first, *others = folders(what)
    console = Console(file=StringIO(), width=200)
    with locked(first):
        assert not train_all(what, console)
    assert Run(first).result() is None
    assert all(Run(folder).result() is not None for folder in others)
    assert "Left to other processes: 1 run." in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert train_all(what, quiet())
    assert Run(first).result() is not None


def work(root: Path) -> None:
    train_all(request(root, "figure1"), quiet())


def test_two_processes_share_the_runs(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.experiments.loop.jobs", __name__])
    both = [context.Process(target=work, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(200)
    assert [process.exitcode for process in both] == [0, 0]
    for folder in folders(request(tmp_path, "figure1")):
        assert Run(folder).result() is not None
        steps = [line["step"] for line in Run(folder).metrics()]
        assert steps == sorted(set(steps))


def test_what_was_asked_for_is_written_down(tmp_path: Path) -> None:
    assert train_all(request(tmp_path, "table4/noise-40/sam", "lr=0.2"), quiet())
    record = json.loads((tmp_path / "runs" / "recipe-table4.json").read_text())
    assert record == {
        "recipe": "table4",
        "part": "table4/noise-40/sam",
        "settings": ["lr=0.2"],
        "smoke": True,
        "seeds": 1,
        "parts": {"table4/noise-40/sam": 1},
    }
    (folder,) = folders(request(tmp_path, "table4/noise-40/sam", "lr=0.2"))
    config = json.loads((folder / "config.json").read_text())
    assert config["experiment"]["lr"] == 0.2
    assert config["world"] == 1
    assert len(config["data_sha256"]) == 64


def test_a_slash_at_the_end_of_a_name_means_nothing() -> None:
    assert Request("table4/noise-40/") == Request("table4/noise-40")


def test_runs_of_seeds_come_seed_by_seed() -> None:
    found = jobs(RECIPES["c4"](), Path("runs"))
    seeds = [job.experiment.seed for job in found]
    assert seeds == sorted(seeds)
    assert len({job.folder for job in found}) == len(found)


def test_a_folder_that_was_moved_is_reported_alike(
    tmp_path: Path, program: Program
) -> None:
    what = request(tmp_path, "figure1")
    assert train_all(what, quiet())
    code, _, err = program("report", what.root)
    assert code == 0, err
    tables = sorted(what.root.rglob("*.md"))
    assert tables
    before = [path.read_text() for path in tables]
    moved = tmp_path / "elsewhere"
    shutil.move(what.root, moved)
    code, _, err = program("report", moved)
    assert code == 0, err
    after = [moved / path.relative_to(what.root) for path in tables]
    assert [path.read_text() for path in after] == before


def test_progress_shows_time_left_loss_error_and_sharpness(tmp_path: Path) -> None:
    console = Console(
        file=StringIO(), record=True, force_terminal=True, width=220, height=50
    )
    assert train_all(request(tmp_path, "table4/noise-40/sam"), console)
    text = console.export_text()
    (folder,) = folders(request(tmp_path, "table4/noise-40/sam"))
    (line,) = Run(folder).metrics()
    note = (
        f"loss {line['train_loss']:.3f}  error % {line['test_error']:.3f}  "
        f"sharpness {line['sharpness']:.3f}"
    )
    assert note in text
    assert "2/2 0:00:0" in text
    result = Run(folder).result()
    assert result is not None
    assert f"test error {result['test_error']:.2f} %, " in text


def test_a_run_that_has_diverged_says_so(tmp_path: Path) -> None:
    asked = request(tmp_path, "table4/noise-40/sam", "lr=1e30", "flatness_rho=null")
    console = Console(file=StringIO(), record=True, width=220)
    assert train_all(asked, console)
    said = "test error 100.00 %, diverged (its loss is not finite), "
    assert said in console.export_text()


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_tensorboard_shows_the_metrics(tmp_path: Path) -> None:
    found = trained(small(epochs=3, spectrum_at=(2,)), tmp_path)
    shown, lines = events(tmp_path), found.metrics()
    names = {name for line in lines for name in line} - {"step"}
    assert set(shown) == names
    for name in names:
        expected = [(m["step"], m[name]) for m in lines if name in m]
        assert shown[name] == [(s, pytest.approx(x, rel=1e-6)) for s, x in expected]


def test_tensorboard_hides_what_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)

    def leave(line: dict[str, float]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(small(epochs=3), tmp_path, watch=leave)
    assert [step for step, _ in events(tmp_path)["test_error"]] == [3, 6]
    found = trained(small(epochs=3), tmp_path)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert [step for step, _ in events(tmp_path)["test_error"]] == [3, 6, 9]
    assert len(found.metrics()) == 3
