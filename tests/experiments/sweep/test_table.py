import shlex
from pathlib import Path

from flatmin.experiments.runs import Order
from flatmin.experiments.sweep._grid import grid
from flatmin.experiments.sweep._queue import Standing
from flatmin.experiments.sweep._table import best, markdown, report, train_command
from tests.experiments.sweep.helpers import CELL, RHOS, quiet, said, smoke


def standings(*errors: tuple[float, ...]) -> list[Standing]:
    rhos = RHOS[: len(errors)]
    return [Standing({"rho": r}, e) for r, e in zip(rhos, errors, strict=True)]


def test_the_best_point_has_the_lowest_mean_and_of_equals_the_first() -> None:
    found = standings((30.0, 10.0), (18.0, 20.0), (19.0, 19.0), (9.0, 40.0))
    assert best(found).point == {"rho": 0.02}


def test_the_table_has_the_interval_of_several_seeds() -> None:
    # Student's t of 0.975 with 1 degree of freedom is 12.706.
    assert markdown(standings((10.0, 12.0), (5.0, 5.0))) == (
        "| rho | validation error %, mean ± 95 % interval of 2 seeds |\n"
        "| --- | --- |\n"
        "| 0.01 | 11.00 ± 12.71 |\n"
        "| **0.02** | **5.00 ± 0.00** |\n"
    )
    assert markdown(standings((10.0,))).endswith("| **0.01** | **10.00** |\n")


def test_an_unfinished_sweep_says_what_is_left(tmp_path: Path) -> None:
    order, console = smoke(tmp_path), quiet()
    found = standings((10.0,), (), ())
    assert not report(grid(order), found, order, tmp_path, console)
    assert " ".join(said(console).split()) == (
        "2 of 3 points are left: rho 0.02; rho 0.05. The same command continues."
    )
    assert list(tmp_path.iterdir()) == []


def test_the_report_fits_80_columns(tmp_path: Path) -> None:
    order, console = smoke(tmp_path, "weight_decay=[0.0005]"), quiet()
    found = [Standing({"rho": r, "weight_decay": 5e-4}, (r, 2.0)) for r in RHOS]
    assert report(grid(order), found, order, tmp_path, console)
    lines = said(console).splitlines()
    assert max(len(line) for line in lines if "flatmin train" not in line) <= 80
    assert sum(line.rstrip().endswith("best") for line in lines) == 1


def test_the_command_that_trains_is_accepted_with_the_settings_of_the_sweep(
    tmp_path: Path,
) -> None:
    settings = ("epochs=7", "seeds=2", "rho=[0.1,0.2]", "validation=0.2")
    order = smoke(tmp_path, *settings)
    what = grid(order)
    words = shlex.split(train_command(what, order, what.points[1]))
    assert words == [
        *("flatmin", "train", CELL, "--set", "epochs=7", "--set", "rho=0.2", "--smoke")
    ]
    (cell,) = Order(CELL, ("epochs=7", "rho=0.2")).recipe().cells
    assert (cell.arms[0].rho, cell.arms[0].validation) == (0.2, 0.0)
