"""What is trained is what the paper says it trained."""

import pytest

from flatmin.experiments.config import Experiment
from flatmin.experiments.recipes import RECIPES, recipe
from tests.experiments.recipes import printed

#: Recipes whose cells without SAM have one length, and why.
ONE_LENGTH = {
    "table2": "has rows for every length",
    "table8": "is a search for rho",
    "figure3-left": "shows a moment of training",
}


def one(name: str) -> Experiment:
    (cell,) = recipe(name).cells
    return cell.arms[0]


@pytest.mark.parametrize("name", RECIPES)
def test_sgd_may_train_twice_as_long_and_sam_may_not(name: str) -> None:
    for cell in recipe(name).cells:
        lengths = sorted(arm.length for arm in cell.arms)
        without = {arm.method for arm in cell.arms} == {"sgd"}
        if without and name not in ONE_LENGTH:
            assert lengths.count(1) == lengths.count(2) == len(lengths) / 2
        elif cell.arms:
            assert lengths == [1]


@pytest.mark.parametrize("name", RECIPES)
def test_arms_of_a_cell_differ_in_length_and_alpha_alone(name: str) -> None:
    for cell in recipe(name).cells:
        alike = [arm.model_copy(update={"length": 1, "mixup": 0}) for arm in cell.arms]
        assert all(arm == alike[0] for arm in alike)


@pytest.mark.parametrize("name", ["table1", "table3", "table5", "figure1"])
def test_sgd_differs_from_sam_in_method_rho_and_length_alone(name: str) -> None:
    arms = {cell.name: cell.arms for cell in recipe(name).cells}
    for cell in (cell for cell in arms if cell.endswith("/sgd")):
        (sam,) = arms[cell.removesuffix("sgd") + "sam"]
        changes = {"method": "sgd", "rho": 0.0}
        assert sam.model_copy(update=changes) == arms[cell][0]


def test_settings_of_table_6() -> None:
    for network, *texts in printed.lines(printed.TABLE6):
        lr10, lr100, decay, rho10, rho100 = map(float, texts)
        for data, lr, rho in (("cifar10", lr10, rho10), ("cifar100", lr100, rho100)):
            for cell in recipe(f"table1/{data}/{network}").cells:
                for arm in cell.arms:
                    assert (arm.data, arm.lr, arm.weight_decay) == (data, lr, decay)
                    assert arm.rho == (rho if arm.method == "sam" else 0)


def test_settings_of_table_7() -> None:
    for data, network, *texts in printed.lines(printed.TABLE7):
        lr, decay, rho = map(float, texts)
        for cell in recipe(f"table5/{data}/{network}").cells:
            for arm in cell.arms:
                assert (arm.data, arm.lr, arm.weight_decay) == (data, lr, decay)
                assert arm.rho == (rho if arm.method == "sam" else 0)


