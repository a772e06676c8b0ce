"""Progress on a terminal and off it."""

import io
from typing import Any

import pytest
from rich.console import Console

from blocks.errors import PermanentError
from blocks.evidence.record import Stage, StageState
from tasks.reporting.clock import StageClock
from tasks.reporting.progress import Progress


def rehearse(progress: Progress) -> None:
    """A stage that moves bytes, one that fails."""
    clock = StageClock(progress)
    progress.note("lab: east and west come up")
    with clock.stage("snapshot") as stage, stage.step("base backup"):
        stage.expect(2_000_000)
        stage.moved(1_000_000)
        stage.moved(2_000_000)
    clock.skip("transfer", "nothing to copy")
    with clock.stage("restore"):
        raise PermanentError("no [space] left", host="db1", hint="make room")


def test_off_a_terminal_each_start_and_end_is_one_plain_line() -> None:
    out = io.StringIO()
    with (
        pytest.raises(PermanentError),
        Progress(Console(file=out, width=40)) as progress,
    ):
        rehearse(progress)
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["lab: east and west come up", "snapshot: started"]
    assert lines[2].startswith("snapshot: completed in 0.")
    assert lines[2].endswith("s, 2.00 MB")
    assert lines[3] == "transfer: skipped: nothing to copy"
    assert lines[5].endswith(": db1: no [space] left (next: make room)")
    assert len(lines) == 6


def test_a_terminal_keeps_the_lines_when_something_was_raised() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, force_interactive=True)
    with pytest.raises(PermanentError), Progress(console) as progress:
        rehearse(progress)
    last = out.getvalue().rsplit("\x1b[2K", 1)[-1]
    assert "restore" in last
    assert "no [space] left" in last


def test_a_line_of_a_running_stage_shows_step_bytes_and_share() -> None:
    quiet = Console(file=io.StringIO(), width=100)
    progress = Progress(quiet)
    clock = StageClock(progress)
    with clock.stage("transfer") as stage, stage.step("copy base"):
        stage.expect(4_000_000)
        stage.moved(1_000_000)
        shown = io.StringIO()
        Console(file=shown, width=100).print(progress)
    assert "transfer" in shown.getvalue()
    assert "1.00 MB of 4.00 MB (25%)" in shown.getvalue()
    assert "copy base" in shown.getvalue()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def moving(clock: Clock, width: int, encoding: str = "utf-8", **more: Any) -> tuple[Progress, Any]:
    """A stage of which a third was moved in seven seconds, and what its terminal was sent."""
    out = io.BytesIO()
    file = io.TextIOWrapper(out, encoding=encoding, errors="strict", write_through=True)
    progress = Progress(Console(file=file, width=width, get_time=clock, **more))
    progress.stage_started("restore", 2)
    progress.step_started("restore", "fetch+extract")
    progress.stage_moved("restore", 0, 441_000_000)
    for second in range(1, 8):
        clock.now = second
        progress.stage_moved("restore", second * 21_000_000, 441_000_000)
    return progress, out


def shown(progress: Progress, width: int, encoding: str = "utf-8") -> str:
    """The lines as they are now."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    Console(file=file, width=width).print(progress)
    return raw.getvalue().decode(encoding)


def test_a_bar_with_rate_and_estimate_and_a_stall_shows() -> None:
    clock = Clock()
    progress, _ = moving(clock, 120)
    text = shown(progress, 120)
    assert "147 MB of 441 MB (33%) 21.0 MB/s ━━━━━━╸" in text
    assert "14.0 s left, attempt 2, fetch+extract" in text
    clock.now += 20
    text = shown(progress, 120)
    assert "27.0 s 147 MB of 441 MB (33%)" in text
    assert "MB/s" not in text
    assert "left" not in text


def test_an_attempt_begins_with_nothing_of_the_one_before() -> None:
    progress, _ = moving(Clock(), 100)
    progress.stage_started("restore", 3)
    assert shown(progress, 100).split()[1:] == ["restore", "0.00", "s", "attempt", "3"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_terminal_is_too_narrow(encoding: str) -> None:
    for width in (1, 2, 5, 10, 20, 40, 60, 74, 80, 200):
        progress, out = moving(Clock(), width, encoding, force_terminal=True, color_system=None)
        with progress:
            progress.stage_ended(Stage("transfer", StageState.FAILED, error="gone\n[/red] \x1b[2J"))
            progress.note("starting a temporary Prefect server")
            text = shown(progress, width, encoding)
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text
        if width >= 80:
            assert "147 MB of 441 MB (33%)" in text
            assert "s left" in text
            assert "gone" in text
        assert out.getvalue()


def test_off_a_terminal_a_long_stage_says_how_far_it_is_twice_a_minute() -> None:
    clock = Clock()
    progress, out = moving(clock, 40)
    for clock.now in (29.0, 30.0, 31.0, 60.0):
        progress.stage_moved("restore", int(clock.now) * 7_000_000, 441_000_000)
    assert out.getvalue().decode().splitlines() == [
        "restore: attempt 2",
        "restore: 210 MB of 441 MB (48%) 7.00 MB/s",
        "restore: 420 MB of 441 MB (95%)",
    ]


def test_a_line_that_goes_away_while_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is tried again drops its line, whatever the thread that draws has just seen."""
    progress, _ = moving(Clock(), 100)
    lines = progress._lines
    seen = lines.tasks
    progress.stage_started("restore", 3)
    monkeypatch.setattr(type(lines), "tasks", property(lambda _: seen))
    assert "attempt 2" in shown(progress, 100)
