"""Progress on a terminal and off it."""

import io

import pytest
from rich.console import Console

from blocks.errors import PermanentError
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
