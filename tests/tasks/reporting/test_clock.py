"""The stage clock: what it measured is what the record says."""

import time
from asyncio import CancelledError
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.exceptions import CancelledRun
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from blocks.errors import PermanentError, TransientError
from blocks.evidence import bounds
from blocks.evidence.record import STAGES, Stage
from blocks.evidence.uses import new_ledger
from tasks.context import stage as made_stage
from tasks.inspect.diagnose import diagnose
from tasks.reporting.clock import LimitExceeded, Silence, StageClock, StageInProgress
from tests.servers import PrefectServer


class Diary(Silence):
    """A listener that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage_started(self, stage: str, attempt: int) -> None:
        self.lines.append(f"{stage} {attempt}")

    def step_started(self, stage: str, step: str) -> None:
        self.lines.append(f"{stage}: {step}")

    def stage_moved(self, stage: str, size: int, expected: int | None) -> None:
        self.lines.append(f"{stage} {size} of {expected}")

    def stage_ended(self, stage: Stage) -> None:
        self.lines.append(f"{stage.name} {stage.state}")


def only(clock: StageClock, name: str) -> Stage:
    """The stage of that name."""
    (found,) = [stage for stage in clock.stages() if stage.name == name]
    return found


def lose_connection(stage: StageInProgress) -> int:
    """Move a little, then fail."""
    stage.moved(70)
    raise TransientError("connection lost", host="db1")


def test_times_are_utc_and_seconds_fit_them() -> None:
    clock = StageClock()
    before = clock.now()
    with clock.stage("restore") as stage:
        with stage.step("fetch") as step:
            time.sleep(0.05)
            step.bytes = 10
        with stage.step("recover") as step:
            time.sleep(0.02)
            step.name = "replay"
    restore = only(clock, "restore")
    assert restore.state == "completed"
    assert restore.started_at is not None
    assert restore.ended_at is not None
    assert before <= restore.started_at <= restore.ended_at <= clock.now()
    # Not to the microsecond: a machine's clock is set by small steps all the time.
    assert abs(datetime.now(UTC) - restore.ended_at) < timedelta(minutes=1)
    assert restore.started_at.tzinfo is UTC
    fetch, replay = restore.steps
    assert (fetch.name, replay.name) == ("fetch", "replay")
    assert (fetch.bytes, replay.bytes, restore.bytes) == (10, None, 10)
    assert fetch.seconds is not None
    assert fetch.seconds > 0.04
    assert restore.seconds is not None
    assert restore.seconds >= fetch.seconds + (replay.seconds or 0) - 0.002


def test_stages_come_in_order_and_those_that_never_ran_are_skipped_without_numbers() -> None:
    clock = StageClock()
    with clock.stage("preflight"):
        pass
    clock.skip("snapshot", "the plan rehearses the latest set")
    with clock.stage("warm up"):
        pass
    stages = clock.stages()
    assert [stage.name for stage in stages] == [*STAGES, "warm up"]
    snapshot, transfer = stages[1:3]
    assert (snapshot.state, snapshot.error) == ("skipped", "the plan rehearses the latest set")
    assert (transfer.state, transfer.seconds, transfer.started_at) == ("skipped", None, None)
    assert (transfer.attempts, transfer.bytes) == (0, None)


def test_a_stage_that_is_run_again_is_one_stage_with_two_attempts() -> None:
    diary = Diary()
    clock = StageClock(diary)
    with (
        pytest.raises(TransientError),
        clock.stage("transfer") as first,
        first.step("copy") as step,
    ):
        step.bytes = lose_connection(first)
    failed = only(clock, "transfer")
    assert (failed.state, failed.error) == ("failed", "db1: connection lost")
    with clock.stage("transfer") as second:
        first.moved(10_000)  # a thread of the first attempt that a time limit did not stop
        second.expect(100)
        second.moved(30, of="a")
        second.moved(40, of="b")
        second.moved(60, of="a")
    done = only(clock, "transfer")
    assert (done.state, done.error, done.attempts, done.bytes) == ("completed", None, 2, 100)
    assert done.started_at == failed.started_at
    assert done.seconds is not None
    assert [(step.name, step.attempt) for step in done.steps] == [("copy", 1)]
    assert diary.lines == [
        *("transfer 1", "transfer: copy", "transfer 70 of None", "transfer failed"),
        *("transfer 2", "transfer 0 of 100", "transfer 30 of 100", "transfer 70 of 100"),
        *("transfer 100 of 100", "transfer completed"),
    ]


def test_what_an_error_says_is_bounded() -> None:
    clock = StageClock()
    with pytest.raises(PermanentError), clock.stage("restore"):
        raise PermanentError("x" * 10**6)
    clock.skip("verify", "y" * 10**6)
    for stage in clock.stages():
        assert len(stage.error or "") < bounds.TEXT + 100
        assert stage.error is None or "1,000,000 characters" in stage.error


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (PermanentError("no space", host="db1"), "failed", "db1: no space"),
        (ValueError(), "failed", "ValueError"),
        (KeyboardInterrupt(), "cancelled", "interrupted (KeyboardInterrupt)"),
        (CancelledRun("cancelled in the UI"), "cancelled", "cancelled in the UI"),
    ],
)
def test_how_a_stage_ended_is_kept_and_the_exception_goes_on(
    error: BaseException, state: str, message: str
) -> None:
    clock = StageClock()
    with pytest.raises(type(error)), clock.stage("restore"):
        raise error
    restore = only(clock, "restore")
    assert (restore.state, restore.error) == (state, message)
    assert restore.ended_at is not None


def test_steps_that_were_timed_on_a_host_are_sorted_in() -> None:
    clock = StageClock()
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    with clock.stage("restore") as stage:
        stage.add_step("later", noon + timedelta(seconds=3), noon + timedelta(seconds=4), 7)
        stage.add_step("sooner", noon, noon + timedelta(seconds=2.5), 5)
    restore = only(clock, "restore")
    assert [(step.name, step.seconds) for step in restore.steps] == [("sooner", 2.5), ("later", 1)]
    assert restore.bytes == 12


def test_bytes_given_outright_win() -> None:
    clock = StageClock()
    with clock.stage("snapshot") as stage:
        stage.moved(5)
        stage.total(6)
    assert only(clock, "snapshot").bytes == 6


def test_threads_do_not_lose_steps_or_bytes() -> None:
    clock = StageClock()
    with clock.stage("transfer") as stage, ThreadPoolExecutor(8) as pool:

        def copy(number: int) -> None:
            with stage.step(f"object {number}"):
                for so_far in range(1, 51):
                    stage.moved(so_far, of=str(number))

        list(pool.map(copy, range(40)))
    transfer = only(clock, "transfer")
    assert (len(transfer.steps), transfer.bytes) == (40, 2000)


def test_a_stage_that_still_runs_has_no_end_and_uses_are_booked_on_it() -> None:
    clock = StageClock()
    with new_ledger() as book, clock.stage("key fetch"):
        book.note("key", "identity", "west")
        running = only(clock, "key fetch")
        assert (running.state, running.ended_at, running.seconds) == ("cancelled", None, None)
    assert [use.stage for use in book.uses()] == ["key fetch"]


def test_a_thread_that_outlives_its_stage_begins_no_step() -> None:
    """Teardown would miss what it makes."""
    clock = StageClock()
    with pytest.raises(KeyboardInterrupt), clock.stage("restore") as stage:
        raise KeyboardInterrupt
    with pytest.raises(PermanentError, match="attempt 1 has ended"), stage.step("start"):
        pass
    with clock.stage("restore") as second, second.step("start"):
        pass
    assert [step.name for step in clock.stages()[5].steps] == ["start"]


def test_a_clock_that_is_set_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forward, a day back: stamps and durations come from one moment on."""
    clock = StageClock()
    began = clock.now()

    class Set(datetime):
        @classmethod
        def now(cls, tz: object = None) -> "Set":  # noqa: ARG003
            return cls(2031, 1, 1, tzinfo=UTC)

    monkeypatch.setattr("tasks.reporting.clock.datetime", Set)
    with clock.stage("verify"):
        pass
    (verify,) = (item for item in clock.stages() if item.name == "verify")
    assert verify.started_at is not None
    assert timedelta(0) <= verify.started_at - began < timedelta(minutes=5)


