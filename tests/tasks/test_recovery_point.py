"""How old the recovery point is: by one clock, never less than nothing, known of a quiet source."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from typing_extensions import override

from blocks.engines.abilities import HasLog
from blocks.errors import PermanentError
from tasks.context import Rehearsal, SourceClock
from tasks.declare import Declaration
from tasks.heartbeat import Lost
from tasks.log_end import note_end_of_log, recovered_by_log, why_unknown
from tasks.reporting.record import UNKNOWN_CLOCK_SECONDS, _loss, _rpa
from tasks.verify import Verification

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@dataclass
class Domain:
    name: str = "east"


@dataclass
class Clock:
    at: datetime = NOON

    def now(self) -> datetime:
        return self.at


@dataclass
class Engine(HasLog):
    """A log of which both ends are known, or not."""

    end: int | None = None
    replayed: int | None = None
    answers: bool = True

    @override
    def end_of_log(self, source: object) -> int | None:
        if not self.answers:
            raise PermanentError("no answer")
        return self.end

    def end_of_replay(self) -> int | None:
        """In its place: what it restores."""
        return self.replayed


@dataclass
class Plan:
    engine: Engine = field(default_factory=Engine)


@dataclass
class Fake:
    """As much of a rehearsal as is asked here."""

    source_clock: SourceClock | None = None
    source: Domain = field(default_factory=Domain)
    recovery: Domain = field(default_factory=lambda: Domain("west"))
    clock: Clock = field(default_factory=Clock)
    plan: Plan = field(default_factory=Plan)
    log_ends: list[tuple[datetime, int]] = field(default_factory=list)

    @property
    def true(self) -> Rehearsal:
        return cast("Rehearsal", cast("Any", self))


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("clock", "until", "expected"),
    [
        (None, -3.0, 3.0),
        (SourceClock(0.0, 0.1), -3.0, 3.0),
        (SourceClock(4.0, 0.1), -3.0, 7.0),  # ahead: it hides four seconds of loss
        (SourceClock(4.0, 0.1), 1.0, 3.0),
        (SourceClock(-4.0, 0.1), -7.0, 3.0),
        (SourceClock(0.3, 0.5), -3.0, 3.0),  # may be mere latency
        (SourceClock(0.0, 0.1), 0.05, 0.0),  # no more than the measurement is exact
        (SourceClock(0.0, 0.1), 4.0, None),
        (SourceClock(2.0, 0.1), 4.0, None),
        (None, UNKNOWN_CLOCK_SECONDS + 1, None),
    ],
)
def test_the_age_of_the_recovery_point(
    clock: SourceClock | None, until: float, expected: float | None
) -> None:
    rpa, found = _rpa(Fake(clock).true, NOON, after(until))
    if expected is None:
        assert rpa is None
        (item,) = found
        assert (item.id, item.subject) == ("clock-skew", "east")
        assert "after the declaration" in item.evidence
    else:
        assert rpa == pytest.approx(expected)
        assert found == ()


@pytest.mark.parametrize(
    ("last", "lost_at"), [(None, NOON), (after(-5), NOON), (after(50), after(50))]
)
def test_what_is_acknowledged_while_the_source_is_cut_off_is_lost_too(
    last: datetime | None, lost_at: datetime
) -> None:
    seen = Verification((), None, Lost(7, last), NOON, usable=True)
    assert _loss(Declaration(NOON), seen) == lost_at
    assert _loss(Declaration(NOON), None) == NOON


def test_a_quiet_source_is_recovered_to_the_last_moment_whose_log_was_replayed() -> None:
    rehearsal = Fake(plan=Plan(Engine(end=100, replayed=110)))
    note_end_of_log(rehearsal.true)
    rehearsal.clock.at = after(10)
    note_end_of_log(rehearsal.true)
    rehearsal.clock.at, rehearsal.plan.engine.end = after(20), 120
    note_end_of_log(rehearsal.true)
    assert recovered_by_log(rehearsal.true, cast("Any", rehearsal.plan.engine)) == after(10)


def test_it_is_told_by_the_source_clock() -> None:
    rehearsal = Fake(SourceClock(4.0, 0.1), plan=Plan(Engine(end=100, replayed=100)))
    note_end_of_log(rehearsal.true)
    until = recovered_by_log(rehearsal.true, cast("Any", rehearsal.plan.engine))
    assert until == after(4)
    assert _rpa(rehearsal.true, after(1), until)[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (Engine(end=None, replayed=100), "the source did not say where its log ended"),
        (Engine(end=100, answers=False), "the source did not say where its log ended"),
        (Engine(end=100, replayed=99), "replayed to no point at which the source was seen"),
        (Engine(end=100, replayed=None), "replayed to no point at which the source was seen"),
    ],
)
def test_what_is_not_known_is_said(engine: Engine, why: str) -> None:
    rehearsal = Fake(plan=Plan(engine))
    note_end_of_log(rehearsal.true)
    assert recovered_by_log(rehearsal.true, cast("Any", rehearsal.plan.engine)) is None
    assert why in why_unknown(rehearsal.true)
