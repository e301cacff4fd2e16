"""Where a comparison is, and what its file must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from flatmin.experiments.compare.place import claim, parts, read, read_place
from flatmin.experiments.compare.request import digits
from flatmin.experiments.datasets import DataSet, Tensors
from flatmin.experiments.errors import BadInput


def stored(root: Path) -> dict[str, Any]:
    """Begin a comparison of the digits in a folder; return what its file holds."""
    what = digits()
    claim(root, root, what, read(what, root))
    found: dict[str, Any] = json.loads((root / "comparison.json").read_text())
    return found


def test_a_comparison_is_read_as_it_was_begun(tmp_path: Path) -> None:
    found = stored(tmp_path)
    what, place = read_place(tmp_path, tmp_path)
    assert what == digits()
    assert place.images == found["images"] == {"noise-40": 900, "few": 100}
    assert place.data_sha256 == found["data_sha256"]
    assert place.data_sha256.keys() == {"noise-40", "few"}


@pytest.mark.parametrize("field", ["images", "data_sha256"])
@pytest.mark.parametrize("names", [[], ["few"], ["few", "noise-40", "more"]])
def test_a_file_without_the_images_of_each_setting_is_damaged(
    field: str, names: list[str], tmp_path: Path
) -> None:
    found = stored(tmp_path)
    found[field] = dict.fromkeys(names, found[field]["few"])
    (tmp_path / "comparison.json").write_text(json.dumps(found))
    with pytest.raises(BadInput, match=r"comparison.json is damaged .*noise-40"):
        read_place(tmp_path, tmp_path)


def with_weights(path: Path, root: Path) -> None:
    """Begin, or continue, a comparison whose networks begin with this file."""
    one = digits().experiment.model_copy(update={"weights": str(path)})
    what = digits().model_copy(update={"experiment": one})
    claim(root, root, what, read(what, root))


def test_other_weights_in_the_same_file_are_another_comparison(tmp_path: Path) -> None:
    path, root = tmp_path / "w.safetensors", tmp_path / "runs"
    path.write_bytes(b"pretrained")
    with_weights(path, root)
    with_weights(path, root)
    path.write_bytes(b"trained further")
    with pytest.raises(BadInput, match=r"\(different: the file of weights\)"):
        with_weights(path, root)


def test_weights_that_are_gone_begin_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read .*gone\.pth: No such file"):
        with_weights(tmp_path / "gone.pth", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_held_out_images_are_counted_as_they_are_drawn() -> None:
    """Of each class one at least, though that is more than the share."""
    y = torch.arange(20).repeat(5)
    images = Tensors(torch.zeros(len(y), 1, 8, 8, dtype=torch.uint8), y)
    names = tuple(map(str, range(20)))
    data = DataSet("made", images, images, names, (0.5,), (0.5,), None, "twice")
    what = digits()
    assert parts(what, what.settings[0], data) == (80, 20)


def continued(root: Path, found: dict[str, Any]) -> None:
    (root / "comparison.json").write_text(json.dumps(found))
    what = digits()
    claim(root, root, what, read(what, root))


def test_a_comparison_of_an_older_version_without_a_setting_goes_on(
    tmp_path: Path,
) -> None:
    found = stored(tmp_path)
    del found["weights_sha256"], found["comparison"]["experiment"]["true_class"]
    continued(tmp_path, found)


def test_a_comparison_of_a_newer_version_is_not_continued(tmp_path: Path) -> None:
    found = stored(tmp_path)
    found["comparison"]["experiment"]["of_tomorrow"] = 3
    with pytest.raises(BadInput, match=r"comparison\.experiment\.of_tomorrow, which"):
        continued(tmp_path, found)
