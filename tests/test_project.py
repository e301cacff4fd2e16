"""Versions, extras and the source archive agree, and so do the pages about them."""

from __future__ import annotations

import re
import runpy
import shutil
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.pages import ADDRESS, PROJECT, ROOT, YAMLS, read, table

EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# Versions and releases


def test_ruff_is_one_version_in_hooks_and_environments() -> None:
    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"]
    (rev,) = (repo["rev"] for repo in hooks if "ruff" in repo["repo"])
    (ruff,) = (r for r in map(Requirement, EXTRAS["lint"]) if r.name == "ruff")
    assert rev.removeprefix("v") in ruff.specifier


def locked() -> dict[str, set[str]]:
    """The versions of every package in the lock file, for some Python each."""
    lines = (ROOT / "requirements-dev.lock").read_text().splitlines()
    found: dict[str, set[str]] = {}
    for line in lines:
        if line and not line.startswith((" ", "#")):
            (one,) = Requirement(line).specifier
            found.setdefault(canonicalize_name(Requirement(line).name), set()).add(
                one.version
            )
    return found


def test_the_lock_file_has_every_package_in_a_version_that_is_allowed() -> None:
    versions = locked()
    wanted = [
        *PROJECT["dependencies"],
        *(one for extra in EXTRAS.values() for one in extra),
    ]
    for required in map(Requirement, wanted):
        if required.name == PROJECT["name"]:
            continue
        found = versions.get(canonicalize_name(required.name), set())
        assert found, f"{required.name} is not locked: make lock"
        assert all(one in required.specifier for one in found), required


def test_the_citation_is_of_this_version_and_address() -> None:
    cited = read(ROOT / "CITATION.cff")
    assert str(cited["version"]) == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
    assert cited["repository-code"] == ADDRESS
    assert [a["name"] for a in cited["authors"]] == [
        a["name"] for a in PROJECT["authors"]
    ]


def test_the_changelog_is_one_that_is_kept() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    released = r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d"
    assert versions[0] == "## [Unreleased]"
    assert [v for v in versions[1:] if not re.fullmatch(released, v)] == []
    for version in versions:
        (name,) = re.findall(r"\[(.*)\]", version)
        assert any(line.startswith(f"[{name}]: {ADDRESS}/") for line in lines)
    kinds = {line.removeprefix("### ") for line in lines if line.startswith("### ")}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def released(folder: Path) -> Path:
    """A folder with what a release reads, of the present version."""
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    changes = folder / "CHANGELOG.md"
    heading = f"## [{PROJECT['version']}] - 2030-01-31"
    changes.write_text(changes.read_text().replace("## [Unreleased]", heading))
    return folder


def test_a_release_of_one_version_is_let_through(tmp_path: Path) -> None:
    check = runpy.run_path(str(ROOT / ".ci" / "check_version.py"))["main"]
    assert check(f"v{PROJECT['version']}", released(tmp_path)) is None


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "pyproject.toml",
            "version = ",
            '\nversion = "9.8.7" # ',
            "pyproject.toml is 9.8.7",
        ),
        ("CITATION.cff", "\nversion: 0", "\nversion: 9", "CITATION.cff has another"),
        ("CHANGELOG.md", "2030-01-31", "unreleased", "CHANGELOG.md needs the heading"),
    ],
)
def test_a_release_of_two_versions_is_refused(
    file: str, old: str, new: str, says: str, tmp_path: Path
) -> None:
    check = runpy.run_path(str(ROOT / ".ci" / "check_version.py"))["main"]
    changed = released(tmp_path) / file
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new, 1))
    assert says in check(f"v{PROJECT['version']}", tmp_path)


# Extras


def required(*extras: str) -> set[str]:
    """The packages of these extras, and of the extras that they name."""
    names: set[str] = set()
    for line in (line for extra in extras for line in EXTRAS[extra]):
        package = Requirement(line)
        if package.name == "flatmin":
            names |= required(*package.extras)
        else:
            names.add(package.name.lower().replace("_", "-"))
    return names


def test_dev_is_the_four_extras_of_developers() -> None:
    (line,) = EXTRAS["dev"]
    assert Requirement(line).extras == {"frameworks", "lint", "peers", "test"}


def test_every_dependency_has_a_reason_and_nothing_else_has() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = table(page, "package")
    names = [row[0] for row in rows]
    assert len(names) == len(set(names))
    assert set(names) == required(*EXTRAS) | {"torch"}
    for name, extras, *_ in rows[1:]:
        for extra in extras.split(", "):
            assert name in required(extra), (name, extra)


def test_every_extra_is_explained() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    named = " ".join(row[0] for row in table(page, "extra"))
    assert set(re.findall(r"`(\w+)`", named)) == EXTRAS.keys()


def test_what_fails_without_an_extra_is_there() -> None:
    rows = table((ROOT / "CONTRIBUTING.md").read_text(), "without")
    assert [row[0] for row in rows] == ["`frameworks`", "`peers`"]
    for _, fails in rows:
        places = re.findall(r"`(tests/[^`]*)`", fails)
        assert [place for place in places if not [*ROOT.glob(place)]] == []


# The source archive


def test_the_source_archive_holds_what_tests_read() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for path in [*YAMLS, *ROOT.glob("*.md"), ROOT / "Makefile"]:
        top = path.relative_to(ROOT).parts[0]
        # The build adds the page that describes the project.
        assert top in included or top == PROJECT["readme"], top
    assert [path for path in included if not (ROOT / path).exists()] == []
