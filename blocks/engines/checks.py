"""One check of a restored service: guarded, judged, timed."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from blocks.errors import FarsideError
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


def guarded(name: str, expected: str, run: Callable[[], Check]) -> Iterator[Check]:
    """What `run` finds; if it breaks, the check could not run, and says why."""
    try:
        yield run()
    except FarsideError as error:
        yield Check(name, CheckStatus.UNKNOWN, expected, f"could not run: {error.message}")
    except Exception as error:  # a mistake in one check takes no other's answer away
        text = f"could not run: {type(error).__name__}: {error}"
        yield Check(name, CheckStatus.UNKNOWN, expected, text)


def checked(
    name: str,
    expected: str,
    wrong: Sequence[str],
    right: str,
    *,
    finding: str,
    subjects: tuple[str, ...] = (),
) -> Check:
    """A check that failed if anything is `wrong`; else it found what is `right`.

    `finding` is the id of what it stands for when it fails.
    """
    status = CheckStatus.FAILED if wrong else CheckStatus.PASSED
    actual = listed(wrong) or right
    return Check(name, status, expected, actual, subjects=subjects, finding=finding)


def listed(items: Sequence[str]) -> str:
    """The first few, and how many more there are: a record is read by people."""
    more = f"; and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return "; ".join(items[:_LISTED]) + more


def asked(question: SqlQuestion, ask: Callable[[], str | None]) -> Check:
    """A question of the plan, by `ask`; raises what that raises.

    Asked twice: what the first answer took longer than the second, a cold service costs its users.
    """
    found, seconds = None, []
    for _ in range(2):
        began = time.monotonic()
        found = ask()
        seconds.append(round(time.monotonic() - began, 3))
    status = CheckStatus.PASSED if found == question.expected else CheckStatus.FAILED
    return Check(
        question.name,
        status,
        question.expected,
        "NULL" if found is None else found,
        seconds=(seconds[0], seconds[1]),
    )
