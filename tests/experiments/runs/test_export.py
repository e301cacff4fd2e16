"""A trained network for others: exported, loaded elsewhere, shown pictures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file
from torch import nn

import flatmin
from flatmin.experiments import load
from flatmin.experiments.batches import Batches, Share
from flatmin.experiments.config import Experiment
from flatmin.experiments.datasets import Files, Tensors, images_of
from flatmin.experiments.datasets import load as load_data
from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import build, registry
from flatmin.experiments.runs.network import packed
from flatmin.experiments.runs.record import Run
from tests.experiments.helpers import Program, image_folder
from tests.experiments.runs.folders import experiment, leave, train_digits
from tests.problems import refusal

RUN = Path("figure1/sam/x1/seed-0")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "runs"
    train_digits(root, name="figure1/sam")
    return root / RUN


def picture(k: int = 0) -> Image.Image:
    """A test image of the digits."""
    data = load_data("digits", Path())
    assert isinstance(data.test, Tensors)
    return Image.fromarray(data.test.x[k, 0].numpy())


def in_a_fresh_process(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_an_exported_network_predicts_the_same_in_a_fresh_process(
    whole: Path, program: Program, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    code, said, err = program("export", whole, "--out", out)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    picture().save(tmp_path / "picture.png")
    model, classes, transform = load(whole)
    with torch.no_grad():
        expected = model(transform(picture())[None])
    saved = (
        "import torch; from PIL import Image; from flatmin.experiments import load\n"
        "model, classes, transform = load('model')\n"
        "y = model(transform(Image.open('picture.png'))[None]).detach()\n"
        "torch.save({'y': y, 'classes': list(classes)}, 'y.pt')"
    )
    in_a_fresh_process(saved, tmp_path)
    found = torch.load(tmp_path / "y.pt", weights_only=True)
    assert torch.equal(found["y"], expected)
    assert tuple(found["classes"]) == classes == tuple("0123456789")
    # The program that the command prints, as it is printed.
    _, _, snippet = said.partition("\n\n")
    assert len(snippet.splitlines()) == 10
    shares = expected.softmax(1)[0]
    best = int(shares.argmax())
    shown = f"{classes[best]}: {100 * shares[best]:.1f} %\n"
    assert in_a_fresh_process(snippet, tmp_path) == shown


def test_the_program_turns_a_tiff_as_the_tests_do(
    whole: Path, program: Program, tmp_path: Path
) -> None:
    """Given a path, Pillow maps the file, and mixes up its rows."""
    _, said, _ = program("export", whole, "--out", tmp_path / "model")
    levels = torch.arange(8 * 16).view(8, 16).to(torch.uint8) % 17
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(levels.numpy()).save(tmp_path / "turned.tif", exif=exif)
    model, _, transform = load(whole)
    straight = Image.fromarray(levels.rot90(-1).contiguous().numpy())
    with torch.no_grad():
        shares = model(transform(straight)[None]).softmax(1)[0]
    snippet = said.partition("\n\n")[2].replace("picture.png", "turned.tif")
    shown = in_a_fresh_process(snippet + "\nprint(shares.tolist())", tmp_path)
    found = json.loads(shown.splitlines()[1])
    assert found == pytest.approx(shares.tolist(), rel=1e-5)


def test_what_is_exported_says_how_it_was_made(
    whole: Path, program: Program, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    assert program("export", whole, "--out", out)[0] == 0
    stored = json.loads((out / "config.json").read_text())
    assert stored["flatmin"] == flatmin.__version__
    assert (stored["architecture"], stored["timm"]) == ("small-convnet", False)
    assert stored["options"] == {"width": 4}
    assert stored["experiment"] == Run(whole).experiment.model_dump(mode="json")
    data = load_data("digits", tmp_path)
    images = stored["images"]
    assert images["size"] == [8, 8]
    assert (tuple(images["mean"]), tuple(images["std"])) == (data.mean, data.std)
    weights = load_file(out / "model.safetensors")
    for name, w in Run(whole).weights().items():
        assert torch.equal(weights[name], w)


def of_the_tests(one: Experiment, root: Path) -> torch.Tensor:
    """The test images as a run gets them."""
    data = images_of(one, root)
    batches = Batches(data, data.train.y, one, CPU, Share())
    return torch.cat([x for x, _ in batches.test()])


@pytest.mark.parametrize("side", [None, 12])
def test_the_transform_is_that_of_the_tests(side: int | None, tmp_path: Path) -> None:
    one = experiment(image_size=side)
    leave(tmp_path / "run", one)
    _, _, transform = load(tmp_path / "run")
    found = torch.stack([transform(picture(k)) for k in range(20)])
    assert torch.equal(found, of_the_tests(one, tmp_path)[:20])


@pytest.mark.parametrize(("size", "kind"), [(20, Tensors), (80, Files)])
def test_pictures_of_folders_become_what_they_were_in_the_tests(
    size: int, kind: type, tmp_path: Path
) -> None:
    images = image_folder(tmp_path / "images", {"a": 6, "b": 6}, size=size)
    one = experiment(data=str(images), train_examples=None, image_size=size - 7)
    data = images_of(one, tmp_path)
    if kind is Files:
        one = one.model_copy(update={"image_size": 70})
        data = images_of(one, tmp_path)
    assert isinstance(data.test, kind)
    run = Run(tmp_path / "run")
    run.claim(one, data)
    run.finish(
        build(one.model, 2, 3).state_dict(),
        {"test_error": 50.0, "gradient_examples": 32, "seconds": 1.0},
    )
    model, classes, transform = load(tmp_path / "run")
    assert classes == ("a", "b")
    expected = of_the_tests(one, tmp_path)
    found = [transform(Image.open(path)) for path in sorted(images.glob("*/*.png"))]
    for x in expected:
        assert any(torch.equal(x, y) for y in found)
    assert model(found[0][None]).shape == (1, 2)


def test_pictures_of_any_size_and_mode_are_taken(whole: Path) -> None:
    model, _, transform = load(whole)
    for mode, size in (("RGB", (300, 40)), ("RGBA", (5, 9)), ("1", (8, 8))):
        x = transform(Image.new(mode, size))
        assert x.shape == (1, 8, 8)
        assert model(x[None]).shape == (1, 10)


def test_a_network_in_double_precision_is_shown_doubles(tmp_path: Path) -> None:
    model = leave(tmp_path / "run", experiment(precision="64-true")).double()
    save_file(model.state_dict(), tmp_path / "run" / "weights.safetensors")
    loaded, _, transform = load(str(tmp_path / "run"))
    x = transform(picture())
    assert x.dtype == torch.float64
    assert torch.equal(loaded(x[None]), model(x[None]))


@pytest.mark.parametrize("there", ["file", "folder"])
def test_nothing_is_overwritten(
    there: str, whole: Path, program: Program, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    if there == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    else:
        out.write_text("years of work")
    code, _, err = program("export", whole, "--out", out)
    assert code == 2
    if there == "file":
        assert err.endswith(f"'{out}' is a file, not a folder\n")
    else:
        assert err == (
            f"flatmin: {out} is not an empty folder. Choose another with --out.\n"
        )
    assert len(list(tmp_path.rglob("*"))) == (2 if there == "folder" else 1)


def unfinished(run: Path) -> None:
    (run / "result.json").unlink()


def of_an_older_version(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    del config["images"]
    (run / "config.json").write_text(json.dumps(config))


def damaged(run: Path) -> None:
    (run / "weights.safetensors").write_text("text")


def gone(run: Path) -> None:
    shutil.rmtree(run)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (unfinished, "is not finished. The command that began it continues it."),
        (of_an_older_version, "an older flatmin trained the run"),
        (damaged, "weights.safetensors cannot be read"),
        (gone, "is neither a run of flatmin train nor what flatmin export wrote"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_nothing_is_written(
    damage: object, message: str, whole: Path, program: Program, tmp_path: Path
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    assert callable(damage)
    damage(run)
    code, out, err = program("export", run, "--out", tmp_path / "model")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "model").exists()
    with pytest.raises(BadInput, match=message.split(".", maxsplit=1)[0]):
        load(run)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, r"config\.json is missing\. Export the run again\."),
        ("config.json", "[]", r"config\.json is damaged\. Export the run again\."),
        ("config.json", "{}", r"config\.json is damaged \(flatmin: field required\)"),
        ("model.safetensors", "text", r"model\.safetensors cannot be read"),
    ],
)
def test_a_damaged_export_is_refused(
    file: str,
    content: str | None,
    message: str,
    whole: Path,
    program: Program,
    tmp_path: Path,
) -> None:
    out = tmp_path / "model"
    assert program("export", whole, "--out", out)[0] == 0
    (out / file).unlink()
    if content is not None:
        (out / file).write_text(content)
    with pytest.raises(BadInput, match=message):
        load(out)


def test_an_export_beside_runs_is_no_run(
    whole: Path, program: Program, tmp_path: Path
) -> None:
    root = shutil.copytree(whole.parents[3], tmp_path / "runs")
    out = root / "figure1" / "model"
    assert program("export", root / RUN, "--out", out)[0] == 0
    assert program("sharpness", root / "figure1")[0] == 0


class Tied(nn.Module):
    """Two layers that share a weight, and a buffer that is a view of it."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 1)
        self.hidden, self.again = nn.Linear(8, 8), nn.Linear(8, 8)
        self.again.weight = self.hidden.weight
        self.head = nn.Linear(8, classes)
        self.register_buffer("row", self.hidden.weight.detach()[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).mean((2, 3))
        return self.head(self.again(self.hidden(x).relu()))


def test_a_network_with_shared_weights_is_stored_and_exported(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.SMALL, "tied", Tied)
    settings = ("model=tied", "model_options={}", "seeds=1")
    home = train_digits(tmp_path / "runs", *settings, name="figure1/sam").parent / RUN
    code, _, err = program("export", home, "--out", tmp_path / "model")
    assert (code, err) == (0, "")
    trained, exported = (load(folder).model for folder in (home, tmp_path / "model"))
    assert isinstance(trained, Tied)
    assert trained.again.weight is trained.hidden.weight
    weights = Run(home).weights()
    assert torch.equal(weights["again.weight"], weights["hidden.weight"])
    for name, w in exported.state_dict().items():
        assert torch.equal(weights[name], w), name


def test_what_is_packed_has_the_values_of_tensors_that_share_memory() -> None:
    whole = torch.arange(6.0).view(2, 3)
    weights = {"a": whole, "b": whole, "row": whole[1], "turned": whole.T}
    assert refusal(lambda: packed(weights)) == ""
    found = load_bytes(packed(weights))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], w) for name, w in weights.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"classes": 3}}, "classes is no option"),
        ({"options": {"channels": 3}}, "channels is no option"),
        ({"options": {"weights": "w.pth"}}, "weights is no option"),
        ({"options": {"name": "x"}}, "name is no option"),
        ({"options": {"width": -3}}, "cannot build small-convnet: "),
        ({"images": {"std": [0.0]}}, "images.std.0: input should be greater than 0"),
        ({"images": {"std": [1.0, 1.0]}}, "one number per channel each, got 1 and 2"),
        ({"images": {"size": [0, 8]}}, "images.size.0: input should be greater"),
        ({"images": {"side": -1}}, "images.side: input should be greater"),
        ({"of_tomorrow": 1}, "has the field of_tomorrow, which flatmin"),
        ({"images": {"crop": 1}}, "has the field images.crop, which flatmin"),
    ],
)
def test_a_foreign_configuration_is_refused_in_one_line(
    changes: dict[str, Any], said: str, whole: Path, program: Program, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    assert program("export", whole, "--out", out)[0] == 0
    path = out / "config.json"
    stored = json.loads(path.read_text())
    for name, value in changes.items():
        merged = {**stored[name], **value} if name == "images" else value
        stored[name] = merged
    path.write_text(json.dumps(stored))
    with pytest.raises(BadInput) as refused:
        load(out)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
