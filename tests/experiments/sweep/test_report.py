import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

from flatmin.experiments.jobs import Request
from flatmin.experiments.sweep._grid import grid
from flatmin.experiments.sweep._report import report, table, train_command
from flatmin.experiments.sweep._study import Standing
from tests.experiments.sweep.helpers import CELL, RHOS, quiet, said, smoke


def standings(*errors: tuple[float, ...]) -> list[Standing]:
    rhos = RHOS[: len(errors)]
    return [Standing({"rho": r}, e) for r, e in zip(rhos, errors, strict=True)]


def test_the_table_has_the_interval_of_several_seeds_and_the_ties() -> None:
    # Student's t of 0.975 with 1 degree of freedom is 12.706.
    assert table(standings((10.0, 12.0), (5.0, 5.0), (8.0, 8.1))).markdown() == (
        "| rho | validation error %, mean ± 95 % interval of 2 seeds | over 2 seeds |\n"
        "| ---: | ---: | --- |\n"
        "| 0.01 | 11.00 ± 12.71 | not distinguishable from the best |\n"
        "| **0.02** | **5.00 ± 0.00** | **best** |\n"
        "| 0.05 | 8.05 ± 0.64 |  |\n"
    )
    last = table(standings((10.0,))).markdown().splitlines()[-1]
    assert last == "| **0.01** | **10.00** | **best** |"


def reported(tmp_path: Path, found: list[Standing]) -> tuple[str, dict[str, Any]]:
    """What is printed, in one line, and what is written for programs."""
    request, console = smoke(tmp_path), quiet()
    assert report(grid(request), found, request, tmp_path, console)
    text = " ".join(said(console).split())
    return text, json.loads((tmp_path / "best.json").read_text())


def test_ties_are_named_as_ties(tmp_path: Path) -> None:
    # The third is worse with every seed, the first only in the mean.
    found = standings((9.0, 12.0, 14.0), (10.0, 11.0, 13.9), (15.0, 16.1, 19.0))
    text, record = reported(tmp_path, found)
    assert "over 3 seeds" in text
    assert text.count("not distinguishable from the best") == 1
    assert (record["point"], record["ties"]) == ({"rho": 0.02}, [{"rho": 0.01}])


def test_one_seed_ties_equal_errors_and_says_how_to_tell_more(tmp_path: Path) -> None:
    text, record = reported(tmp_path, standings((9.0,), (9.0,), (9.1,)))
    assert text.count("not distinguishable from the best") == 1
    assert "over 1 seed " in text
    assert "One seed has no interval: --set seeds=3 tells more." in text
    assert (record["point"], record["ties"]) == ({"rho": 0.01}, [{"rho": 0.02}])


def test_without_ties_none_is_named(tmp_path: Path) -> None:
    text, record = reported(tmp_path, standings((9.0, 9.1), (12.0, 12.1)))
    assert "not distinguishable" not in text
    assert record["ties"] == []


def test_an_unfinished_sweep_says_what_is_left(tmp_path: Path) -> None:
    request, console = smoke(tmp_path), quiet()
    found = standings((10.0,), (), ())
    assert not report(grid(request), found, request, tmp_path, console)
    assert " ".join(said(console).split()) == (
        "2 of 3 points are left: rho 0.02; rho 0.05. The same command continues."
    )
    assert list(tmp_path.iterdir()) == []


def test_the_report_fits_80_columns(tmp_path: Path) -> None:
    request, console = smoke(tmp_path, "weight_decay=[0.0005]"), quiet()
    found = [Standing({"rho": r, "weight_decay": 5e-4}, (r, 2.0)) for r in RHOS]
    assert report(grid(request), found, request, tmp_path, console)
    lines = said(console).splitlines()
    rows = [line for line in lines if line.strip()[:1].isdigit()]
    assert len(rows) == 6
    assert max(map(len, rows)) <= 80
    verdicts = [" ".join(line.split()[5:]) for line in rows]
    assert verdicts == ["best"] + ["not distinguishable from the best"] * 5


def test_the_command_that_trains_is_accepted_with_the_settings_of_the_sweep(
    tmp_path: Path,
) -> None:
    settings = ("epochs=7", "seeds=2", "rho=[0.1,0.2]", "validation=0.2")
    request = smoke(tmp_path, *settings)
    what = grid(request)
    words = shlex.split(train_command(what, request, what.points[1]))
    assert words == [
        *("flatmin", "train", CELL, "--set", "epochs=7", "--set", "rho=0.2"),
        *("--out", str(tmp_path), "--smoke"),
    ]
    elsewhere = dataclasses.replace(request, root=Path("runs"), data=Path("my data"))
    words = shlex.split(train_command(what, elsewhere, what.points[1]))
    assert words[-3:] == ["--data", "my data", "--smoke"]
    assert "--out" not in words
    (cell,) = Request(CELL, ("epochs=7", "rho=0.2")).recipe().cells
    assert (cell.arms[0].rho, cell.arms[0].validation) == (0.2, 0.0)
