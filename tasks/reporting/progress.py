"""Live progress of a rehearsal on the terminal."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console, JustifyMethod, OverflowMethod, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Column, Table
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

_RATE_WINDOW = 5.0
_PLAIN_INTERVAL = 30.0
_WIDEST_BAR = 20
_BESIDES_BAR = 70
"""Columns of the terminal that the rest of a line takes, with the estimate."""


class Progress:
    """One line for each stage: state, time, bytes, rate, estimate, and the step that runs.

    A `tasks.reporting.clock.Listener`. On a terminal the lines are alive, and go away at the end
    unless something was raised: the summary says it all. Elsewhere each start and end is a line of
    text.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._lines = _Lines(self._console, live=self._live)
        self._lock = threading.Lock()
        self._ids: dict[str, bars.TaskID] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._lines.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._lines.live.transient = kind is None
            self._lines.stop()

    def __rich__(self) -> RenderableType:
        """The live lines."""
        return self._lines.get_renderable()

    def note(self, text: str) -> None:
        """Say what happens outside of the stages, such as a lab that comes up; "" takes it away."""
        self._lines.note = text
        if text:
            self._say(text)

    def stage_started(self, stage: str, attempt: int) -> None:
        """A line for the stage begins, or begins again."""
        with self._lock:
            if stage in self._ids:
                self._lines.remove_task(self._ids[stage])
            self._begin(stage, attempt=attempt)
            self._said[stage] = self._lines.get_time()
            self._lines.note = ""
        self._say(f"{stage}: started" if attempt == 1 else f"{stage}: attempt {attempt}")

    def step_started(self, stage: str, step: str) -> None:
        """The line names the step."""
        with self._lock:
            self._lines.update(self._ids[stage], step=step)

    def stage_moved(self, stage: str, size: int, expected: int | None) -> None:
        """The line shows bytes, rate and estimate."""
        with self._lock:
            line_id, now = self._ids[stage], self._lines.get_time()
            self._lines.update(line_id, completed=size, total=expected or None)
            task = next(item for item in self._lines.tasks if item.id == line_id)
            text = f"{stage}: {_amount(task)} {_rate(task)}".rstrip()
            quiet = now - self._said[stage] < _PLAIN_INTERVAL
            if not quiet:
                self._said[stage] = now
        if not quiet:
            self._say(text)

    def stage_ended(self, stage: Stage) -> None:
        """The line shows how it ended."""
        with self._lock:
            if stage.name not in self._ids:
                self._begin(stage.name)
            self._lines.update(self._ids[stage.name], ended=stage)
        took = f" in {duration(stage.seconds)}" if stage.seconds is not None else ""
        moved = f", {size(stage.bytes)}" if stage.bytes is not None else ""
        why = f": {printable(stage.error)}" if stage.error else ""
        self._say(f"{stage.name}: {stage.state.value}{took}{moved}{why}")

    def _begin(self, stage: str, attempt: int = 1) -> None:
        new = self._lines.add_task(stage, total=None, attempt=attempt, step="", ended=None)
        self._ids[stage] = new

    def _say(self, text: str) -> None:
        if not self._live:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Lines(bars.Progress):
    """The lines, and under them a note.

    The fields of a task: `attempt`, the `step` that runs, and the stage as it has `ended`.
    """

    def __init__(self, console: Console, *, live: bool) -> None:
        self.ascii_only = console.options.ascii_only
        self.note = ""
        self.busy = Spinner("line" if self.ascii_only else "dots", style="cyan")
        left, right = self.column(), self.column(right=True)
        super().__init__(
            _Shown(self.mark, left),
            _Shown(lambda task: Text(task.description, "" if _ended(task) else "bold"), left),
            _Shown(_time, right),
            _Shown(_amount, right),
            _Shown(_rate, right),
            _Shown(self.details, self.column(ratio=1)),
            console=console,
            refresh_per_second=8,
            speed_estimate_period=_RATE_WINDOW,
            transient=True,
            disable=not live,
            expand=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """See rich."""
        for task in self.tasks:
            with suppress(KeyError):  # its stage begins again, on another line
                self.update(task.id)  # forgets old samples, so that a stall shows
        yield from super().get_renderables()
        if self.note:
            yield Text(" ").join([self.frame(), Text(self.note)])

    def frame(self) -> Text:
        """The moving mark of what runs."""
        shown = self.busy.render(self.get_time())
        return shown if isinstance(shown, Text) else Text()

    def mark(self, task: bars.Task) -> RenderableType:
        """The state of the stage."""
        stage = _ended(task)
        if stage is None:
            return self.frame()
        mark, plain, style = MARKS[stage.state]
        return Text(plain if self.ascii_only else mark, style)

    def details(self, task: bars.Task) -> RenderableType:
        """A bar and an estimate where it is known how much is to come; the step, or the error."""
        if stage := _ended(task):
            return Text(printable(stage.error or ""), MARKS[stage.state][2])
        attempt = task.fields["attempt"]
        parts = (_left(task), f"attempt {attempt}" if attempt > 1 else "", task.fields["step"])
        text = Text(printable(", ".join(filter(None, parts))), "dim")
        if not task.total or task.finished:
            return text
        width = max(1, min(_WIDEST_BAR, self.console.width - _BESIDES_BAR))
        bar = Column(width=width, no_wrap=True)
        grid = Table.grid(bar, self.column(ratio=1), padding=(0, 1), expand=True)
        grid.add_row(ProgressBar(task.total, task.completed, width=width), text)
        return grid

    def column(self, *, right: bool = False, ratio: int | None = None) -> Column:
        """A column whose texts are cut where the terminal is too narrow."""
        overflow: OverflowMethod = "crop" if self.ascii_only else "ellipsis"
        justify: JustifyMethod = "right" if right else "left"
        return Column(no_wrap=True, overflow=overflow, justify=justify, ratio=ratio)


class _Shown(bars.ProgressColumn):
    """A column that a function fills."""

    def __init__(self, show: Callable[[bars.Task], RenderableType], column: Column) -> None:
        super().__init__(column)
        self._show = show

    def render(self, task: bars.Task) -> RenderableType:
        """See rich."""
        return self._show(task)


def _ended(task: bars.Task) -> Stage | None:
    stage: Stage | None = task.fields["ended"]
    return stage


def _time(task: bars.Task) -> str:
    stage = _ended(task)
    seconds = stage.seconds if stage else task.elapsed
    return "" if seconds is None else duration(seconds)


def _amount(task: bars.Task) -> str:
    if stage := _ended(task):
        return "" if stage.bytes is None else size(stage.bytes)
    if not task.total:
        return size(task.completed) if task.completed else ""
    share = min(task.completed / task.total, 1)
    return f"{size(task.completed)} of {size(task.total)} ({share:.0%})"


def _rate(task: bars.Task) -> str:
    """Of a stage that runs over the last seconds: an average would hide a stall."""
    if stage := _ended(task):
        return rate(stage.bytes, stage.seconds)
    return f"{size(task.speed)}/s" if task.speed else ""


def _left(task: bars.Task) -> str:
    return f"{duration(task.time_remaining)} left" if task.time_remaining else ""