def test_what_is_waited_between_stages_is_told_apart() -> None:
    clock = StageClock()
    with clock.stage("declare"):
        since = clock.now()
    time.sleep(0.3)
    with clock.stage("restore"):
        time.sleep(0.1)
    time.sleep(0.2)
    with clock.stage("verify"):
        until = clock.now()
    assert 0.5 <= clock.outside(since, until) <= (until - since).total_seconds() - 0.1


def test_a_stage_that_its_time_limit_ends_has_failed_and_is_a_finding(tmp_path: Path) -> None:
    """As Prefect ends it; it is not begun again, though this stage has a retry."""
    clock = StageClock()

    @made_stage("restore", retries=1, limit=1)
    def hang(rehearsal: str) -> None:  # noqa: ARG001 (the name of the run)
        with clock.stage("restore") as run, run.step("fetch"):
            ends = time.monotonic() + 30
            while time.monotonic() < ends:
                time.sleep(0.05)

    @flow
    def rehearse() -> BaseException | None:
        try:
            hang("r1")
        except Exception as error:  # noqa: BLE001 (returned to the test)
            return error
        return None

    api = PrefectServer.shared().ready()
    with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: tmp_path}):
        error = rehearse()
    text = "not done within its limit of 1 s"
    restore = only(clock, "restore")
    assert (restore.state, restore.attempts) == ("failed", 1)
    assert [step.name for step in restore.steps] == ["fetch"]
    assert str(restore.error).startswith(f"restore: {text} (next: see in the record which")
    assert isinstance(error, LimitExceeded)
    (found,) = diagnose(error, "restore", "east")
    assert (found.id, found.subject, found.evidence) == ("restore-failed", "restore", text)
    assert "a host or a store hangs" in found.remedy


@pytest.mark.parametrize(
    ("name", "finding_id"),
    [("snapshot", "backup-failed"), ("transfer", "copy-behind"), ("declare", "fence-leaks")],
)
def test_a_time_limit_is_a_finding_of_its_stage(
    monkeypatch: pytest.MonkeyPatch, name: str, finding_id: str
) -> None:
    monkeypatch.setattr("tasks.reporting.clock._limit", lambda: 600.0)
    clock = StageClock()
    with pytest.raises(LimitExceeded) as raised, clock.stage(name):
        raise CancelledError
    assert only(clock, name).state == "failed"
    (found,) = diagnose(raised.value, name, "east")
    assert (found.id, found.stage) == (finding_id, name)


def test_what_is_cancelled_without_a_limit_is_cancelled() -> None:
    clock = StageClock()
    with pytest.raises(CancelledError), clock.stage("restore"):
        raise CancelledError
    restore = only(clock, "restore")
    assert (restore.state, restore.error) == ("cancelled", "interrupted (CancelledError)")
