"""Damaged folders: all commands that open runs say the same, in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import flatmin
from tests.experiments.helpers import Program, image_folder
from tests.experiments.runs.folders import train_digits

RUN = Path("figure1/sam/x1/seed-0")
ALL = ("report", "sharpness", "landscape")
MEASURED = ("sharpness", "landscape")

#: Makes damage in the folder of all runs.
Damage = Callable[[Path], object]


def text(name: str, content: str | bytes) -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda root: (root / name).write_bytes(data)


def result(content: str | bytes) -> Damage:
    return text(f"{RUN}/result.json", content)


def number(name: str, value: str) -> Damage:
    """A result with other text for one of its numbers."""

    def damage(root: Path) -> None:
        path = root / RUN / "result.json"
        found = json.loads(path.read_text()) | {name: "HERE"}
        path.write_text(json.dumps(found).replace('"HERE"', value))

    return damage


def without(name: str) -> Damage:
    def damage(root: Path) -> None:
        path = root / RUN / "result.json"
        found = json.loads(path.read_text())
        del found[name]
        path.write_text(json.dumps(found))

    return damage


def line(first: str) -> Damage:
    """Metrics with a line before those that are there."""

    def damage(root: Path) -> None:
        path = root / RUN / "metrics.jsonl"
        path.write_text(f"{first}\n{path.read_text()}")

    return damage


def config(experiment: dict[str, Any] | None = None, **fields: Any) -> Damage:
    def damage(root: Path) -> None:
        path = root / RUN / "config.json"
        found = json.loads(path.read_text()) | fields
        found["experiment"] |= experiment or {}
        path.write_text(json.dumps(found))

    return damage


def asked(**fields: Any) -> Damage:
    def damage(root: Path) -> None:
        path = root / "recipe-figure1.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


def tensors(name: str, **values: torch.Tensor) -> Damage:
    return lambda root: save_file(values, root / RUN / name)


def unlink(name: str) -> Damage:
    return lambda root: (root / RUN / name).unlink()


def with_images(**fields: Any) -> Damage:
    """Change how images become the network's input."""

    def damage(root: Path) -> None:
        path = root / RUN / "config.json"
        stored = json.loads(path.read_text())
        stored["images"].update(fields)
        path.write_text(json.dumps(stored))

    return damage


def large_images(root: Path) -> None:
    images = image_folder(root.parent / "images", {"a": 5, "b": 5}, size=80)
    config({"data": str(images)})(root)


DEEP = "[" * 100_000
LABELS, WEIGHTS = "labels.safetensors", "weights.safetensors"
OLD = '{"config": {"epochs": 30}, "data_sha256": "ab"}'
UNTESTED = '{"epoch": 1, "step": 3, "gradient_examples": 9}'

#: Damage, and the words about it; none where the file is nothing that can be read.
RESULTS: dict[str, tuple[Damage, str]] = {
    "empty": (result("{}"), "test_error: field required"),
    "nothing": (result(""), ""),
    "a list": (result("[]"), ""),
    "a number": (result("7"), ""),
    "null": (result("null"), ""),
    "cut short": (result('{"test_error": 1'), ""),
    "deep": (result(DEEP), ""),
    "no UTF-8": (result(b'{"a": "\xff"}'), ""),
    "no error": (without("test_error"), "test_error: field required"),
    "no gradients": (without("gradient_examples"), "gradient_examples: field req"),
    "no time": (without("seconds"), "seconds: field required"),
    "text": (number("test_error", '"low"'), "test_error: input should be a valid n"),
    "number as text": (number("seconds", '"12"'), "seconds: input should be a v"),
    "bool": (number("gradient_examples", "true"), "gradient_examples: input sh"),
    "NaN": (number("test_error", "NaN"), "test_error: input should be a finite"),
    "infinity": (number("sharpness", "1e999"), "sharpness: input should be a fi"),
    "huge": (number("gradient_examples", "9" * 400), "gradient_examples: "),
    "huger": (number("gradient_examples", "9" * 5000), ""),
    "no share": (number("test_error", "250"), "test_error: input should be less"),
}
LINES: dict[str, tuple[Damage, str]] = {
    "without error": (line(UNTESTED), "test_error: field required"),
    "cut short": (line('{"epoch": 1, "st'), ""),
    "a list": (line("[]"), ""),
    "empty": (line(""), ""),
    "deep": (line(DEEP), ""),
}
CONFIGS: dict[str, tuple[Damage, str]] = {
    "a list": (text(f"{RUN}/config.json", "[]"), ""),
    "no UTF-8": (text(f"{RUN}/config.json", b"\xff\x00"), ""),
    "deep": (text(f"{RUN}/config.json", DEEP), ""),
    "impossible": (config({"epochs": -1}), "experiment.epochs: input should be gr"),
    "unknown method": (config({"method": "sum"}), "experiment: unknown method 'sum'"),
    "lr is NaN": (config({"lr": float("nan")}), "experiment.lr: input should be"),
    "no processes": (config(world=0), "world: input should be greater"),
}
ASKED: dict[str, tuple[Damage, str]] = {
    "absurd seeds": (asked(seeds=10**9), "seeds: input should be less than"),
    "of a part": (asked(parts={"figure1": 10**9}), "parts.figure1: input should be"),
    "no seeds": (asked(seeds=0), "seeds: input should be greater than"),
    "a list": (text("recipe-figure1.json", "[]"), ""),
    "deep": (text("recipe-figure1.json", DEEP), ""),
}

