"""Sentences through the whole program: training by hand, tests, measures, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from flatmin.experiments import prepare, train
from flatmin.experiments.batches import Share
from flatmin.experiments.cli.app import app
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import DataSet, Sentences, made_up_images
from flatmin.experiments.errors import BadInput
from flatmin.experiments.launch import launched
from flatmin.experiments.models import build
from flatmin.experiments.runs.record import Run
from flatmin.experiments.tasks import IGNORED, READ
from flatmin.experiments.train import Training
from tests.experiments.helpers import Program
from tests.experiments.loop.problems import (
    batches_of,
    left_and_resumed,
    refused,
    same,
    trained,
    without_time,
)

CELL = "sst2/bert-tiny/sam"

#: Small, and without dropout, so that a loop by hand needs no seeds.
NETWORK = {"layers": 1, "width": 8, "dropout": 0.0}


def text(**fields: Any) -> Experiment:
    """Two epochs of three steps on short sentences."""
    values = {
        "data": "sst2",
        "tokens": 12,
        "augment": (),
        "model": "bert-tiny",
        "model_options": NETWORK,
        "optimizer": "adamw",
        "lr": 1e-2,
        "weight_decay": 0.01,
        "batch_size": 8,
        "epochs": 2,
        "device": "cpu",
        "flatness_rho": None,
    }
    return Experiment.model_validate({**values, **fields})


def run(folder: Path, **fields: Any) -> Run:
    one = text(**fields)
    return trained(one, folder, made_up_images(one))


def by_hand(one: Experiment) -> tuple[nn.Module, DataSet]:
    torch.manual_seed(one.seed)
    return build("bert-tiny", 2, 0, **NETWORK), made_up_images(one)


def test_training_is_adamw_on_the_cross_entropy_by_hand(tmp_path: Path) -> None:
    one = text(method="sgd", rho=0.0)
    found = run(tmp_path / "run", method="sgd", rho=0.0)
    model, data = by_hand(one)
    assert isinstance(data.train, Sentences)
    adam = torch.optim.AdamW(model.parameters(), lr=one.lr, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 6)
    known = {(*row, y) for row, y in zip(
        data.train.x.tolist(), data.train.y.tolist(), strict=True)}  # fmt: skip
    training = Training(launched(one), one, data)
    for epoch in range(2):
        for ((x, y),) in training.batches.train(epoch):
            whole = nn.functional.pad(x, (0, 12 - x.shape[1]))
            rows = zip(whole.tolist(), y.tolist(), strict=True)
            assert {(*row, label) for row, label in rows} <= known
            assert bool((x[:, -1] != 0).any())
            adam.zero_grad()
            # All at full length: fillers change nothing.
            nn.functional.cross_entropy(model(whole), y).backward()
            adam.step()
            cosine.step()
    for name, w in found.weights().items():
        # The softmax does not see it: its gradient is rounding, which Adam scales up.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(
                w, model.state_dict()[name], rtol=1e-3, atol=1e-4
            )


def test_sam_takes_the_gradient_at_the_perturbed_weights(tmp_path: Path) -> None:
    fields = {"epochs": 1, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    found = run(tmp_path / "run", rho=0.5, **fields)
    one = text(rho=0.5, **fields)
    model, data = by_hand(one)
    weights = list(model.parameters())
    training = Training(launched(one), one, data)
    for step, ((x, y),) in enumerate(training.batches.train(0)):
        up = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), weights)
        norm = torch.stack([g.norm() for g in up]).norm()
        before = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w, g in zip(weights, up, strict=True):
                w.add_(0.5 * g / norm)
        down = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), weights)
        lr = 1e-2 * (1 + torch.cos(torch.tensor(torch.pi * step / 3))) / 2
        with torch.no_grad():
            for w, old, g in zip(weights, before, down, strict=True):
                w.copy_(old - lr * g)
    for name, w in found.weights().items():
        torch.testing.assert_close(w, model.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_the_errors_are_those_of_every_sentence_by_hand(tmp_path: Path) -> None:
    found = run(tmp_path / "run")
    model, data = by_hand(text())
    model.load_state_dict(found.weights())
    test = data.test
    assert isinstance(test, Sentences)
    with torch.no_grad():
        outputs = torch.cat([model.eval()(row[row != 0][None]) for row in test.x])
    wrong = (outputs.argmax(1) != test.y).double().mean().item()
    result = found.result()
    assert result is not None
    assert result["test_error"] == pytest.approx(100 * wrong)
    loss = nn.functional.cross_entropy(outputs, test.y).item()
    assert result["test_loss"] == pytest.approx(loss, rel=1e-4)


def test_sentences_that_fill_a_process_up_are_not_tested() -> None:
    one = text(train_examples=17)
    data = made_up_images(one)
    model, _ = by_hand(one)

    def sums(share: Share) -> torch.Tensor:
        read = batches_of(one, data, share=share).plain()
        return torch.stack([READ.sums(model(x), y) for x, y in read]).sum(0)

    whole, halves = sums(Share()), sums(Share(0, 2)) + sums(Share(1, 2))
    assert whole[-1] == 17
    torch.testing.assert_close(halves, whole)
    (_, y), *_ = batches_of(one, data, share=Share(1, 2)).plain()
    assert y[-1] == IGNORED


@pytest.mark.parametrize("fields", [{}, {"ema": 0.8, "model_options": {"width": 8}}])
def test_what_was_interrupted_ends_where_it_would_have(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr(train, "_ASK_EVERY", 1)
    straight = run(tmp_path / "straight", **fields)

    one = text(**fields)
    data = made_up_images(one)
    resumed = left_and_resumed(one, tmp_path / "resumed", data, 5)
    assert same(straight.weights(), resumed.weights())
    before, after = straight.result(), resumed.result()
    assert before is not None
    assert after is not None
    assert without_time(before) == without_time(after)


def test_noise_and_a_second_training_are_those_of_classes(tmp_path: Path) -> None:
    found = run(tmp_path / "run", noise=0.5, bootstrap=True)
    assert (found.folder / "teacher" / "result.json").is_file()
    (noisy,) = load_file(found.folder / "teacher" / "labels.safetensors").values()
    assert not torch.equal(noisy, made_up_images(text()).train.y)


def test_sentences_in_double_precision_and_their_sharpness(tmp_path: Path) -> None:
    found = run(tmp_path / "run", precision="64-true", flatness_rho=0.05)
    assert all(w.dtype == torch.float64 for w in found.weights().values())
    result = found.result()
    assert result is not None
    assert result["sharpness"] > 0
    assert result["lambda_max"] > 0


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of both networks, which a test must not change."""
    folder = tmp_path_factory.mktemp("runs")
    done = CliRunner().invoke(app, ["train", "sst2", "--smoke", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.everything
def test_every_command_takes_its_runs(
    smoke: Path, tmp_path: Path, program: Program
) -> None:
    one = smoke / CELL / "x1" / "seed-0"
    code, out, err = program("report", smoke)
    assert code == 0, err
    assert "MiniLM, fine-tuned, SAM" in out
    code, out, err = program("sharpness", smoke / "sst2" / "bert-tiny")
    assert code == 0, err
    assert "SAM, rho 0.05" in out
    at = ("--points", 3, "--out", tmp_path / "plane")
    code, _, err = program("landscape", one, *at)
    assert code == 0, err
    code, _, err = program("export", one, "--out", tmp_path / "out")
    assert code == 2
    assert "reads sentences, and what is exported classifies pictures" in err


def test_the_dry_run_knows_what_the_runs_take(smoke: Path, program: Program) -> None:
    code, out, err = program("train", CELL, "--smoke", "--dry-run")
    assert code == 0, err
    result = Run(smoke / CELL / "x1" / "seed-0").result()
    assert result is not None
    assert f"{result['parameters']:,}" in out
    assert f"{result['gradient_examples']} " in out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model=wrn-10-1"], "model wrn-10-1 reads none. Use --set model=minilm-l6 or"),
        (["data=digits"], "digits has images. Use --set data=sst2, or tokens=null"),
        (["tokens=null"], "sst2 has sentences. Use --set tokens=64"),
        (["batch_size=4096"], "more than the 16 training sentences"),
        (["tokens=1"], "tokens: Input should be greater than or equal to 2"),
        (['model_options={"heads":3}'], "cannot build bert-tiny"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_folder(
    settings: list[str], words: str, tmp_path: Path, program: Program
) -> None:
    err = refused(program, CELL, settings, tmp_path)
    assert words in err


def test_a_network_of_sentences_refuses_images(
    tmp_path: Path, program: Program
) -> None:
    what = ("train", "table1/cifar10/wrn-28-10-200/basic/sam", "--smoke")
    code, _, err = program(*what, "--set", "model=bert-tiny", "--out", tmp_path)
    assert code == 2
    assert "model bert-tiny reads sentences. Use --set tokens=64" in err


def test_passes_that_a_network_cannot_take_are_refused_in_its_unit() -> None:
    class Short(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("too long")

    x = torch.ones(2, 12, dtype=torch.int64)
    words = r"passes of 2 or more sentences of 12 word pieces: too long"
    with pytest.raises(BadInput, match=words):
        prepare.check_pass(text(), Short(), x, 2)
