"""A recipe's smoke test has its cells, on networks that train in seconds."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from flatmin.experiments.models import build
from flatmin.experiments.recipes import RECIPES, recipe, smoke

#: What makes a cell small; all else must be the recipe's.
SMALLER = {
    "model",
    "model_options",
    "weights",
    "image_size",
    "train_examples",
    "batch_size",
    "m",
    "epochs",
    "spectrum_at",
    "steps",
    "flatness_rho",
}

#: Small networks, and the kind of network that each stands for.
KINDS = {
    "resnet-8": ("resnet-20", "resnet-32"),
    "wrn-10-1": ("wrn-28-10", "wrn-40-2"),
    "wrn-10-1-no-bn": ("wrn-40-10-no-bn",),
    "shake-shake-8-2x8d": ("shake-shake-26-2x96d",),
    "pyramidnet-11": ("pyramidnet-272",),
    "pyramidnet-11-shakedrop": ("pyramidnet-272-shakedrop",),
    "samformer": ("samformer",),
    "bert-tiny": ("bert-tiny", "minilm-l6"),
    "test_resnet.r160_in1k": ("resnet50", "resnet101", "resnet152"),
    "test_efficientnet.r160_in1k": (
        "tf_efficientnet_b7.ra_in1k",
        "tf_efficientnet_l2.ns_jft_in1k_475",
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_cell_is_there_and_small(name: str) -> None:
    whole, small = recipe(name), smoke(recipe(name))
    assert (small.seeds, small.scale) == (1, "smoke")
    for large, cell in zip(whole.cells, small.cells, strict=True):
        assert (large.name, large.labels, large.at) == (
            cell.name,
            cell.labels,
            cell.at,
        )
        for before, arm in zip(large.arms, cell.arms, strict=True):
            same = before.model_dump(exclude=SMALLER)
            assert arm.model_dump(exclude=SMALLER) == same
            assert before.model in KINDS[arm.model]
            assert (arm.batch_size, arm.flatness_rho) == (8, None)
            steps = arm.steps or arm.epochs * (arm.train_examples or 0) // 8
            assert steps == 2 * max(len(arm.spectrum_at), 1)


@pytest.mark.parametrize(
    ("m", "want"), [("1", 1), ("4", 4), ("16", 4), ("64", 4), ("256", 8)]
)
def test_groups_stay_groups(m: str, want: int) -> None:
    cells = smoke(recipe(f"figure3-middle/m-{m}")).cells
    assert {arm.m for cell in cells for arm in cell.arms} == {want}


def test_spectra_are_measured_while_training() -> None:
    cells = smoke(recipe("figure3-left/sam")).cells
    assert [cell.epoch for cell in cells[::2]] == [1, 2, 3]


#: Those that do not take images.
OTHERS = {"samformer", "bert-tiny"}


@pytest.mark.parametrize("name", [name for name in KINDS if name not in OTHERS])
def test_a_small_network_trains_on_one_image(name: str) -> None:
    side = 32 if name.startswith("test_") else 16
    model = build(name, classes=10, weights="none")
    assert sum(p.numel() for p in model.parameters()) < 400_000
    # With fewer values BatchNorm would refuse to train; m can be 1.
    model.train(not name.startswith("test_"))
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    cross_entropy(model(x), torch.tensor([3])).backward()
    assert all(p.grad is not None for p in model.parameters())
