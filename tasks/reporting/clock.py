"""The clock of a rehearsal: what each stage and step took, as the record keeps it.

Stamps are the wall clock's at the start plus what the monotonic clock has counted since, so that a
clock that is set in the middle of a rehearsal changes nothing that it measures.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from prefect.context import TaskRunContext
from prefect.exceptions import CancelledRun

from blocks.errors import PermanentError
from blocks.evidence import bounds
from blocks.evidence.record import STAGES, Stage, StageState, Step
from blocks.evidence.uses import ledger
from blocks.limits import Cancelled


class LimitExceeded(PermanentError):
    """A stage was not done within its time limit."""


class Suspended(PermanentError):
    """The rehearsal stood still for longer than its lease: a sweep may have taken it for dead.

    What it made may be gone, and what answers in its place may be another's.
    """


class Listener(Protocol):
    """Is told what happens, as it happens, from whatever thread it happens in."""

    def stage_started(self, stage: str, attempt: int) -> None:
        """`stage` begins; `attempt` counts from 1."""

    def step_started(self, stage: str, step: str) -> None:
        """A step begins inside `stage`."""

    def stage_moved(self, stage: str, size: int, expected: int | None) -> None:
        """`stage` has moved `size` bytes so far, of `expected` where that is known."""

    def stage_ended(self, stage: Stage) -> None:
        """An attempt at a stage ended; a failed one may be followed by another attempt."""


class Silence:
    """The listener that does nothing."""

    def stage_started(self, stage: str, attempt: int) -> None:
        """See Listener."""

    def step_started(self, stage: str, step: str) -> None:
        """See Listener."""

    def stage_moved(self, stage: str, size: int, expected: int | None) -> None:
        """See Listener."""

    def stage_ended(self, stage: Stage) -> None:
        """See Listener."""


@dataclass(slots=True)
class StepInProgress:
    """A step that runs now. Set `bytes` to what it moved; `name` may become known late."""

    name: str
    bytes: int | None = None


@dataclass(slots=True)
class _Run:
    """What is known of a stage so far; guarded by the clock's lock."""

    started_at: datetime
    started: float
    attempt: int = 0
    state: StageState | None = None
    ended_at: datetime | None = None
    ended: float | None = None
    error: str | None = None
    bytes: int | None = None
    expected: int | None = None
    moved: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def total(self) -> int | None:
        """Bytes of the present attempt: as given, else as reported live, else of its steps."""
        if self.bytes is not None:
            return self.bytes
        if self.moved:
            return sum(self.moved.values())
        known = [
            step.bytes
            for step in self.steps
            if step.attempt == self.attempt and step.bytes is not None
        ]
        return sum(known) if known else None


class StageInProgress:
    """An attempt at a stage that runs now: time steps in it, report what it moves.

    A thread that outlives its attempt (a time limit cannot stop one) does not disturb the next.
    """

    def __init__(self, clock: "StageClock", name: str, attempt: int) -> None:
        self._clock = clock
        self.name = name
        self.attempt = attempt

    @contextmanager
    def step(self, name: str, *, grows: bool = False) -> Iterator[StepInProgress]:
        """Time what runs inside as a step, also if it fails; `grows` is that of the record's Step.

        Raises PermanentError once the attempt has ended: a thread that outlives it, because it was
        interrupted, makes nothing more that teardown would miss. Raises as `go_on`.
        """
        self._clock._check_runs(self)
        self.go_on()
        self._clock.listener.step_started(self.name, name)
        step = StepInProgress(name)
        started_at, started = self._clock.now(), time.monotonic()
        try:
            yield step
        finally:
            seconds = round(time.monotonic() - started, 3)
            ended_at = self._clock.now()
            moved = step.bytes
            self._add(Step(step.name, started_at, ended_at, seconds, moved, self.attempt, grows))

    def go_on(self) -> None:
        """Raise Suspended where what has just been seen is perhaps not the rehearsal's own."""
        self._clock.guard()

    def add_step(
        self,
        name: str,
        started_at: datetime,
        ended_at: datetime,
        size: int | None = None,
        *,
        grows: bool = False,
    ) -> None:
        """Add a step that was timed elsewhere (on a host); the times must have a time zone."""
        seconds = round((ended_at - started_at).total_seconds(), 3)
        self._add(Step(name, started_at, ended_at, seconds, size, self.attempt, grows))

    def expect(self, size: int) -> None:
        """Say how many bytes this stage is going to move."""
        self._clock._expect(self, size)

    def moved(self, size: int, of: str = "") -> None:
        """Say how many bytes this attempt moved so far, `of` one of several objects."""
        self._clock._moved(self, size, of)

    def total(self, size: int) -> None:
        """Set the stage's bytes, where they are neither what was reported nor the steps' sum."""
        self._clock._total(self, size)

    def _add(self, step: Step) -> None:
        self._clock._add(self, step)


