import subprocess
import sys

import pytest
import torch

from flatmin.experiments.errors import BadInput
from flatmin.experiments.models import build


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet50", 25.557),
        ("resnet101", 44.549),
        ("resnet152", 60.193),
        ("tf_efficientnet_b7.ra_in1k", 66.348),
        ("tf_efficientnet_l2.ns_jft_in1k_475", 480.309),
    ],
)
def test_networks_for_imagenet_are_timms(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = build(name, classes=1000, weights="none")
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 3) == millions


def test_options_reach_the_network() -> None:
    with torch.device("meta"):
        model = build("resnet18", classes=7, channels=1, weights="none", drop_rate=0.25)
        assert model.drop_rate == 0.25
        assert model(torch.empty(2, 1, 32, 32)).shape == (2, 7)
        narrow = build("pyramidnet-110", classes=10, alpha=48)
    # 1.7 M in the paper.
    count = sum(p.numel() for p in narrow.parameters())
    assert round(count / 1e6, 1) == 1.7


@pytest.mark.parametrize(
    ("name", "nearest"), [("wrn-28-1O", "wrn-28-10"), ("resnet5O", "resnet50")]
)
def test_an_unknown_name_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(BadInput, match=rf"called '{name}'. Did you mean .*{nearest}"):
        build(name, classes=10)


def test_a_name_like_nothing_gets_the_list() -> None:
    with pytest.raises(BadInput, match=r"There are resnet-20, .*timm.list_models"):
        build("?", classes=10)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r"'resnet50' is none of .*flatmin\[experiments"):
        build("resnet50", classes=10)
    build("resnet-20", classes=10)


def test_timm_is_imported_for_its_own_networks_alone() -> None:
    code = (
        "import sys; from flatmin.experiments.models import build; "
        "build('resnet-20', 10); sys.exit('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