@pytest.mark.parametrize("name", ["table1", "table4", "table5", "table9", "figure1"])
def test_small_images_come_in_batches_of_256_on_8_accelerators(name: str) -> None:
    for cell in recipe(name).cells:
        for arm in cell.arms:
            assert (arm.batch_size, arm.batch_size // (arm.m or 0)) == (256, 8)
            assert (arm.momentum, arm.nesterov, arm.clip) == (0.9, False, None)


@pytest.mark.parametrize(
    ("slug", "model", "epochs"),
    [
        ("wrn-28-10-200", "wrn-28-10", 200),
        ("wrn-28-10-1800", "wrn-28-10", 1800),
        ("shake-shake", "shake-shake-26-2x96d", 1800),
        ("pyramidnet", "pyramidnet-272", 1800),
        ("pyramidnet-shakedrop", "pyramidnet-272-shakedrop", 1800),
    ],
)
def test_networks_of_table_1(slug: str, model: str, epochs: int) -> None:
    arm = one(f"table1/cifar100/{slug}/aa/sam")
    assert (arm.model, arm.epochs, arm.model_options) == (model, epochs, {})


def test_augmentations() -> None:
    basic = ("flip", "crop")
    table1, table5 = "table1/cifar10/wrn-28-10-200", "table5/{}/wrn-28-10/{}/sam"
    assert one(f"{table1}/basic/sam").augment == basic
    assert one(f"{table1}/cutout/sam").augment == (*basic, "cutout")
    assert one(f"{table1}/aa/sam").augment == ("auto_augment", *basic, "cutout")
    assert one(table5.format("svhn", "basic")).augment == basic
    assert one(table5.format("svhn", "aa")).augment == ("auto_augment", "cutout")
    assert one(table5.format("fashion-mnist", "aa")).augment == (*basic, "cutout")


def test_imagenet_is_that_of_the_paper() -> None:
    want = Experiment(
        data="imagenet",
        image_size=224,
        augment=("random_resized_crop", "flip"),
        model="resnet101",
        weights="none",
        rho=0.05,
        m=128,
        lr=1.0,
        weight_decay=1e-4,
        label_smoothing=0.1,
        batch_size=4096,
        epochs=400,
        flatness_rho=None,
    )
    assert one("table2/resnet-101/400-epochs/sam/top-1") == want
    top1, top5 = recipe("table2/resnet-101/400-epochs/sam").cells
    assert (top1.metric, top5.metric) == ("test_error", "top5_error")
    assert top1.folder == top5.folder == "table2/resnet-101/400-epochs/sam"


@pytest.mark.parametrize(
    ("cell", "batch", "m", "lr", "steps", "epochs", "side"),
    [
        ("cars/b7", 1024, 16, 0.016, 5000, 200, 600),
        ("cars/l2", 512, 4, 0.008, 10000, 200, 475),
        ("imagenet/b7", 1024, 16, 0.1, None, 10, 600),
        ("imagenet/l2", 512, 4, 0.1, None, 10, 475),
    ],
)
def test_fine_tuning(
    cell: str, batch: int, m: int, lr: float, steps: int | None, epochs: int, side: int
) -> None:
    arm = one(f"table3/{cell}/sam")
    assert (arm.batch_size, arm.m, arm.lr) == (batch, m, lr)
    assert (arm.steps, arm.epochs, arm.image_size) == (steps, epochs, side)
    assert (arm.weight_decay, arm.rho, arm.freeze_norm) == (1e-5, 0.05, True)
    assert arm.weights is None


def test_auto_augment_is_for_the_cifar_sets_when_fine_tuning() -> None:
    augmented = {
        cell.name.split("/")[1]
        for cell in recipe("table3").cells
        if any("auto_augment" in arm.augment for arm in cell.arms)
    }
    assert augmented == {"cifar10", "cifar100"}


@pytest.mark.parametrize("noise", [20, 40, 60, 80])
def test_label_noise(noise: int) -> None:
    cells = {cell.labels[1]: cell for cell in recipe(f"table4/noise-{noise}").cells}
    rho = 0.05 if noise == 80 else 0.1
    (sam,), (again,) = cells["SAM"].arms, cells["Bootstrap + SAM"].arms
    assert (sam.rho, again.rho) == (rho, rho)
    assert (sam.model, sam.epochs, sam.lr, sam.weight_decay) == (
        "resnet-32",
        200,
        0.1,
        2e-4,
    )
    for label, cell in cells.items():
        assert cell.metric == "test_accuracy"
        for arm in cell.arms:
            assert (arm.noise, arm.true_class) == (noise / 100, True)
            assert arm.bootstrap == label.startswith("Bootstrap")
        alphas = {arm.mixup for arm in cell.arms}
        mixed = label in ("Mixup", "Bootstrap + Mixup")
        assert alphas == ({1, 8, 16, 32} if mixed else {None} if cell.arms else set())


def test_numbers_of_others_are_quoted_alone() -> None:
    quoted = [cell for name in RECIPES for cell in recipe(name).cells if not cell.arms]
    assert len(quoted) == 28 + 18
    assert all(cell.paper is not None for cell in quoted)


def test_table_8_is_a_search_on_a_tenth_of_the_training_set() -> None:
    for cell in recipe("table8").cells:
        (arm,) = cell.arms
        assert (arm.validation, arm.bootstrap) == (0.1, True)
        assert f"{arm.rho:g}" == cell.labels[1]
        assert arm.method == ("sgd" if arm.rho == 0 else "sam")


def test_tables_9_and_10_have_one_rho() -> None:
    for name in ("table9", "table10"):
        assert {a.rho for cell in recipe(name).cells for a in cell.arms} == {0.05}


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_steps_up(steps: int) -> None:
    error, sharpness = recipe(f"table11/cifar100/steps-{steps}").cells
    (arm,) = error.arms
    assert (arm.method, arm.method_options) == ("multi_step_sam", {"k": steps})
    assert (arm.model, arm.rho, arm.flatness_rho) == ("wrn-28-10", 0.1, 0.1)
    assert (error.metric, sharpness.metric) == ("test_error", "error_sharpness")
    assert error.folder == sharpness.folder
    assert recipe("table11").seeds == 20


def test_spectra_are_those_of_the_epochs_in_the_labels() -> None:
    for cell in recipe("figure3-left").cells:
        (arm,) = cell.arms
        assert arm.spectrum_at == (1, 50, 300)
        assert (arm.model, arm.epochs) == ("wrn-40-10-no-bn", 300)
        assert str(cell.epoch) == cell.labels[1]
        assert cell.folder == f"figure3-left/{arm.method}"


def test_m_and_rho_of_figure_3() -> None:
    places = {(a.m, a.rho) for c in recipe("figure3-middle").cells for a in c.arms}
    rhos = (0.01, 0.02, 0.05, 0.1, 0.15)
    assert places == {(m, rho) for m in (1, 4, 16, 64, 256) for rho in rhos}


def test_the_appendix_compares_methods_on_one_network() -> None:
    first, second = recipe("c4").cells
    assert [c.arms[0].method for c in (first, second)] == ["sam", "second_order_sam"]
    kinds = {
        (cell.labels[0], arm.method, arm.method_options.get("p"))
        for cell in recipe("c5").cells
        for arm in cell.arms
    }
    assert kinds == {
        ("p = 2", "sam", None),
        ("p = inf", "sam", "inf"),
        ("random", "random_sam", None),
    }
    models = {a.model for n in ("c4", "c5") for c in recipe(n).cells for a in c.arms}
    assert models == {"wrn-40-2"}
