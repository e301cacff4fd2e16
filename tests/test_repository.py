"""The files around the source agree with pyproject.toml and with what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.pages import ADDRESS, GITHUB, PROJECT, ROOT, YAMLS, links, missing, read

EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *GITHUB.rglob("*.md")]


def jobs(workflow: str) -> dict[str, dict[str, Any]]:
    return read(GITHUB / "workflows" / workflow)["jobs"]


def steps(workflow: str) -> list[dict[str, Any]]:
    return [step for job in jobs(workflow).values() for step in job["steps"]]


def minor(versions: list[str]) -> list[tuple[int, ...]]:
    return [tuple(map(int, version.split("."))) for version in versions]


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_into_the_repository_lead_somewhere(page: Path) -> None:
    found = links(page.read_text())
    assert [link for link in found if missing(link)] == []
    inside = [link for link in found if not re.match(r"https?:|#", link)]
    if page.parent == ROOT:
        assert [link for link in inside if not (ROOT / link).exists()] == []


def test_what_is_missing_is_noticed() -> None:
    raw = ADDRESS.replace("github.com", "raw.githubusercontent.com")
    assert missing(f"{ADDRESS}/blob/main/docs/no-such-page.md")
    assert missing(f"{ADDRESS}/blob/main/docs")
    assert missing(f"{ADDRESS}/tree/main/docs/index.md")
    assert missing(f"{raw}/main/docs/images/no-such-picture.png")
    assert missing(f"{ADDRESS}/actions/workflows/no-such.yml/badge.svg")
    assert not missing(f"{ADDRESS}/blob/main/docs/index.md#flatmin")
    assert not missing(f"{ADDRESS}/issues")


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_addresses_in_other_files_lead_somewhere(path: Path) -> None:
    addresses = re.findall(re.escape(ADDRESS) + r"[^\s)\"'>]*", path.read_text())
    assert [address for address in addresses if missing(address)] == []


# Workflows


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_it_is_a_mapping(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_ci_tries_every_python_that_the_package_names() -> None:
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"]]
    named = [version for version in named if re.fullmatch(r"3\.\d+", version)]
    matrix = jobs("ci.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert minor(named) == sorted(minor(named))


def test_ci_tries_the_oldest_torch_and_the_newest() -> None:
    (torch,) = (Requirement(line) for line in PROJECT["dependencies"])
    matrix = jobs("ci.yml")["test"]["strategy"]["matrix"]
    assert [str(torch.specifier).removeprefix(">="), "newest"] == matrix["torch"]


def test_workflows_run_what_is_there() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    made = {
        w for s in steps("ci.yml") for w in re.findall(r"make (\S+)", s.get("run", ""))
    }
    assert made == {"lint", "docs", "wheel", "test", "links"}
    assert made <= set(targets)
    for step in [*steps("ci.yml"), *steps("release.yml")]:
        for path in re.findall(r"\.ci/\S+", step.get("run", "")):
            assert (ROOT / path).is_file(), path


def test_a_site_that_is_down_stops_no_pull_request() -> None:
    triggers = read(GITHUB / "workflows" / "ci.yml")[True]  # YAML 1.1 reads "on" so.
    assert {"schedule", "workflow_dispatch", "pull_request"} <= triggers.keys()
    condition = jobs("ci.yml")["links"]["if"]
    assert set(re.findall(r"'(\w+)'", condition)) == {"schedule", "workflow_dispatch"}


def test_actions_are_of_a_version() -> None:
    used = [
        s["uses"] for w in ("ci.yml", "release.yml") for s in steps(w) if "uses" in s
    ]
    assert used
    assert [a for a in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", a)] == []


def test_only_the_job_that_publishes_may_ask_for_a_token() -> None:
    for path in (GITHUB / "workflows").iterdir():
        assert read(path)["permissions"] == {"contents": "read"}
        assert "secrets." not in path.read_text()
        for name, job in jobs(path.name).items():
            wanted = {"id-token": "write"} if name == "publish" else None
            assert job.get("permissions") == wanted


def test_documents_are_built_with_extras_that_exist() -> None:
    (install,) = read(ROOT / ".readthedocs.yaml")["python"]["install"]
    assert set(install["extra_requirements"]) <= EXTRAS.keys()


def test_forms_ask_for_versions() -> None:
    for form in ("bug.yml", "did_not_help.yml"):
        body = read(GITHUB / "ISSUE_TEMPLATE" / form)["body"]
        asked = {field["id"]: field for field in body if "id" in field}
        assert len(asked) == sum("id" in field for field in body)
        environment = asked["environment"]
        assert "torch.utils.collect_env" in environment["attributes"]["description"]
        assert environment["validations"] == {"required": True}
