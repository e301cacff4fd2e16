"""The report as files, and the command; what it does with damaged and moved folders."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from flatmin.experiments import recipes
from flatmin.experiments.errors import BadInput
from flatmin.experiments.recipes._recipe import Cell, Paper, Recipe
from flatmin.experiments.report import _tables, render, report
from flatmin.experiments.report._numbers import records
from tests.experiments.helpers import Program, unreadable
from tests.experiments.report.folders import (
    SAM,
    SGD,
    START,
    begin,
    collected,
    complete,
    finish,
    start,
    tablet,
    write_report,
)

EVIL = "</script><script>alert('x')</script>\"&|"

RUN = "tablet/noise-20/sam/x1/seed-1"


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with its report."""
    root = tmp_path_factory.mktemp("reported") / "runs"
    recipe = complete(root, tablet(("20", "40", "60")))
    write_report(root, recipe)
    return root


def test_json_has_the_numbers_and_writes_nothing(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = complete(tmp_path, tablet())
    monkeypatch.setitem(recipes.RECIPES, "tablet", lambda: recipe)
    before = contents(tmp_path)
    code, out, err = program("report", tmp_path, "--json")
    assert (code, err) == (0, "")
    (found,) = json.loads(out)
    assert (found["recipe"], found["folder"]) == ("tablet", str(tmp_path))
    assert found["arms"] == records(collected(tmp_path, recipe))
    assert contents(tmp_path) == before


def test_page_tables_and_figures_are_written(reported: Path) -> None:
    written = {name for name in contents(reported) if not name.startswith("tablet/")}
    assert written == {
        "recipe-tablet.json",
        "report.html",
        "tables/tablet.md",
        "tables/tablet.csv",
        *(
            f"figures/tablet-{kind}.{end}"
            for kind in ("curves", "trend")
            for end in ("svg", "png")
        ),
    }
    svg = (reported / "figures/tablet-curves.svg").read_text()
    assert "SGD, 400 epochs" in svg
    png = (reported / "figures/tablet-trend.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_folder_that_was_moved_reports_the_same(
    reported: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "deep"
    shutil.copytree(reported, moved)
    for name in ("report.html", "tables/tablet.md", "tables/tablet.csv"):
        (moved / name).unlink()
    write_report(moved, tablet(("20", "40", "60")))
    assert contents(moved) == contents(reported)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (f"{RUN}/result.json", '{"test_error": 1', "is damaged"),
        (f"{RUN}/result.json", "[]", "is damaged"),
        (f"{RUN}/result.json", '{"test_error": 1}', r"gradient_examples: field req"),
        (f"{RUN}/result.json", '{"test_error": "low"}', "test_error"),
        (f"{RUN}/config.json", "\x00", "is damaged"),
        (f"{RUN}/config.json", '{"experiment": {"rh": 1}}', "experiment.rh"),
        (f"{RUN}/metrics.jsonl", '{"epoch": 1}\n', "test_error: field required"),
        (f"{RUN}/environment.jsonl", "3\n", "line 1, is damaged"),
        ("recipe-tablet.json", '{"recipe": "tablet", "seeds": 0}', "seeds"),
        ("recipe-tablet.json", '{"recipe": "t", "seeds": 1}', "unknown recipe 't'"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_overwritten(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    recipe = start(tmp_path, tablet())
    finish(tmp_path, recipe.cells[1], SAM, [13.0, 13.5, 14.0])
    (tmp_path / "report.html").write_text("of yesterday")
    (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(BadInput, match=rf"^\S*{re.escape(name)}.*{said}"):
        write_report(tmp_path, recipe)
    assert contents(tmp_path) == before


def test_a_result_without_its_config_is_damage(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet())
    finish(tmp_path, recipe.cells[1], SAM, [13.0])
    config = tmp_path / "tablet/noise-20/sam/x1/seed-0/config.json"
    config.unlink()
    with pytest.raises(BadInput, match=r"seed-0/config\.json is missing"):
        write_report(tmp_path, recipe)


def test_runs_of_two_experiments_are_not_averaged(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet())
    begin(tmp_path, recipe.cells[1], SAM, 0)
    begin(tmp_path, recipe.cells[1], SAM, 1, (), {"epochs": 30, "device": "cpu"})
    with pytest.raises(BadInput, match=r"two experiments \(different: epochs\)"):
        write_report(tmp_path, recipe)


def test_nothing_is_written_if_one_of_the_folders_is_bad(tmp_path: Path) -> None:
    good = tmp_path / "good"
    complete(good, tablet())
    before = contents(good)
    with pytest.raises(BadInput, match=r"no such folder: .*absent"):
        report([good, tmp_path / "absent"], lambda _: tablet(), Console())
    assert contents(good) == before


@pytest.mark.parametrize("runs", ["none", "killed at once"])
def test_a_folder_without_runs_is_refused(runs: str, tmp_path: Path) -> None:
    start(tmp_path, tablet())
    if runs == "killed at once":
        (tmp_path / RUN / "checkpoint").mkdir(parents=True)
    with pytest.raises(BadInput, match="holds no runs yet"):
        write_report(tmp_path, tablet())


def test_a_folder_that_is_no_folder_of_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no recipe-\*\.json"):
        write_report(tmp_path, tablet())


def evil() -> Recipe:
    """Every text of a recipe is hostile."""
    cell = Cell(
        "tablet/one", (EVIL, f"5 {EVIL}"), (SGD, SAM.model_copy(update={"length": 2})),
        notes=(EVIL,),
    )  # fmt: skip
    numbers = tuple(
        Cell(f"tablet/{k}", (str(k), EVIL), (SAM,), notes=(EVIL,)) for k in range(3)
    )
    return tablet(
        title=EVIL, headings=(f"a{EVIL}", f"b{EVIL}"), cells=(*numbers, cell),
        notes=(EVIL,), scale=EVIL, spread=EVIL, seeds=1,
    )  # fmt: skip


class Tags(HTMLParser):
    """The text of scripts and the names of all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"
        assert not {name for name, _ in attrs if name.startswith("on")}

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts.append(data)


def hostile(root: Path) -> Recipe:
    recipe = evil()
    start(root, recipe, settings=[EVIL], part=EVIL)
    for cell in recipe.cells:
        for arm in cell.arms:
            finish(root, cell, arm, [13.0])
    line = dict.fromkeys(START, EVIL) | {"command": [EVIL, EVIL]}
    folder = root / "tablet/0/x1/seed-0"
    (folder / "environment.jsonl").write_text(json.dumps(line) + "\n")
    return recipe


def test_whatever_is_shown_is_escaped_in_the_page(tmp_path: Path) -> None:
    recipe = hostile(tmp_path)
    page = render([collected(tmp_path, recipe)])
    assert "<script>alert" not in page
    assert page.count("</script>") == len(re.findall("<script", page))
    assert not any(script.startswith("alert") for script in Tags(page).scripts)
    assert "&lt;script&gt;alert" in page


def test_whatever_is_shown_is_no_html_in_markdown(tmp_path: Path) -> None:
    recipe = hostile(tmp_path)
    text = _tables.markdown(collected(tmp_path, recipe))
    assert re.search(r"(?<!\\)<", text) is None
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    # Results and all arms, four and five lines with a head and a rule each.
    assert (len(rows), cells) == (13, {7, 9})


def test_markdown_has_the_command_above_the_table_and_notes_below(
    tmp_path: Path,
) -> None:
    recipe = complete(
        tmp_path,
        tablet(notes=("The paper is silent.", "So is its code.")),
        smoke=True,
        seeds=2,
    )
    text = _tables.markdown(collected(tmp_path, recipe))
    assert text.startswith(
        "# A small table\n\nRun with: flatmin train tablet --set epochs=9\n\nA smoke "
        "run, a few steps on made-up data: its numbers are no results.\n\n| noise |"
    )
    assert text.endswith(
        "\n\n## Differs from the paper\n\n- 2 seeds instead of 3\n\n## Notes\n\n- The "
        "paper is silent.\n- So is its code.\n"
    )


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_has_a_column_for_every_number(name: str, tmp_path: Path) -> None:
    recipe = start(tmp_path, recipes.recipe(name), seeds=1)
    cell = next(cell for cell in recipe.cells if cell.arms)
    for arm in cell.arms:
        finish(tmp_path, cell, arm, [13.0])
    record = records(collected(tmp_path, recipe))[0]
    assert list(record)[1 : 1 + len(recipe.headings)] == list(recipe.headings)
    assert len(record) == 16 + len(recipe.headings)


def test_the_page_carries_its_numbers(reported: Path) -> None:
    page = (reported / "report.html").read_text()
    match = re.search(r'id="numbers">(.*?)</script>', page)
    assert match is not None
    expected = records(collected(reported, tablet(("20", "40", "60"))))
    assert json.loads(match[1]) == {"tablet": expected}


def test_the_page_says_what_was_asked_for_and_how_to_read_it(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet(notes=("The paper is silent.",)))
    page = render([collected(tmp_path, recipe)])
    assert (
        "<p>Run with <code>flatmin train tablet --set epochs=9</code>. "
        "<span>At the paper&#39;s scale.</span></p>"
    ) in page
    assert "<li>The paper is silent.</li>" in page
    assert "NVIDIA H100" in page
    assert "Differs from the paper" not in page


def test_the_page_warns_above_the_table_of_a_smoke_run(tmp_path: Path) -> None:
    recipe = complete(tmp_path, tablet(), smoke=True)
    page = render([collected(tmp_path, recipe)])
    above, _, _ = page.partition("<table>")
    assert "<strong>A smoke run, a few steps on made-up data" in above


def test_all_arms_and_quoted_numbers_are_folded(tmp_path: Path) -> None:
    quoted = Cell("tablet/quoted", ("a", "Other"), (), paper=Paper(6.0))
    recipe = complete(tmp_path, tablet(cells=(*tablet().cells, quoted)))
    page = render([collected(tmp_path, recipe)])
    folded = re.findall(
        "<details><summary>(.*?)</summary>(.*?)</details>", page, re.DOTALL
    )
    assert [title for title, _ in folded] == ["All arms", "Quoted by the paper"]
    assert folded[0][1].count("<tr>") == 1 + 6
    assert '<td class="words">400 epochs</td><td>15.00 ± 2.48</td>' in folded[0][1]
    assert "Other" in folded[1][1]
    assert page.count(">Other<") == 1


def test_pending_cells_do_not_lengthen_the_page(tmp_path: Path) -> None:
    recipe = start(tmp_path, tablet(tuple(map(str, range(10, 310)))))
    finish(tmp_path, recipe.cells[1], SAM, [13.0, 13.5, 14.0])
    page = render([collected(tmp_path, recipe)])
    assert "<p>599 cells pending, without any run yet.</p>" in page
    # Of the results and of the environment, each with a head.
    assert page.count("<tr>") == 4


def test_two_recipes_are_on_one_page(tmp_path: Path) -> None:
    one = tablet()
    cells = tuple(
        Cell(f"other/{k}", (str(k), "SAM"), (SAM,), notes=("Odd.", "Even."))
        for k in range(2)
    )
    other = tablet(name="other", title="Another", cells=cells)
    complete(tmp_path, one)
    start(tmp_path, other)
    write_report(tmp_path, one, other)
    page = (tmp_path / "report.html").read_text()
    titles = re.findall(r'<h2 id="(.*?)">(.*?)</h2>', page)
    assert titles == [("recipe-0", "Another"), ("recipe-1", "A small table")]
    text = (tmp_path / "tables/other.md").read_text()
    assert "| pending | 0 of 3 | 1, 2 |" in text
    assert "Run with: flatmin train other\n" in text
    assert text.endswith("\n\n1. Odd.\n2. Even.\n")
    assert not (tmp_path / "figures/other-curves.svg").exists()


def test_the_command_reports_on_its_folders(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipes, "recipe", lambda _: tablet())
    monkeypatch.chdir(tmp_path)
    complete(Path("runs"), tablet())
    code, out, err = program("report")
    assert (code, err) == (0, "")
    assert out.endswith("Page: runs/report.html\n")
    assert "15.00 ± 2.48" in out


def test_the_command_refuses_a_damaged_folder_in_one_line(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipes, "recipe", lambda _: tablet())
    complete(tmp_path, tablet())
    (tmp_path / RUN / "result.json").write_text("{")
    code, _, err = program("report", tmp_path)
    assert code == 2
    assert err == (
        f"flatmin: {tmp_path / RUN / 'result.json'} is damaged. Remove it and start "
        "again.\n"
    )


@pytest.mark.parametrize("closed", ["", "tablet/noise-20/sam/x1"])
def test_a_folder_that_cannot_be_read_is_no_folder_without_runs(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = complete(tmp_path, tablet())
    before = contents(tmp_path)
    with monkeypatch.context() as patched:
        unreadable(tmp_path / closed, patched)
        with pytest.raises(BadInput, match=r"^cannot read .*: Permission denied\.$"):
            write_report(tmp_path, recipe)
    assert contents(tmp_path) == before
