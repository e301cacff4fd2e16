"""One table in its four forms."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from flatmin.experiments.table import Column, Table, printable

EVIL = "</td><script>alert('x')</script>\"&|[bold]"

COLUMNS = (
    Column("label noise"),
    Column("method", left=True),
    Column("test error %", short="error"),
    Column("lambda max", hidden=True),
)


def table(**fields: object) -> Table:
    rows = (
        ("40 %", "SGD", "5.00 ± 0.25", 90.5),
        ("40 %", "SAM", "4.00 ± 0.25", None),
        ("0 %", "SAM", "3.00 ± 0.25", 7.125),
    )
    given = {"title": "digits ± 1", "columns": COLUMNS, "rows": rows, "labels": 2}
    return Table(**{**given, **fields})  # pyright: ignore[reportArgumentType]


def terminal(shown: Table, encoding: str = "utf-8", width: int = 80) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=file, width=width)
    console.print(shown)
    file.seek(0)
    return file.read()


def test_markdown_has_a_rule_that_aligns_and_bold_rows() -> None:
    assert table(strong=(1,)).markdown() == (
        "| label noise | method | test error % | lambda max |\n"
        "| ---: | --- | ---: | ---: |\n"
        "| 40 % | SGD | 5.00 ± 0.25 | 90.5 |\n"
        "| **40 %** | **SAM** | **4.00 ± 0.25** |  |\n"
        "| 0 % | SAM | 3.00 ± 0.25 | 7.125 |\n"
    )


def test_a_table_without_rows_is_no_markdown_and_no_html() -> None:
    assert table(rows=()).markdown() == ""
    assert table(rows=()).html() == ""


def test_csv_keeps_every_cell_as_it_is() -> None:
    records = [{"cell": 'a,"b"\n', "mean": 1 / 3, "values": (1.5, None), "best": True}]
    text = Table.of(records).csv()
    read = list(csv.DictReader(io.StringIO(text)))
    assert read == [
        {"cell": 'a,"b"\n', "mean": str(1 / 3), "values": "1.5 ", "best": "true"}
    ]


def test_the_terminal_joins_the_labels_and_hides_columns() -> None:
    lines = [line.split("  ") for line in terminal(table()).splitlines()]
    words = [[word.strip() for word in line if word.strip()] for line in lines]
    words = [line for line in words if line]
    assert words[:2] == [["digits ± 1"], ["label noise, method", "error"]]
    assert ["40 %, SAM", "4.00 ± 0.25"] in words
    assert "90.5" not in terminal(table())


@pytest.mark.parametrize(
    ("encoding", "spread"), [("ascii", "+-"), ("latin-1", "±"), ("utf-8", "±")]
)
def test_a_terminal_is_shown_signs_that_it_has(encoding: str, spread: str) -> None:
    try:
        text = terminal(table(caption="x → y"), encoding)
    except UnicodeEncodeError as error:
        raise AssertionError("a sign that the terminal lacks") from error
    assert f"4.00 {spread} 0.25" in text
    assert f"digits {spread} 1" in text
    assert ("x → y" if encoding == "utf-8" else "x -> y") in text
    assert ("---" in text) is (encoding != "utf-8")


def test_a_narrow_terminal_folds_cells_and_loses_none() -> None:
    long = Table("", (Column("a", left=True), Column("b")), (("x" * 90, "y" * 90),))
    text = terminal(long)
    assert max(map(len, text.splitlines())) <= 80
    assert (text.count("x"), text.count("y")) == (90, 90)


def test_sections_are_apart() -> None:
    lines = terminal(table(sections=(0, 2))).splitlines()
    at = next(
        k for k, line in enumerate(lines) if "0 %, SAM" in line and "4" not in line
    )
    assert lines[at - 1].strip() == ""
    assert table(sections=(0, 2)).html().count('<tr class="first">') == 1


def test_html_has_headings_of_columns_and_rows() -> None:
    text = table(strong=(1,)).html()
    assert text.count('<th scope="col" class="joint">label noise, method</th>') == 1
    assert text.count('<th scope="row" class="joint">40 %, SAM</th>') == 1
    assert text.count('<th scope="row" class="label">SAM</th>') == 2
    assert text.count("<td>90.5</td>") == 1
    assert text.count("data-strong") == 1
    assert 'aria-label="digits ± 1"' in text


def test_with_one_label_it_stands_alone() -> None:
    text = table(labels=1).html()
    assert "joint" not in text
    assert '<th scope="row">40 %</th><td class="words">SGD</td>' in text


def test_no_text_is_taken_for_markup() -> None:
    evil = Table(EVIL, (Column(EVIL),) * 3, ((EVIL,) * 3,), caption=EVIL, labels=2)
    assert "<script" not in evil.html()
    assert evil.html().count("&lt;script&gt;") == 11
    assert "\\|[bold] |" in evil.markdown()
    assert "\\</td>" in evil.markdown()
    assert "".join(terminal(evil, width=400).split()).count("[bold]") == 8


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs 4 cells, one per column, got 1"):
        table(rows=(("40 %",),))


def test_signs_without_a_substitute_become_question_marks() -> None:
    assert printable("1 ± 2 ≤ 3 ☃", "ascii") == "1 +- 2 <= 3 ?"
