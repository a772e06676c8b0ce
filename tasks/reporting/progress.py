"""Live progress of a rehearsal on the terminal."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from blocks.evidence.record import Stage, StageState
from tasks.reporting.units import duration, printable, rate, size

MARKS = {
    StageState.COMPLETED: ("✓", "+", "green"),
    StageState.FAILED: ("✗", "x", "bold red"),
    StageState.SKIPPED: ("·", "-", "dim"),
    StageState.CANCELLED: ("■", "!", "yellow"),
}
"""For each state of a stage: its mark, the same in ASCII, and its style."""

_FRAMES, _FRAMES_ASCII = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/"
_RATE_WINDOW = 5.0
_PLAIN_INTERVAL = 30.0


@dataclass(slots=True)
class _Row:
    """What one line shows."""

    name: str
    attempt: int = 0
    began: float = 0.0
    step: str = ""
    bytes: int | None = None
    expected: int | None = None
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    ended: Stage | None = None
    said: float = 0.0

    def start(self, attempt: int) -> None:
        self.attempt, self.began, self.said = attempt, time.monotonic(), time.monotonic()
        self.step, self.bytes, self.expected, self.ended = "", None, None, None
        self.samples.clear()

    def moved(self, bytes: int, expected: int | None) -> None:
        now = time.monotonic()
        self.bytes, self.expected = bytes, expected
        self.samples.append((now, bytes))
        while len(self.samples) > 2 and self.samples[0][0] < now - _RATE_WINDOW:
            self.samples.popleft()

    def present_rate(self) -> str:
        """The rate over the last seconds: an average over a stage would hide a stall."""
        if len(self.samples) < 2:
            return ""
        (first, few), (_, many) = self.samples[0], self.samples[-1]
        return rate(many - few, time.monotonic() - first)


class Progress:
    """One line for each stage: state, time, bytes, rate, and the step that runs.

    A `tasks.reporting.clock.Listener`. On a terminal the lines are alive, and go away at the end
    unless something was raised: the summary says it all. Elsewhere each start and end is a line of
    text.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._lock = threading.Lock()
        self._rows: dict[str, _Row] = {}
        self._note = ""
        self._live: Live | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(self, console=self._console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.transient = kind is None
            self._live.stop()

    def note(self, text: str) -> None:
        """Say what happens outside of the stages, such as a lab that comes up; "" takes it away."""
        with self._lock:
            self._note = text
        if text:
            self._say(text)

    def stage_started(self, stage: str, attempt: int) -> None:
        """A line for the stage begins, or begins again."""
        with self._lock:
            self._rows.setdefault(stage, _Row(stage)).start(attempt)
            self._note = ""
        self._say(f"{stage}: started" if attempt == 1 else f"{stage}: attempt {attempt}")

    def step_started(self, stage: str, step: str) -> None:
        """The line names the step."""
        with self._lock:
            self._rows[stage].step = step

    def stage_moved(self, stage: str, bytes: int, expected: int | None) -> None:
        """The line shows bytes and rate."""
        with self._lock:
            row = self._rows[stage]
            row.moved(bytes, expected)
            quiet = time.monotonic() - row.said < _PLAIN_INTERVAL
            if not quiet:
                row.said = time.monotonic()
            text = f"{stage}: {_amount(bytes, expected)} {row.present_rate()}".rstrip()
        if not quiet:
            self._say(text)

    def stage_ended(self, stage: Stage) -> None:
        """The line shows how it ended."""
        with self._lock:
            self._rows.setdefault(stage.name, _Row(stage.name)).ended = stage
        took = f" in {duration(stage.seconds)}" if stage.seconds is not None else ""
        moved = f", {size(stage.bytes)}" if stage.bytes is not None else ""
        why = f": {printable(stage.error)}" if stage.error else ""
        self._say(f"{stage.name}: {stage.state.value}{took}{moved}{why}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The live lines."""
        with self._lock:
            table = Table.grid(padding=(0, 2, 0, 0))
            for column in ("mark", "name", "time", "bytes", "rate"):
                right = column in ("time", "bytes", "rate")
                table.add_column(justify="right" if right else "left", no_wrap=True)
            table.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
            for row in self._rows.values():
                self._line(table, row, options.ascii_only)
            note = self._note
        yield table
        if note:
            yield Text.assemble(_busy(options.ascii_only), f"  {note}")

    def _line(self, table: Table, row: _Row, ascii_only: bool) -> None:
        if row.ended is None:
            table.add_row(
                _busy(ascii_only),
                Text(row.name, "bold"),
                duration(time.monotonic() - row.began),
                _amount(row.bytes, row.expected) if row.bytes is not None else "",
                row.present_rate(),
                Text(row.step if row.attempt == 1 else f"attempt {row.attempt}  {row.step}", "dim"),
            )
            return
        stage = row.ended
        mark, plain, style = MARKS[stage.state]
        table.add_row(
            Text(plain if ascii_only else mark, style),
            Text(row.name),
            duration(stage.seconds) if stage.seconds is not None else "",
            size(stage.bytes) if stage.bytes is not None else "",
            rate(stage.bytes, stage.seconds),
            Text(printable(stage.error or ""), style),
        )

    def _say(self, text: str) -> None:
        if self._live is None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _busy(ascii_only: bool) -> Text:
    frames = _FRAMES_ASCII if ascii_only else _FRAMES
    return Text(frames[int(time.monotonic() * 10) % len(frames)], "cyan")


def _amount(bytes: int, expected: int | None) -> str:
    if not expected:
        return size(bytes)
    return f"{size(bytes)} of {size(expected)} ({min(bytes / expected, 1):.0%})"
