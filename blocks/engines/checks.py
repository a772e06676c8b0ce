"""Checks of a restored service: what is expected is declared once, one runner asks and judges."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import Check, CheckStatus

_LISTED = 10


@dataclass(frozen=True, slots=True)
class SqlQuestion:
    """A plan's own check: a query in the engine's language and the value that passes."""

    name: str
    database: str
    sql: str
    expected: str


@dataclass(frozen=True, slots=True)
class Ticks:
    """A restored heartbeat table: how many rows, the highest id, its time, the first id missing."""

    count: int
    newest_id: int | None
    newest_at: datetime | None
    first_missing: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one check found. What was expected, and the check's name, are the CheckSpec's.

    `detail`, `seconds`, `subjects` and `evidence` are those of `blocks.evidence.record.Check`.
    `finding` is the id of what failed, where it is another one than the CheckSpec's.
    """

    status: CheckStatus
    actual: str | None
    detail: str | None = None
    seconds: tuple[float, float] | None = None
    subjects: tuple[str, ...] = ()
    evidence: Mapping[str, str] = field(default_factory=dict)
    finding: str = ""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One check: its name, what passes, and how it is asked.

    `finding` is the id of the finding that it is when it fails. `grows`: its time grows with the
    size of the data; see `blocks.evidence.record.Step`.
    """

    name: str
    expected: str
    run: Callable[[], Answer]
    finding: str = FindingId.CHECK_FAILED
    grows: bool = False


def run_check(spec: CheckSpec) -> Check:
    """Ask, and judge: the only runner of checks. Raises nothing."""
    answer = answered(spec.run)
    return Check(
        spec.name,
        answer.status,
        spec.expected,
        answer.actual,
        answer.detail,
        answer.seconds,
        answer.subjects,
        answer.finding or spec.finding,
        answer.evidence,
    )


def answered(run: Callable[[], Answer]) -> Answer:
    """What `run` finds; if it breaks, the check could not run, and says why."""
    try:
        return run()
    except FarsideError as error:
        return unknown(error.message)
    except Exception as error:  # noqa: BLE001 (a mistake in one check takes no other's answer away)
        return unknown(f"{type(error).__name__}: {error}")


def passed(actual: str) -> Answer:
    """It is as expected."""
    return Answer(CheckStatus.PASSED, actual)


def unknown(why: str) -> Answer:
    """It could not be asked, which never counts as passed."""
    return Answer(CheckStatus.UNKNOWN, f"could not run: {why}")


def judged(wrong: Sequence[str], right: str, *, subjects: tuple[str, ...] = ()) -> Answer:
    """Failed if anything is `wrong`; else it found what is `right`.

    `subjects` are the things that are wrong, by name, where each is to be a finding of its own.
    """
    if wrong:
        return Answer(CheckStatus.FAILED, listed(wrong), subjects=subjects)
    return Answer(CheckStatus.PASSED, right, subjects=subjects)


def compared(actual: str | None, expected: str) -> Answer:
    """Passed if both are the same."""
    status = CheckStatus.PASSED if actual == expected else CheckStatus.FAILED
    return Answer(status, "NULL" if actual is None else actual)


def listed(items: Sequence[str]) -> str:
    """The first few, and how many more there are: a record is read by people."""
    more = f"; and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return "; ".join(items[:_LISTED]) + more


def question(asked: SqlQuestion, ask: Callable[[], str | None]) -> CheckSpec:
    """A question of the plan as a check; `ask` puts it to the service."""
    return CheckSpec(asked.name, asked.expected, lambda: asked_twice(asked.expected, ask))


def asked_twice(expected: str, ask: Callable[[], str | None]) -> Answer:
    """The last answer against what is expected; raises what `ask` raises.

    What the first answer took longer than the second, a cold service costs its users.
    """
    found, seconds = None, []
    for _ in range(2):
        began = time.monotonic()
        found = ask()
        seconds.append(round(time.monotonic() - began, 3))
    answer = compared(found, expected)
    return Answer(answer.status, answer.actual, seconds=(seconds[0], seconds[1]))
