import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_examples_run_one_after_the_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {}
    example, sharpness, measure = blocks()
    exec(example, names)
    w = [p.detach().clone() for p in names["model"].parameters()]
    assert names["base"].param_groups[0]["sam_step"] == 10
    exec(sharpness, names)
    assert any(
        (p != before).any()
        for p, before in zip(names["model"].parameters(), w, strict=True)
    )
    assert re.fullmatch(
        r"L\(w\) \d\.\d\d, L\(w \+ eps\) - L\(w\) \d\.\d{3}\n", capsys.readouterr().out
    )
    w = [p.detach().clone() for p in names["model"].parameters()]
    exec(measure, names)
    one, top = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"sharpness 0\.\d+ \(rho 0\.05, p 2, one step; n = 320\)", one)
    assert top.startswith("lambda_max ")
    for p, before in zip(names["model"].parameters(), w, strict=True):
        assert (p == before).all()


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 200
    example = [line for line in blocks()[0].splitlines() if line.strip()]
    assert len(example) <= 11


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_into_the_repository_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]+)\)", document.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
