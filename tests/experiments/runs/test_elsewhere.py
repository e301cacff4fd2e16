"""Networks that were trained elsewhere: the same numbers as by hand, and refusals."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data.config import resolve_data_config
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from flatmin.diagnostics import Objective, eigenvalues, sharpness
from flatmin.experiments.datasets import _folder
from flatmin.experiments.runs.elsewhere import Network, elsewhere
from tests.experiments.helpers import Program, image_folder

MODEL = "test_efficientnet.r160_in1k"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks of three outputs, and images of two classes."""
    root = tmp_path_factory.mktemp("elsewhere")
    image_folder(root / "photos", {"ants": 4, "bees": 3}, size=40)
    weights = network(0, 3).state_dict()
    save_file(weights, root / "a.safetensors")
    whole = {"epoch": 3, "state_dict": network(1, 3).state_dict()}
    torch.save(whole, root / "b.pth")
    return root


def network(seed: int, outputs: int) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model(MODEL, num_classes=outputs)
    return model.eval()


def by_hand(root: Path, seed: int) -> Objective:
    """All images, cut and scaled as timm's settings for the network say."""
    model: Any = network(seed, 3)
    found = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    mean, std = (torch.tensor(found[name])[:, None, None] for name in ("mean", "std"))
    names = [f"ants/{k}.png" for k in range(4)] + [f"bees/{k}.png" for k in range(3)]
    images: list[torch.Tensor] = []
    for name in names:
        with Image.open(root / "photos" / name) as image:
            x = pil_to_tensor(image)[None]
        images.append(center_crop(resize(x, [37], antialias=True), [32, 32]))
    x, y = torch.cat(images).float() / 255, torch.tensor([0] * 4 + [1] * 3)
    return Objective(model, cross_entropy, [((x - mean) / std, y)])


def measured(root: Path, *more: object) -> tuple[object, ...]:
    where = ("--data", root / "photos", "--model", MODEL, "--image-size", 32)
    return (*where, "--classes", 3, *more)


def test_sharpness_is_that_of_the_diagnostics_on_all_images(
    program: Program, root: Path
) -> None:
    files = root / "a.safetensors", root / "b.pth"
    code, out, err = program("sharpness", *files, *measured(root, "--json", "--m=7"))
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [one["method"] for one in found] == ["a.safetensors", "b.pth"]
    for seed, one in enumerate(found):
        objective = by_hand(root, seed)
        assert one["rho"] == 0.05
        expected = sharpness(objective, 0.05).value
        assert one["sharpness"] == pytest.approx(expected, rel=1e-3)
        expected = eigenvalues(objective, 1).value
        assert one["lambda_max"] == pytest.approx(expected, rel=1e-2)
        # Nobody knows how they were trained.
        assert not {"seed", "noise"} & one.keys()


def test_the_table_names_the_files(
    program: Program, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    code, out, err = program("sharpness", root / "b.pth", *measured(root, "--m=7"))
    assert (code, err) == (0, "")
    titles, row = out.splitlines()
    assert titles.split()[:2] == ["method", "sharpness"]
    assert row.startswith("b.pth ")


def test_landscapes_of_two_files_are_drawn(
    program: Program, root: Path, tmp_path: Path
) -> None:
    files = root / "a.safetensors", root / "b.pth"
    more = measured(root, "--points", 3, "--out", tmp_path)
    code, _, err = program("landscape", *files, *more)
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "landscape.json").read_text())
    assert list(found) == ["a.safetensors", "b.pth"]
    centre = found["b.pth"]["losses"][1][1]
    assert centre == pytest.approx(by_hand(root, 1).loss().item(), rel=1e-5)


def test_train_is_measured_of_a_folder_with_parts(root: Path, tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"ants": 2, "bees": 3}, size=40)
    image_folder(tmp_path / "test", {"ants": 5, "bees": 5}, size=40)
    asked = Network(MODEL, classes=3, size=32)
    [found] = elsewhere([root / "a.safetensors"], tmp_path, asked)
    assert found.data().train.y.tolist() == [0, 0, 1, 1, 1]


