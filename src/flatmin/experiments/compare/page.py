"""Write the files of a finished comparison: report, tables, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from flatmin import pictures
from flatmin.diagnostics.landscape import Plane, axis
from flatmin.experiments.compare.place import Place
from flatmin.experiments.compare.plan import Comparison, Setting
from flatmin.experiments.compare.results import Row, best_base, best_other, by_setting
from flatmin.experiments.compare.tables import (
    READING,
    errors_by_class,
    most_changed,
    records,
    table,
)
from flatmin.experiments.compare.verdict import Verdict
from flatmin.experiments.datasets import DataSet, Files
from flatmin.experiments.errors import BadInput
from flatmin.experiments.landscape import around, ceiling
from flatmin.experiments.report import figures
from flatmin.experiments.report.figures import COST, Line, Panel
from flatmin.experiments.runs.files import REMOVE, read_json, write, write_json
from flatmin.experiments.runs.opened import finished
from flatmin.experiments.runs.record import Run
from flatmin.experiments.table import Table
from flatmin.pictures import html

#: Planes by the label of their arm.
Planes = dict[str, Plane]


@dataclass(frozen=True, slots=True)
class Section:
    """One setting's part of the page."""

    setting: Setting
    rows: list[Row]
    images: DataSet
    words: Verdict
    planes: Planes

    @property
    def table(self) -> Table:
        """All methods."""
        return table(self.rows)

    @property
    def classes(self) -> Table:
        """The errors of each class, of the base and of its best rival."""
        base, rival = best_base(self.rows), best_other(self.rows)
        return errors_by_class(base, rival, self.images)

    @property
    def confused(self) -> str:
        """The confusion in which these two differ most."""
        base, rival = best_base(self.rows), best_other(self.rows)
        return most_changed(base, rival, self.images)

    @property
    def panel(self) -> Panel:
        """Test error over training, mean and range of the seeds."""
        lines = tuple(_curve(row) for row in self.rows if not row.averaged)
        return Panel(self.setting.label, COST, "test error (%)", lines)

    @property
    def curves(self) -> list[Markup]:
        """The figure of the panel."""
        name = f"curves-{self.setting.name}"
        caption = "Test error over training: mean of the seeds; band: their range."
        return figures.html([self.panel], name, caption)

    @property
    def landscapes(self) -> Markup | str:
        """The minima of the base and of its best rival, side by side."""
        if not self.planes:
            return ""
        top = ceiling(len(self.images.classes))
        return html.landscapes(self.planes, f"plane-{self.setting.name}", top=top)


def write_report(
    what: Comparison,
    sets: dict[str, DataSet],
    rows: list[Row],
    words: dict[str, Verdict],
    place: Place,
) -> Path:
    """Write the report of a finished comparison and the files beside it.

    Args:
        what: the comparison.
        sets: the images, by the name of the setting.
        rows: of all settings.
        words: the verdict on each.
        place: where everything is.

    Returns:
        The path of ``report.html``.
    """
    sections = []
    for group in by_setting(rows):
        one = group[0].setting
        planes = _landscapes(what, group, sets[one.name], place)
        sections.append(Section(one, group, sets[one.name], words[one.name], planes))
    write_json(place.root / "results.json", records(rows))
    tables = [f"{one.table.title}\n\n{one.table.markdown()}" for one in sections]
    write(place.root / "table.md", "\n".join(tables))
    panels = [section.panel for section in sections]
    write(place.root / "curves.png", pictures.encoded(figures.printed(panels), "png"))
    page = html.render(
        "compare.html.j2",
        sections=sections,
        reading=READING,
        comparison=what,
    )
    write(place.root / "report.html", page)
    return place.root / "report.html"


def _curve(row: Row) -> Line:
    seeds = [
        [(one["gradient_examples"], one["test_error"]) for one in Run(folder).metrics()]
        for folder in row.folders
    ]
    return figures.curve(row.label, seeds)


def _landscapes(
    what: Comparison, rows: list[Row], images: DataSet, place: Place
) -> Planes:
    """Return losses around the first seed's minima, measured once and then stored."""
    if what.landscape_points == 0 or isinstance(images.train, Files):
        return {}
    shown = [_longest_or_base(rows), best_other(rows)]
    path = place.root / rows[0].setting.name / "landscapes.json"
    found = _stored(path)
    if list(found) != [row.label for row in shown]:
        at = axis(what.landscape_points)
        runs = finished([row.folders[0] for row in shown], place.data)
        labels = [row.label for row in shown]
        found = dict(zip(labels, (around(run, at) for run in runs), strict=True))
        write_json(path, {label: plane.to_dict() for label, plane in found.items()})
    return found


def _stored(path: Path) -> Planes:
    """Read the planes that were measured before.

    Raises:
        BadInput: the file is damaged.
    """
    stored = read_json(path, REMOVE)
    try:
        return {label: Plane.from_dict(one) for label, one in (stored or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise BadInput(f"{path} is damaged. {REMOVE}") from None


def _longest_or_base(rows: list[Row]) -> Row:
    """Return the base as it is usually trained: to the end of the longest schedule."""
    return next((row for row in rows if row.longest), best_base(rows))