AGAIN = "Remove it and start again."
TRAIN = "Remove the run's folder and train again."


def damages(
    table: dict[str, tuple[Damage, str]], file: str, advice: str
) -> dict[str, tuple[Damage, str]]:
    """With whole messages."""
    return {
        f"{file}: {name}": (
            damage,
            f"{file} is damaged ({why}" if why else f"{file} is damaged. {advice}",
        )
        for name, (damage, why) in table.items()
    }


def of_another_version(
    file: str, table: dict[str, tuple[Damage, str]]
) -> dict[str, tuple[Damage, str]]:
    """With whole messages, which do not advise to remove anything."""
    said = f"which flatmin {flatmin.__version__} does not know: another version wrote"
    advice = "it. Use that version for this folder.\n"
    return {
        f"{file} of another version: {name}": (
            damage,
            f"{file} has the field {field}, {said} {advice}",
        )
        for name, (damage, field) in table.items()
    }


#: What every command notices, and what only those do that open weights or the report.
BY_ALL = {
    **damages(RESULTS, "result.json", AGAIN),
    **damages(LINES, "metrics.jsonl, line 1,", "Remove the line and start again."),
    **damages(CONFIGS, "config.json", TRAIN),
    **of_another_version(
        "config.json",
        {
            "field": (config(other=1), "other"),
            "setting": (config({"rh": 1}), "experiment.rh"),
            "setting before damage": (config({"epochs": -1, "rh": 1}), "experiment.rh"),
            "images": (with_images(turned=True), "images.Images.turned"),
        },
    ),
    "images of two kinds": (
        with_images(horizon=3),
        "config.json has the field images.Window.classes, which",
    ),
    "no deviation": (
        with_images(std=[0.0]),
        "config.json is damaged (images.Images.std.0: input should be greater than 0)",
    ),
    "a start": (
        text(f"{RUN}/environment.jsonl", "3\n"),
        "environment.jsonl, line 1, is damaged. Remove the line and start again.",
    ),
    "no config": (unlink("config.json"), f"config.json is missing. {TRAIN}"),
    "older compare": (
        text(f"{RUN}/config.json", OLD),
        "seed-0 was written by an older flatmin compare; run it again.",
    ),
}
BY_MEASURING: dict[str, tuple[Damage, str]] = {
    "unknown option": (
        config({"model_options": {"wide": 4}}),
        "config.json: cannot build small-convnet: ",
    ),
    "unknown network": (
        config({"model": "resnot"}),
        "config.json: no network is called 'resnot'",
    ),
    "no description": (config(images=None), "config.json does not describe the images"),
    "labels too large": (
        tensors(LABELS, y=torch.full((900,), 10)),
        f"{LABELS} is damaged: a label is none of 10 classes. {TRAIN}",
    ),
    "labels below 0": (tensors(LABELS, y=torch.full((900,), -1)), "none of 10 classes"),
    "labels of others": (
        tensors(LABELS, y=torch.zeros(7, dtype=torch.int64)),
        "has 7 labels, but it was trained on 900 images",
    ),
    "labels are floats": (
        tensors(LABELS, y=torch.zeros(900)),
        f"{LABELS} is damaged: it holds no labels",
    ),
    "no labels": (unlink(LABELS), f"{LABELS} cannot be read"),
    "no weights": (unlink(WEIGHTS), f"{WEIGHTS} cannot be read"),
    "weights are text": (text(f"{RUN}/{WEIGHTS}", "text"), f"{WEIGHTS} cannot be read"),
    "weights of others": (
        tensors(WEIGHTS, w=torch.zeros(7)),
        f"{WEIGHTS} does not fit the run's network",
    ),
    "other images": (config(data_sha256="0"), "the images of digits are not those"),
    "images in files": (large_images, "are read from files"),
    "images are gone": (config({"data": "/no/images"}), "no such folder: /no/images"),
    "not finished": (unlink("result.json"), "holds no finished run"),
}
BY_REPORT = {
    **of_another_version("recipe-figure1.json", {"field": (asked(by="me"), "by")}),
    **damages(ASKED, "recipe-figure1.json", AGAIN),
    "unknown recipe": (
        asked(recipe="table99"),
        "recipe-figure1.json: unknown recipe 'table99'",
    ),
}

