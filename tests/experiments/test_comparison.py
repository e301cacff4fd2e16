"""What the runs of a comparison have in common, and what tells them apart."""

from flatmin.experiments.comparison import Run, grid
from flatmin.experiments.config import ARMS, Comparison
from tests.experiments.helpers import tiny


def test_arms_differ_in_method_and_length_alone() -> None:
    config = tiny(noise=(0.4, 0.0))
    by_cell: dict[tuple[float, int], list[Run]] = {}
    for run in grid(config):
        by_cell.setdefault((run.noise, run.seed), []).append(run)
    assert sorted(by_cell) == [(0.0, 0), (0.0, 1), (0.4, 0), (0.4, 1)]
    for (noise, seed), runs in by_cell.items():
        experiments = [run.experiment for run in runs]
        told = [(e.method, e.length) for e in experiments]
        assert told == [("sgd", 1), ("sgd", 2), ("sam", 1)]
        assert {(e.noise, e.seed) for e in experiments} == {(noise, seed)}
        alike = {"method": "sam", "length": 1}
        assert all(e.model_copy(update=alike) == experiments[2] for e in experiments)


def test_the_experiment_has_every_setting_of_the_comparison() -> None:
    config = Comparison(
        data="/images", image_size=48, epochs=7, batch_size=16, lr=0.3, momentum=0.8,
        weight_decay=0.01, rho=0.2, width=12, sharpness_rho=0.7, device="cuda",
    )  # fmt: skip
    found = Run(config, ARMS[2], 0.1, 5).experiment.model_dump()
    for name in (
        "data", "image_size", "epochs", "batch_size", "lr", "momentum",
        "weight_decay", "rho", "device",
    ):  # fmt: skip
        assert found[name] == getattr(config, name)
    assert found["model_options"] == {"width": 12}
    assert found["flatness_rho"] == 0.7
    assert found["augment"] == ()


def test_digits_keep_their_size() -> None:
    assert Run(Comparison(), ARMS[0], 0.0, 0).experiment.image_size is None


def test_the_cost_of_an_arm_is_its_share_of_the_progress() -> None:
    arm = ARMS[2].model_copy(update={"length": 2})
    assert Run(tiny(epochs=3), arm, 0.0, 0).cost == 12