class StageClock:
    """Times stages and their steps. Thread-safe.

    `names` are the stages of the rehearsal in order; those that never run are in the record as
    skipped. `listener` is told of everything.
    """

    def __init__(self, listener: Listener | None = None, names: Sequence[str] = STAGES) -> None:
        self.listener: Listener = listener or Silence()
        self.guard: Callable[[], None] = lambda: None
        """Raises Suspended where the rehearsal may not go on; asked before each step."""
        self._names = list(names)
        self._runs: dict[str, _Run] = {}
        self._skipped: dict[str, str] = {}
        self._lock = threading.Lock()
        self._origin = (datetime.now(UTC), time.monotonic())

    def now(self) -> datetime:
        """The present by this clock (UTC): the difference of two is the time that has passed."""
        began_at, began = self._origin
        return began_at + timedelta(seconds=time.monotonic() - began)

    def outside(self, since: datetime, until: datetime) -> float:
        """Seconds between two times of this clock in which no stage ran.

        The rehearsal waited then, for whatever orchestrates it.
        """
        with self._lock:
            runs = sorted(self._runs.values(), key=lambda run: run.started_at)
        waited, reached = 0.0, since
        for run in runs:
            waited += max(0.0, (min(run.started_at, until) - reached).total_seconds())
            reached = max(reached, min(run.ended_at or until, until))
        return waited + (until - reached).total_seconds()

    @contextmanager
    def stage(self, name: str) -> Iterator[StageInProgress]:
        """Time what runs inside as an attempt at stage `name`, and book its uses on it.

        Run again (by a retry), it counts another attempt of the same stage. An exception is noted
        and goes on its way: an ordinary one as failed; Ctrl-C, a signal or a cancellation as
        cancelled. Raises LimitExceeded where the time limit of the stage's task has come.
        """
        attempt = self._begin(name)
        try:
            yield StageInProgress(self, name, attempt)
        except Cancelled as error:
            limit = _limit()
            if limit is None:
                self._end(name, StageState.CANCELLED, _cause(error))
                raise
            exceeded = _exceeded(name, limit)
            self._end(name, StageState.FAILED, _cause(exceeded))
            raise exceeded from error
        except BaseException as error:
            cancelled = isinstance(error, CancelledRun | Suspended) or not isinstance(
                error, Exception
            )
            state = StageState.CANCELLED if cancelled else StageState.FAILED
            self._end(name, state, _cause(error))
            raise
        self._end(name, StageState.COMPLETED, None)

    def skip(self, name: str, reason: str) -> None:
        """Note that stage `name` is left out on purpose, and why."""
        with self._lock:
            self._skipped[name] = bounds.text(reason)
            self._know(name)
            stage = self._stage(name)
        self.listener.stage_ended(stage)

    def stages(self) -> tuple[Stage, ...]:
        """All stages for the record, in order; one that still runs has no end, as cancelled."""
        with self._lock:
            return tuple(self._stage(name) for name in self._names)

    def stage_at(self, moment: datetime) -> str | None:
        """The stage that ran at a moment; None if none did."""
        with self._lock:
            for name, run in self._runs.items():
                if run.started_at <= moment <= (run.ended_at or moment):
                    return name
        return None

    def _know(self, name: str) -> None:
        if name not in self._names:
            self._names.append(name)

    def _begin(self, name: str) -> int:
        ledger().enter(name)
        with self._lock:
            self._know(name)
            run = self._runs.setdefault(name, _Run(self.now(), time.monotonic()))
            run.attempt += 1
            run.state = run.ended_at = run.ended = run.error = run.bytes = run.expected = None
            run.moved = {}
            attempt = run.attempt
        self.listener.stage_started(name, attempt)
        return attempt

    def _end(self, name: str, state: StageState, error: str | None) -> None:
        with self._lock:
            run = self._runs[name]
            run.state, run.error = state, error
            run.ended_at, run.ended = self.now(), time.monotonic()
            stage = self._stage(name)
        self.listener.stage_ended(stage)

    def _check_runs(self, stage: StageInProgress) -> None:
        with self._lock:
            run = self._runs[stage.name]
            if run.attempt != stage.attempt or run.state is not None:
                raise PermanentError(f"attempt {stage.attempt} has ended", operation=stage.name)

    def _add(self, stage: StageInProgress, step: Step) -> None:
        with self._lock:
            self._runs[stage.name].steps.append(step)

    def _expect(self, stage: StageInProgress, size: int) -> None:
        with self._lock:
            run = self._runs[stage.name]
            if stage.attempt != run.attempt:
                return
            run.expected = size
            so_far = run.total() or 0
        self.listener.stage_moved(stage.name, so_far, size)

    def _moved(self, stage: StageInProgress, size: int, of: str) -> None:
        with self._lock:
            run = self._runs[stage.name]
            if stage.attempt != run.attempt:
                return
            run.moved[of] = size
            so_far, expected = sum(run.moved.values()), run.expected
        self.listener.stage_moved(stage.name, so_far, expected)

    def _total(self, stage: StageInProgress, size: int) -> None:
        with self._lock:
            run = self._runs[stage.name]
            if stage.attempt == run.attempt:
                run.bytes = size

    def _stage(self, name: str) -> Stage:
        run = self._runs.get(name)
        if run is None:
            return Stage(name, StageState.SKIPPED, error=self._skipped.get(name))
        return Stage(
            name=name,
            state=run.state or StageState.CANCELLED,
            started_at=run.started_at,
            ended_at=run.ended_at,
            seconds=None if run.ended is None else round(run.ended - run.started, 3),
            attempts=run.attempt,
            bytes=run.total(),
            steps=tuple(sorted(run.steps, key=lambda step: step.started_at)),
            error=run.error,
        )


def _limit() -> float | None:
    """The time limit of the task that runs in this thread, in seconds.

    Where one is set, `Cancelled` means that it has come.
    """
    context = TaskRunContext.get()
    return context.task.timeout_seconds if context else None


def _exceeded(stage: str, limit: float) -> LimitExceeded:
    return LimitExceeded(
        f"not done within its limit of {limit:g} s",
        operation=stage,
        hint="see in the record which of its steps took the time: a host or a store hangs there,"
        " or is too slow for so much data",
    )


def _cause(error: BaseException) -> str:
    """Why a stage ended, for the operator: a signal has no message worth reading."""
    if isinstance(error, Exception):
        return bounds.text(str(error)) or type(error).__name__
    return f"interrupted ({type(error).__name__})"
