"""From what the command line is given to what is compared."""

import re
from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments.compare.plan import Comparison
from flatmin.experiments.compare.request import Asked, changed, digits
from flatmin.experiments.errors import BadInput
from tests.experiments.helpers import image_folder


def test_settings_are_json_or_words_of_the_comparison_or_of_its_runs() -> None:
    what = changed(digits(), ["seeds=5", "batch_size=9", "device=cpu", "lr=1e-2"])
    assert what.seeds == 5
    for setting in what.settings:
        one = what.common(setting)
        assert (one.batch_size, one.device, one.lr) == (9, "cpu", 0.01)


def test_a_setting_leaves_the_other_fields_alone() -> None:
    old, new = digits().model_dump(), changed(digits(), ["rhos=[0.1]"]).model_dump()
    assert new == {**old, "rhos": (0.1,)}


def test_shares_of_noise_are_the_settings() -> None:
    what = changed(digits(), ["noise=[0.2, 0]"])
    assert [what.common(one).noise for one in what.settings] == [0.2, 0.0]
    assert [one.name for one in what.settings] == ["noise-20", "noise-0"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "unknown field 'epoch'; did you mean 'epochs'?"),
        ("zzz=3", "unknown field 'zzz'; known: .*epochs"),
        ("rho=0.1", "unknown field 'rho'; did you mean 'rhos'?"),
        ("epochs", "--set needs FIELD=VALUE, got 'epochs'"),
        ("rhos=-1", "rhos: .*tuple"),
        ("rhos=[-1]", "rhos must be above 0"),
        ("rhos=[big]", "rhos: "),
        ("rhos=NaN", "rhos: "),
        ("seeds=0", "seeds: .*greater than or equal to 1"),
        ("seeds=1.5", "seeds: .*integer"),
        ("noise=[1.2]", r"noise: must be shares from 0 to below 1"),
        ("noise=[0.2, 0.2]", "noise names a share twice"),
        ("noise=[]", "noise: must be shares"),
        ("noise=true", "noise: must be shares"),
        ("device=tpu", "device: .*'cpu'"),
        ("lengths=[1]", "give the base more lengths or lrs"),
        ("lengths=[1e308, 1, 2]", "lengths must be above 0, at most 1000"),
        ("steps=5", "steps"),
        ("length=3", "length"),
        ("train_examples=200", "one of the settings is a number of training images"),
    ],
)
def test_a_bad_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        changed(digits(), [setting])
    assert re.search(message, str(refused.value)), str(refused.value)


def test_a_comparison_survives_json() -> None:
    what = digits()
    assert Comparison.model_validate_json(what.model_dump_json()) == what


def test_a_folder_is_fine_tuned_with_its_labels_left_alone(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos", {"a": 4, "b": 4})
    what = Asked(str(root), model="resnet18", weights="w.pth").comparison()
    [setting] = what.settings
    one = what.common(setting)
    assert (one.data, one.model, one.weights) == (str(root), "resnet18", "w.pth")
    assert (one.noise, one.lr) == (0.0, 0.01)
    assert "flip" in one.augment
    assert one.channels_last
    assert setting.label == "photos"


def test_training_from_scratch_takes_larger_steps_for_longer(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "photos", {"a": 4, "b": 4})
    tuned, scratch = (
        Asked(str(root), weights=weights, optimizer="adamw").comparison().experiment
        for weights in ("w.pth", "none")
    )
    assert scratch.lr > tuned.lr
    assert scratch.epochs > tuned.epochs
    assert tuned.optimizer == "adamw"


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(BadInput, match=r"no such folder: .*gone.* 'digits'"):
        Asked(str(gone)).comparison()


@pytest.mark.parametrize(
    "given", [{"optimizer": "adamw"}, {"weights": "none"}, {"model": "resnet50"}]
)
def test_options_of_a_folder_are_refused_for_the_digits(given: Any) -> None:
    with pytest.raises(BadInput, match="the digits have a network of their own"):
        Asked("digits", **given).comparison()
