from pathlib import Path
from typing import Any

import pytest

from flatmin.experiments.datasets import Tensors
from flatmin.experiments.errors import BadInput
from flatmin.experiments.jobs import Request, data_of
from flatmin.experiments.recipes import recipe
from flatmin.experiments.sweep._grid import grid
from tests.experiments.datasets.written import write_tiny
from tests.experiments.sweep.helpers import CELL, RHOS, smoke


def test_the_grid_is_the_papers_with_a_tenth_held_out(tmp_path: Path) -> None:
    what = grid(Request(CELL, root=tmp_path))
    assert [point["rho"] for point in what.points] == RHOS
    (cell,) = recipe(CELL).cells
    for point in what.points:
        expected = {"rho": point["rho"], "validation": 0.1, "seed": 3}
        assert what.experiment(point, 3) == cell.arms[0].model_copy(update=expected)


@pytest.mark.usefixtures("unpublished")
def test_the_validation_images_are_a_tenth_of_those_of_training(
    tmp_path: Path,
) -> None:
    write_tiny("cifar10", tmp_path, per_class=10)
    request = Request(CELL, data=tmp_path)
    what = grid(request)
    every = data_of(what.arm.model_copy(update={"validation": 0.0}), request)
    data = data_of(what.experiment(what.points[0]), request)

    def images(split: Any) -> list[bytes]:
        assert isinstance(split, Tensors)
        return [x.numpy().tobytes() for x in split.x]

    trained, held = images(data.train), images(data.test)
    assert len(held) == 10
    assert not set(trained) & set(held)
    assert sorted(trained + held) == sorted(images(every.train))
    assert data.test.y.bincount().tolist() == [1] * 10


def test_lists_are_axes_and_the_last_one_runs_fastest(tmp_path: Path) -> None:
    what = grid(smoke(tmp_path, "rho=[0.1,1]", "spectrum_at=[1]", "batch_size=[4,8]"))
    assert what.axes == {"rho": (0.1, 1.0), "batch_size": (4, 8)}
    assert what.points == [
        {"rho": 0.1, "batch_size": 4},
        {"rho": 0.1, "batch_size": 8},
        {"rho": 1.0, "batch_size": 4},
        {"rho": 1.0, "batch_size": 8},
    ]
    assert what.arm.spectrum_at == (1,)


def test_another_axis_comes_on_top_of_the_papers_grid(tmp_path: Path) -> None:
    assert len(grid(smoke(tmp_path, "lr=[0.1,0.2,0.3]")).points) == 18
    assert grid(smoke(tmp_path, "lr=[0.1]", "rho=0.3")).points == [{"lr": 0.1}]


def test_other_settings_have_another_study_and_another_grid_has_not() -> None:
    name = grid(Request(CELL)).name
    assert grid(Request(CELL, ("rho=[0.3]",))).name == name
    assert grid(Request(CELL, ("epochs=3",))).name != name
    assert grid(Request(CELL, ("seeds=3",))).name != name
    assert grid(Request(CELL, ("rho=[0.3]", "lr=[0.1]"))).name != name


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("table4", (), "one cell with one arm. Choose one, such as table4/noise-20/s"),
        ("table4/noise-40", (), "such as table4/noise-40/sam, table4/noise-40/boots"),
        ("table4/noise-40/sgd", (), "is not what a sweep needs"),
        ("table4/noise-40/huang", (), "is not what a sweep needs"),
        ("table4/noise-40/sma", (), "did you mean 'table4/noise-40/sam'"),
        (CELL, ("rho=0.1",), "nothing to sweep"),
        (CELL, ("rho=[]",), "rho: a grid is a list of numbers"),
        (CELL, ('rho=["a"]',), "rho: a grid is a list of numbers"),
        (CELL, ("rho=[0.1,true]",), "rho: a grid is a list of numbers"),
        (CELL, ("rho=[0.1,0.1]",), "rho: the grid has a number twice"),
        (CELL, ("rho=[0.1,-1]",), "rho: Input should be greater than or equal to 0"),
        (CELL, ("batch_size=[256,100]",), "batch_size 100 is not a multiple of m 32"),
        (CELL, ("validation=0",), "validation: a sweep holds some training images out"),
        (CELL, ("seeds=[1,2]",), "seeds: must be a whole number"),
        (CELL, ("seed=[1,2]",), "seed: a recipe runs seeds 0, 1"),
        (CELL, ("precision=[1]",), "precision: Input should be"),
    ],
)
def test_what_cannot_be_swept_is_refused(
    name: str, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        grid(Request(name, settings))
    assert message in str(refused.value)
