import io

import pytest
from rich.console import Console

from flatmin.experiments.progress import bars, open_bars


def test_what_is_inside_of_bars_adds_to_them() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with bars(console) as outer, open_bars() as inner:
        assert inner is outer
    with open_bars() as alone:
        assert alone is not outer


@pytest.mark.parametrize(("color", "shown"), [("1", True), ("", False)])
def test_bars_of_their_own_are_on_stderr_and_only_on_a_terminal(
    color: str,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # By this, rich takes what it writes to for a terminal.
    monkeypatch.setenv("FORCE_COLOR", color)
    with open_bars() as progress:
        progress.add_task("file", total=3, note="MB")
    out, err = capsys.readouterr()
    assert out == ""
    assert ("0/3" in err) == ("MB" in err) == shown