#: The commands that notice, what is done, and what they say.
CASES = [
    pytest.param(commands, *case, id=name)
    for commands, table in (
        (ALL, BY_ALL),
        (MEASURED, BY_MEASURING),
        (("report",), BY_REPORT),
    )
    for name, case in table.items()
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "runs"
    train_digits(root, name="figure1/sam")
    return root


def arguments(command: str, root: Path) -> tuple[object, ...]:
    if command == "report":
        return command, root
    points = ("--points", 2, "--out", root.parent / "out")
    return command, root / RUN, *(points if command == "landscape" else ())


@pytest.mark.parametrize("command", ALL)
def test_what_is_whole_is_opened(
    command: str, whole: Path, program: Program, tmp_path: Path
) -> None:
    root = shutil.copytree(whole, tmp_path / "runs")
    with (root / RUN / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "te')
    code, _, err = program(*arguments(command, root))
    assert (code, err) == (0, "")


@pytest.mark.parametrize(("commands", "damage", "message"), CASES)
def test_damage_is_one_line_that_names_the_file_and_what_to_do(
    commands: tuple[str, ...],
    damage: Damage,
    message: str,
    whole: Path,
    program: Program,
    tmp_path: Path,
) -> None:
    root = shutil.copytree(whole, tmp_path / "runs")
    damage(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    said: set[str] = set()
    for command in commands:
        code, out, err = program(*arguments(command, root))
        assert (code, out) == (2, ""), err
        assert message in err
        assert err.count("\n") == 1
        assert len(err) < 500
        said.add(err)
    assert len(said) == 1
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert after == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ALL)
def test_a_run_without_its_configuration_is_seen_from_above_too(
    command: str, whole: Path, program: Program, tmp_path: Path
) -> None:
    root = shutil.copytree(whole, tmp_path / "runs")
    (root / RUN / "config.json").unlink()
    code, _, err = program(command, root)
    assert code == 2
    assert f"{root / RUN}/config.json is missing" in err


@pytest.mark.parametrize("command", ALL)
def test_a_folder_of_an_older_compare_is_refused(
    command: str, program: Program, tmp_path: Path
) -> None:
    root = tmp_path / "compare"
    (root / "noise-40/sam/seed-0").mkdir(parents=True)
    (root / "config.json").write_text(OLD)
    (root / "noise-40/sam/seed-0/result.json").write_text('{"test_error": 1.0}')
    old = f"flatmin: {root} was written by an older flatmin compare; run it again.\n"
    assert program(command, root) == (2, "", old)
    if command != "report":
        assert program(command, root / "noise-40/sam/seed-0") == (2, "", old)


def test_one_run_is_no_folder_to_report_on(
    whole: Path, program: Program, tmp_path: Path
) -> None:
    code, _, err = program("report", whole / RUN)
    assert code == 2
    assert "is one run. Give the folder of all runs" in err