def test_the_side_is_that_of_timms_weights_by_default(root: Path) -> None:
    asked = Network(MODEL, classes=3)
    [found] = elsewhere([root / "a.safetensors"], root / "photos", asked)
    [batch] = found.batches(7)
    assert batch[0].shape == (7, 3, 160, 160)


BAD: list[tuple[tuple[str, ...], str]] = [
    (("{root}/a.safetensors",), "--model NAME --data FOLDER"),
    (("{root}/gone.pth", "{given}"), "no such file of weights"),
    (("{root}/photos", "{given}"), "no such file of weights"),
    (("{root}/photos", "--classes=3"), "with --model NAME"),
    (("{root}/a.safetensors", "{root}/a.safetensors", "{given}"), "given twice"),
    (("{root}/photos/ants/0.png", "{given}"), "weights are read from .safetensors"),
    (("{tmp}/evil.pth", "{given}"), "holds more than tensors"),
    (("{tmp}/cut.safetensors", "{given}"), "is damaged"),
    (("{root}/a.safetensors", "{images}", "--model=resnet1"), "resnet1"),
    (("{root}/a.safetensors", "{images}", "--model=resnet18"), "another network"),
    (("{root}/a.safetensors", "{images}", "--model=wrn-10-1"), "--image-size N"),
    # The folder's two classes are not the three outputs.
    (
        ("{root}/a.safetensors", "{images}", f"--model={MODEL}"),
        "classifier.weight is [3, 256] in place of [2, 256]",
    ),
    (("{root}/a.safetensors", "{given}", "--image-size=3"), "image_size"),
    (("{root}/a.safetensors", f"--model={MODEL}", "--data={tmp}/x"), "no such folder"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    program: Program,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(print))
    (tmp_path / "cut.safetensors").write_bytes(b"\0\1")
    images = f"--data={root}/photos"
    given = [images, f"--model={MODEL}", "--classes=3", "--image-size=32"]
    words: list[str] = []
    for argument in arguments:
        named = argument.format(root=root, tmp=tmp_path, given="GIVEN", images=images)
        words += given if named == "GIVEN" else [named]
    before = sorted(tmp_path.rglob("*"))
    code, out, err = program("landscape", *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_fewer_outputs_than_classes_are_refused(program: Program, root: Path) -> None:
    image_folder(root / "many", dict.fromkeys("abcd", 1))
    where = ("--data", root / "many", "--model", MODEL, "--classes", 3)
    code, _, err = program("sharpness", root / "a.safetensors", *where)
    assert code == 2
    assert "has 4 classes, more than the 3 of --classes" in err


def test_more_images_than_fit_in_memory_are_refused(
    program: Program, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_folder, "_MOST", 7 * 3 * 32 * 32 - 1)
    code, _, err = program("sharpness", root / "a.safetensors", *measured(root))
    assert code == 2
    assert "7 images of 32 x 32 pixels need" in err


def test_a_folder_with_the_name_of_a_data_set_is_a_folder(
    root: Path, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images are normalised as the network's weights were trained."""
    (tmp_path / "pets").symlink_to(root / "photos")
    monkeypatch.chdir(tmp_path)
    found = [
        program(
            "sharpness", root / "a.safetensors", "--data", data, "--model", MODEL,
            "--classes", 3, "--image-size", 32, "--json", "--m=7",
        )
        for data in ("pets", tmp_path / "pets")
    ]  # fmt: skip
    assert [code for code, *_ in found] == [0, 0]
    one, other = (json.loads(out) for _, out, _ in found)
    assert one == other


def test_names_are_printed_as_they_are(
    root: Path, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first = tmp_path / "best[epoch=3].safetensors"
    second = tmp_path / "x:100:[" / "y].safetensors"
    second.parent.mkdir()
    for file in (first, second):
        file.write_bytes((root / "a.safetensors").read_bytes())
    code, out, err = program("sharpness", first, second, *measured(root, "--m=7"))
    assert (code, err) == (0, "")
    for file in (first, second):
        assert file.name in out
