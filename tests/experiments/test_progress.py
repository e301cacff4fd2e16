import io

import pytest
from rich.console import Console

from flatmin.experiments.progress import Bar, bars, open_bars


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


def drawn(width: int, encoding: str, name: str, say: str = "") -> list[str]:
    """The lines that a run's bar had, the last one below."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    with bars(console) as progress:
        bar = Bar(progress, name)
        bar.step(12_345, 78_125)
        bar.line({"train_loss": 1.234, "test_error": 12.345, "sharpness": 0.123})
        if say:
            bar.says(say)
    file.flush()
    return [line.strip() for line in raw.getvalue().decode(encoding).splitlines()]


LONG = "table1/cifar10/wrn-28-10-200/aa/sam/x1/seed-0"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("name", [LONG, LONG * 3, "c4"])
def test_count_and_time_are_whole_at_80_columns(name: str, encoding: str) -> None:
    *_, last = [line for line in drawn(80, encoding, name) if "78125" in line]
    assert "12345/78125 0:00:00 -:--:--" in last
    assert name in last or "a/sam/x1/seed-0 " in last
    assert "loss 1.234" in last


def test_a_wide_terminal_shows_all_of_a_name() -> None:
    *_, last = [line for line in drawn(160, "utf-8", LONG) if "78125" in line]
    assert LONG in last
    assert "sharpness 0.123" in last


def test_the_bar_says_what_follows_training() -> None:
    lines = drawn(80, "utf-8", LONG, "measuring sharpness")
    *_, last = [line for line in lines if "78125" in line]
    assert "12345/78125" in last
    assert "measuring sharpness" in last
