"""What is measured of a run of ``flatmin train`` is what was trained."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from flatmin.diagnostics import (
    Objective,
    eigenvalues,
    m_sharpness,
    sharpness,
    trace,
    worst_sharpness,
)
from flatmin.diagnostics.landscape import Plane
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import Tensors, first_n, load, made_up_images
from flatmin.experiments.jobs import Request, train_all
from flatmin.experiments.measure import _ADAPTIVE
from flatmin.experiments.models import build
from flatmin.experiments.runs import network
from flatmin.experiments.runs.opened import Finished, device_like, finished
from flatmin.experiments.runs.record import Run
from tests.experiments.datasets.written import write_tiny
from tests.experiments.helpers import Program
from tests.experiments.runs.folders import experiment, leave

NOISY = "table4/noise-40/sam"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three recipes on made-up images."""
    root = tmp_path_factory.mktemp("smoke") / "runs"
    for name in ("figure1", NOISY, "table4/noise-40/bootstrap-sam"):
        request = Request(name, ("flatness_rho=0.1",), small=True, root=root)
        train_all(request, Console(file=io.StringIO()))
    return root


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def only(folder: Path, data: Path = Path("nowhere")) -> Finished:
    (run,) = finished([folder], data)
    return run


def by_hand(run: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """Network, images and labels of a smoke run on CIFAR-10, step by step."""
    data = made_up_images(Experiment(data="cifar10"))
    assert isinstance(data.train, Tensors)
    chosen = first_n(data.train.y, 16)
    x = F.interpolate(
        data.train.x[chosen] / 255, (16, 16), mode="bilinear", antialias=True
    )
    mean, std = (torch.tensor(one)[:, None, None] for one in (data.mean, data.std))
    model = build("resnet-8", 10, 3)
    model.load_state_dict(load_file(run / "weights.safetensors"))
    y = load_file(run / "labels.safetensors")["y"]
    assert not torch.equal(y, data.train.y[chosen])
    return model.eval(), (x - mean) / std, y


def test_the_table_has_the_numbers_of_the_run(smoke: Path, program: Program) -> None:
    run = smoke / NOISY / "x1" / "seed-0"
    code, out, err = program("sharpness", run, "--m=4")
    assert (code, err) == (0, "")
    titles, row = out.splitlines()
    stored = json.loads((run / "config.json").read_text())["experiment"]
    rho = stored["flatness_rho"]
    assert f"sharpness {rho:g}" in titles
    model, x, y = by_hand(run)
    objective = Objective(model, F.cross_entropy, [(x, y)])
    expected = [
        sharpness(objective, rho),
        worst_sharpness(objective, rho),
        m_sharpness(objective, rho, 4),
        sharpness(objective, rho, within=_ADAPTIVE),
        eigenvalues(objective, 1),
        trace(objective, draws=30),
    ]
    assert row.split()[:6] == ["40", "%", "SAM,", "rho", f"{stored['rho']:g}", "0"]
    found = [float(number) for number in row.split()[-6:]]
    assert found == pytest.approx([one.value for one in expected], rel=2e-3)
    measured = json.loads((run / "result.json").read_text())
    assert found[0] == pytest.approx(measured["sharpness"], rel=2e-3)
    assert found[4] == pytest.approx(measured["lambda_max"], rel=2e-2)


def test_figure_1_is_two_commands(
    smoke: Path, program: Program, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, said, err = program(
        "landscape", smoke / "figure1", "--points", 3, "--out", out
    )
    assert (code, err) == (0, "")
    assert f"Page: {out}/landscape.html" in said
    records = json.loads((out / "landscape.json").read_text())
    assert list(records) == [
        "SAM, rho 0.05, CIFAR-10",
        "SGD, CIFAR-10",
        "SGD 2x epochs, CIFAR-10",
    ]
    run = smoke / "figure1" / "sgd" / "x2" / "seed-0"
    objective = only(run).objective(16)
    stored = load_file(run / "weights.safetensors")
    for name, weight in objective.model.named_parameters():
        assert torch.equal(weight, stored[name])
    middle = Plane.from_dict(records["SGD 2x epochs, CIFAR-10"]).losses[1][1]
    assert middle == pytest.approx(float(objective.loss()), rel=1e-5)


def test_a_landscape_is_of_the_labels_that_were_trained(
    smoke: Path, program: Program, tmp_path: Path
) -> None:
    run = smoke / NOISY / "x1" / "seed-0"
    assert program("landscape", run, "--points", 3, "--out", tmp_path)[0] == 0
    (record,) = json.loads((tmp_path / "landscape.json").read_text()).values()
    model, x, y = by_hand(run)
    with torch.no_grad():
        expected = F.cross_entropy(model(x), y).item()
    assert Plane.from_dict(record).losses[1][1] == pytest.approx(expected, rel=1e-5)


def test_bootstrap_is_one_run_with_the_labels_of_its_second_time(smoke: Path) -> None:
    (run,) = finished(
        [smoke / "table4" / "noise-40" / "bootstrap-sam"], Path("nowhere")
    )
    ((_, y),) = list(run.batches(16))
    assert torch.equal(y, load_file(run.folder / "labels.safetensors")["y"])
    assert not torch.equal(
        y, load_file(run.folder / "teacher" / "labels.safetensors")["y"]
    )


def test_images_that_were_made_up_are_made_up_again(smoke: Path) -> None:
    run = only(smoke / NOISY / "x1" / "seed-0")
    _, x, y = by_hand(run.folder)
    ((found, labels),) = list(run.batches(16))
    torch.testing.assert_close(found, x)
    assert torch.equal(labels, y)
    assert not list(smoke.rglob("tiny"))


@pytest.mark.usefixtures("unpublished")
def test_images_that_were_not_made_up_come_from_data(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "sets"
    write_tiny("cifar10", data)
    size = "image_size=16", "train_examples=16", "batch_size=8", "m=4"
    settings = ("model=resnet-8", "epochs=1", "seeds=1", *size)
    train_all(
        Request(NOISY, settings, root=tmp_path / "runs", data=data),
        Console(file=io.StringIO()),
    )
    run = tmp_path / "runs" / NOISY / "x1" / "seed-0"
    points = "--points", 2, "--out", tmp_path / "out"
    assert program("landscape", run, "--data", data, *points)[0] == 0
    monkeypatch.setenv("FLATMIN_DATA", str(data))
    assert program("landscape", run, *points)[0] == 0
    assert program("sharpness", run, "--m", 8)[0] == 0
    write_tiny("cifar10", tmp_path / "others", per_class=5)
    code, out, err = program("sharpness", run, "--data", tmp_path / "others")
    assert (code, out) == (2, "")
    assert f"the images of cifar10 are not those that {run} was" in err
    assert "--data" in err


@pytest.mark.parametrize("size", [1000, 512, 300, 7])
def test_batches_are_cut_anew_in_their_order(tmp_path: Path, size: int) -> None:
    leave(tmp_path / "run", experiment(train_examples=None))
    batches = only(tmp_path / "run").batches(size)
    first, again = list(batches), list(batches)
    assert [len(y) for _, y in first] == [
        len(part) for part in torch.arange(900).split(size)
    ]
    data = load("digits", tmp_path)
    assert isinstance(data.train, Tensors)
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    expected = (data.train.x / 255 - mean) / std
    for found in (first, again):
        torch.testing.assert_close(torch.cat([x for x, _ in found]), expected)
        y = torch.cat([y for _, y in found])
        assert torch.equal(y, load_file(tmp_path / "run" / "labels.safetensors")["y"])
    assert {x.dtype for x, _ in first} == {torch.float32}


def test_a_run_in_double_precision_is_measured_in_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = leave(run, experiment(precision="64-true")).double()
    weights = {
        name: 1.1 * w if w.dtype == torch.float64 else w
        for name, w in model.state_dict().items()
    }
    save_file(weights, run / "weights.safetensors")
    objective = only(run).objective(100)
    for name, weight in objective.model.named_parameters():
        assert torch.equal(weight, weights[name])
    assert {x.dtype for x, _ in objective.batches()} == {torch.float64}


def test_weights_are_not_downloaded_for_a_run_that_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, dict[str, object]]] = []

    def noted(*given: object, **options: object) -> nn.Module:
        asked.append((given[3], options))
        return build("resnet-8", 10, 1)

    monkeypatch.setattr(network, "build", noted)
    leave(tmp_path / "run", experiment())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["experiment"]["weights"] = "gone.safetensors"
    config["experiment"]["model_options"] = {"drop_rate": 0.1}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    Run(tmp_path / "run").model()
    assert asked == [("none", {"drop_rate": 0.1})]


@pytest.mark.parametrize(
    ("wanted", "here", "expected"),
    [
        ("auto", None, "cpu"),
        ("cuda", None, "cpu"),
        ("auto", "cuda", "cuda"),
        ("cuda", "cuda", "cuda"),
        ("mps", "cuda", "cpu"),
        ("cpu", "cuda", "cpu"),
    ],
)
def test_a_run_of_another_machine_is_opened_on_what_is_here(
    wanted: str, here: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = None if here is None else torch.device(here)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available: found
    )
    assert device_like(wanted) == torch.device(expected)


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({}, "SAM, rho 0.05, Digits, 40 % label noise"),
        ({"noise": 0.0, "rho": 0.1, "length": 2}, "SAM 2x epochs, rho 0.1, Digits"),
        ({"method": "sgd", "noise": 0.0}, "SGD, Digits"),
        ({"method": "asam", "noise": 0.0}, "asam, rho 0.05, Digits"),
    ],
)
def test_titles_say_how_a_run_was_trained(
    tmp_path: Path, fields: dict[str, object], title: str
) -> None:
    leave(tmp_path / "run", experiment(**fields))
    assert only(tmp_path / "run").title == title


def test_a_run_without_a_radius_of_its_own_has_the_papers(tmp_path: Path) -> None:
    for name, rho in (("none", None), ("some", 0.2)):
        run: Experiment = experiment(flatness_rho=rho)
        leave(tmp_path / name, run)
    assert only(tmp_path / "none").rho == 0.05
    assert only(tmp_path / "some").rho == 0.2
