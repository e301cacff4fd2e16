"""Every host runs with the oldest version that we say it does, and the newest."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.frameworks.cells import QUICK
from tests.frameworks.hosts import APART, MODULES
from tests.frameworks.versions import EXTRAS, NEWEST, OLDEST, ROOT, install, oldest, run

SETS = [
    pytest.param(module, requirements, id=" ".join(requirements))
    for module in [*MODULES, *APART]
    for requirements in (
        oldest(module) if module in EXTRAS | OLDEST else [],
        NEWEST.get(module, []),
    )
    if requirements
]


@pytest.mark.everything
@pytest.mark.parametrize(("module", "requirements"), SETS)
def test_its_quick_cells(module: str, requirements: list[str], tmp_path: Path) -> None:
    folder = install(requirements, tmp_path)
    cells = run(module, "--methods", "sam", "--columns", *QUICK, folder=folder)
    assert cells
    assert [cell for cell in cells if not cell.fine] == []
    wanted = dict(required.split("==") for required in requirements)
    for cell in cells:
        tried = wanted.keys() & cell.versions.keys()
        assert tried
        for package in tried:
            found = cell.versions[package] + ".0"
            assert found.startswith(wanted[package]), "another was imported"


def test_every_extra_for_a_trainer_is_tried_with_its_oldest_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {"diagnostics", "docs", "experiments"}
    developers = {"dev", "frameworks", "lint", "peers", "test"}
    trainers = project["optional-dependencies"].keys() - ours - developers
    assert set(EXTRAS.values()) == trainers


def test_hosts_that_are_not_installed_have_a_version_to_run() -> None:
    assert set(APART) <= NEWEST.keys()
