import re

import pytest

from flatmin.experiments.config import ARMS, Comparison, changed, recipe
from flatmin.experiments.errors import BadInput


def test_sgd_gets_the_gradients_that_sam_gets() -> None:
    cost = {arm.name: arm.length * arm.cost for arm in ARMS}
    assert cost == {"sgd": 1, "sgd-2x": 2, "sam": 2}


def test_settings_are_json_or_words() -> None:
    config = changed(
        recipe("digits"), ["epochs=7", "noise=[0.2, 0]", "device=cpu", "lr=1e-2"]
    )
    assert (config.epochs, config.noise, config.lr) == (7, (0.2, 0.0), 0.01)


def test_a_setting_leaves_the_other_fields_alone() -> None:
    old, new = recipe("digits").model_dump(), changed(recipe("digits"), ["rho=0.1"])
    assert new.model_dump() == {**old, "rho": 0.1}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "unknown field 'epoch'; did you mean 'epochs'?"),
        ("zzz=3", "unknown field 'zzz'; known: .*epochs"),
        ("epochs", "--set needs FIELD=VALUE, got 'epochs'"),
        ("rho=-1", "rho: .*greater than or equal to 0, got -1"),
        ("rho=big", "rho: .*valid number.*got 'big'"),
        ("rho=NaN", "rho: .*finite"),
        ("seeds=0", "seeds: .*greater than or equal to 1"),
        ("seeds=1.5", "seeds: .*integer"),
        ("noise=[1.2]", r"noise must be shares in \[0, 1\)"),
        ("noise=[0.2, 0.2]", "noise names a share twice"),
        ("noise=[]", "noise: .*at least 1"),
        ("device=tpu", "device: .*'cpu'"),
    ],
)
def test_a_bad_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        changed(recipe("digits"), [setting])
    assert re.search(message, str(refused.value)), str(refused.value)


def test_an_unknown_recipe_gets_the_nearest_name() -> None:
    with pytest.raises(BadInput, match="unknown recipe 'digit'; did you mean 'digits'"):
        recipe("digit")


def test_a_comparison_survives_json() -> None:
    config = recipe("digits")
    assert Comparison.model_validate_json(config.model_dump_json()) == config
