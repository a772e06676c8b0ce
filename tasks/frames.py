"""Any number of records as pandas frames, for questions about RTO and RPO.

Every frame has `rehearsal_id` and `plan`, so that they join; `lifecycle`, which looks across
rehearsals, has `plan`. Durations are timedeltas, times UTC, bytes and counts nullable integers,
rates bytes per second; what is not known is missing, never zero. No records give empty frames with
the same columns and dtypes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import pandas as pd

from blocks.evidence.catalogue import Category, Severity
from blocks.evidence.findings import Finding
from blocks.evidence.record import STAGES, CheckStatus, Record, StageState, Verdict
from blocks.evidence.stages import StageName
from blocks.evidence.verdict import exit_code

_Column = Callable[[Sequence[Any]], "pd.Series[Any]"]


class Standing(StrEnum):
    """Where the cause of a finding stands after the newest rehearsal that looked for it."""

    NEW = "new"
    """Met there for the first time."""
    RECURRING = "recurring"
    """Met there, and the last time that it was looked for as well."""
    FIXED = "fixed"
    """Not met there any more."""
    REGRESSED = "regressed"
    """Met there again, having been fixed."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of a collection of records."""

    rehearsals: pd.DataFrame
    stages: pd.DataFrame
    steps: pd.DataFrame
    checks: pd.DataFrame
    findings: pd.DataFrame
    uses: pd.DataFrame
    lifecycle: pd.DataFrame


def frames(records: Iterable[Record]) -> Frames:
    """Every frame of `records`."""
    kept = list(records)
    return Frames(
        rehearsals=rehearsals(kept),
        stages=stages(kept),
        steps=steps(kept),
        checks=checks(kept),
        findings=findings(kept),
        uses=uses(kept),
        lifecycle=lifecycle(kept),
    )


def rehearsals(records: Iterable[Record]) -> pd.DataFrame:
    """One row a rehearsal: verdict, actuals against objectives, the set, and counts."""
    rows = []
    for record in records:
        chosen = record.backup_set
        status = Counter(check.status for check in record.checks)
        rows.append(
            {
                "rehearsal_id": record.rehearsal_id,
                "plan": record.plan.name,
                "plan_digest": record.plan.digest,
                "engine": record.plan.engine,
                "source": record.plan.source,
                "recovery": record.plan.recovery,
                "trigger": record.trigger,
                "verdict": record.verdict.value,
                "exit_code": exit_code(record),
                "started_at": record.started_at,
                "ended_at": record.ended_at,
                "duration": _between(record.started_at, record.ended_at),
                "declared_at": record.declared_at,
                "usable_at": record.usable_at,
                "recovered_until": record.recovered_until,
                "rta": _seconds(record.rta_seconds),
                "rto": _seconds(record.rto_seconds),
                "rto_met": record.rto_met,
                "rpa": _seconds(record.rpa_seconds),
                "rpo": _seconds(record.rpo_seconds),
                "rpo_met": record.rpo_met,
                "transactions_lost": record.transactions_lost,
                "backup_set": chosen.id if chosen else None,
                "backup_taken_at": chosen.taken_at if chosen else None,
                "backup_bytes": chosen.bytes if chosen else None,
                "backup_raw_bytes": chosen.raw_bytes if chosen else None,
                "selection": chosen.selection if chosen else None,
                "checks_passed": status[CheckStatus.PASSED],
                "checks_failed": status[CheckStatus.FAILED],
                "checks_unknown": status[CheckStatus.UNKNOWN],
                "findings": len(record.findings),
            }
        )
    return _frame(
        rows,
        {
            "rehearsal_id": _text,
            "plan": _category,
            "plan_digest": _category,
            "engine": _category,
            "source": _category,
            "recovery": _category,
            "trigger": _category,
            "verdict": _one_of(Verdict),
            "exit_code": _count,
            "started_at": _time,
            "ended_at": _time,
            "duration": _duration,
            "declared_at": _time,
            "usable_at": _time,
            "recovered_until": _time,
            "rta": _duration,
            "rto": _duration,
            "rto_met": _flag,
            "rpa": _duration,
            "rpo": _duration,
            "rpo_met": _flag,
            "transactions_lost": _count,
            "backup_set": _text,
            "backup_taken_at": _time,
            "backup_bytes": _count,
            "backup_raw_bytes": _count,
            "selection": _category,
            "checks_passed": _count,
            "checks_failed": _count,
            "checks_unknown": _count,
            "findings": _count,
        },
    )


def stages(records: Iterable[Record]) -> pd.DataFrame:
    """One row a stage; `rta` is the part of it that the RTA clock counted."""
    rows = []
    for record in records:
        on_the_clock = record.rta_breakdown()
        rows += [
            {
                **_key(record),
                "stage": stage.name,
                "state": stage.state.value,
                "started_at": stage.started_at,
                "ended_at": stage.ended_at,
                "duration": _seconds(stage.seconds),
                "rta": _seconds(on_the_clock.get(stage.name)),
                "attempts": stage.attempts,
                "bytes": stage.bytes,
                "bytes_per_second": _rate(stage.bytes, stage.seconds),
                "error": stage.error,
            }
            for stage in record.stages
        ]
    return _frame(
        rows,
        {
            **_KEY,
            "stage": _stage,
            "state": _one_of(StageState),
            "started_at": _time,
            "ended_at": _time,
            "duration": _duration,
            "rta": _duration,
            "attempts": _count,
            "bytes": _count,
            "bytes_per_second": _number,
            "error": _text,
        },
    )


def steps(records: Iterable[Record]) -> pd.DataFrame:
    """One row a step of a stage, those of attempts that failed included."""
    rows = [
        {
            **_key(record),
            "stage": stage.name,
            "step": step.name,
            "attempt": step.attempt,
            "started_at": step.started_at,
            "ended_at": step.ended_at,
            "duration": _seconds(step.seconds),
            "bytes": step.bytes,
            "bytes_per_second": _rate(step.bytes, step.seconds),
        }
        for record in records
        for stage in record.stages
        for step in stage.steps
    ]
    return _frame(
        rows,
        {
            **_KEY,
            "stage": _stage,
            "step": _category,
            "attempt": _count,
            "started_at": _time,
            "ended_at": _time,
            "duration": _duration,
            "bytes": _count,
            "bytes_per_second": _number,
        },
    )


def checks(records: Iterable[Record]) -> pd.DataFrame:
    """One row a check."""
    rows = [
        {
            **_key(record),
            "check": check.name,
            "status": check.status.value,
            "expected": check.expected,
            "actual": check.actual,
            "detail": check.detail,
        }
        for record in records
        for check in record.checks
    ]
    return _frame(
        rows,
        {
            **_KEY,
            "check": _category,
            "status": _one_of(CheckStatus),
            "expected": _text,
            "actual": _text,
            "detail": _text,
        },
    )


def findings(records: Iterable[Record]) -> pd.DataFrame:
    """One row a finding; id, subject and `started_at` order its history across rehearsals."""
    rows = [
        {
            **_key(record),
            "started_at": record.started_at,
            "id": item.id,
            "subject": item.subject,
            "category": item.category.value,
            "severity": item.severity.value,
            "stage": item.stage,
            "evidence": item.evidence,
            "remedy": item.remedy,
            "accepted_until": item.accepted.until if item.accepted else None,
        }
        for record in records
        for item in record.findings
    ]
    return _frame(
        rows,
        {
            **_KEY,
            "started_at": _time,
            "id": _category,
            "subject": _text,
            "category": _one_of(Category),
            "severity": _one_of(Severity),
            "stage": _stage,
            "evidence": _text,
            "remedy": _text,
            "accepted_until": _day,
        },
    )


def uses(records: Iterable[Record]) -> pd.DataFrame:
    """One row a use; `role` says whether its domain is the plan's source or recovery domain,
    `after_declaration` whether the source was lost by then (missing if it was never declared).
    """
    rows = []
    for record in records:
        roles = {record.plan.source: "source", record.plan.recovery: "recovery"}
        declared = record.declared_at
        rows += [
            {
                **_key(record),
                "stage": use.stage,
                "at": use.at,
                "kind": use.kind,
                "name": use.name,
                "domain": use.domain or None,
                "role": roles.get(use.domain),
                "after_declaration": None if declared is None else use.at >= declared,
            }
            for use in record.uses
        ]
    return _frame(
        rows,
        {
            **_KEY,
            "stage": _stage,
            "at": _time,
            "kind": _category,
            "name": _text,
            "domain": _category,
            "role": _category,
            "after_declaration": _flag,
        },
    )


def lifecycle(records: Iterable[Record]) -> pd.DataFrame:
    """One row for each plan and cause (id and subject) that was ever met, with its `state`.

    A cause counts as fixed once a later rehearsal of the plan looked for it and did not meet it:
    one that never got so far shows nothing. `first_seen` and `last_seen` are the starts of the
    first and the last rehearsal that met it, `rehearsals` is how many did; severity, remedy and
    acceptance are those of the last.
    """
    causes: defaultdict[str, dict[Finding, _Cause]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: (record.started_at, record.rehearsal_id)):
        known = causes[record.plan.name]
        met = dict.fromkeys(record.findings)
        for item, cause in known.items():
            if item not in met and _looked_for(cause.last, record):
                cause.state = Standing.FIXED
        for item in met:
            if item in known:
                known[item].meet(item, record.started_at)
            else:
                known[item] = _Cause(item, record.started_at, record.started_at)
    rows = [
        {
            "plan": plan,
            "id": cause.last.id,
            "subject": cause.last.subject,
            "category": cause.last.category.value,
            "severity": cause.last.severity.value,
            "state": cause.state.value,
            "first_seen": cause.first_seen,
            "last_seen": cause.last_seen,
            "rehearsals": cause.rehearsals,
            "accepted_until": cause.last.accepted.until if cause.last.accepted else None,
            "remedy": cause.last.remedy,
        }
        for plan, known in causes.items()
        for cause in known.values()
    ]
    return _frame(
        rows,
        {
            "plan": _category,
            "id": _category,
            "subject": _text,
            "category": _one_of(Category),
            "severity": _one_of(Severity),
            "state": _one_of(Standing),
            "first_seen": _time,
            "last_seen": _time,
            "rehearsals": _count,
            "accepted_until": _day,
            "remedy": _text,
        },
    )


@dataclass(slots=True)
class _Cause:
    """What is known of a cause so far; `last` is the finding when it was met last."""

    last: Finding
    first_seen: datetime
    last_seen: datetime
    rehearsals: int = 1
    state: Standing = Standing.NEW

    def meet(self, item: Finding, at: datetime) -> None:
        """It was met again, in the rehearsal that started `at`."""
        fixed = self.state is Standing.FIXED
        self.state = Standing.REGRESSED if fixed else Standing.RECURRING
        self.last, self.last_seen = item, at
        self.rehearsals += 1


def _looked_for(item: Finding, record: Record) -> bool:
    """Whether a rehearsal would have met `item`: it completed the stage, and knew the actual.

    Hosts of the source are looked at only where a backup is taken.
    """
    completed = {stage.name for stage in record.stages if stage.state is StageState.COMPLETED}
    needed = {item.stage}
    if item.subject.startswith(f"{record.plan.source}/"):
        needed.add(StageName.SNAPSHOT)
    return needed <= completed and record.objectives.get(item.id, True) is not None


def _of(dtype: Any) -> _Column:
    def column(values: Sequence[Any]) -> "pd.Series[Any]":
        series: pd.Series[Any] = pd.Series(values, dtype=dtype)
        return series

    return column


def _one_of(values: type[StrEnum]) -> _Column:
    return _of(pd.CategoricalDtype([value.value for value in values], ordered=True))


def _category(values: Sequence[Any]) -> "pd.Series[Any]":
    known = sorted({value for value in values if value is not None})
    return pd.Series(values, dtype=pd.CategoricalDtype(known))


def _stage(values: Sequence[Any]) -> "pd.Series[Any]":
    """In the order of a rehearsal; stages that only some engine or plan has come after."""
    known = list(dict.fromkeys([*STAGES, *values]))
    return pd.Series(values, dtype=pd.CategoricalDtype(known, ordered=True))


_text = _of("string")
_count = _of("Int64")
_number = _of("Float64")
_flag = _of("boolean")
_time = _of("datetime64[us, UTC]")
_day = _of("datetime64[s]")
_duration = _of("timedelta64[us]")

_KEY: dict[str, _Column] = {"rehearsal_id": _text, "plan": _category}


def _key(record: Record) -> dict[str, Any]:
    return {"rehearsal_id": record.rehearsal_id, "plan": record.plan.name}


def _frame(rows: Sequence[dict[str, Any]], columns: dict[str, _Column]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: column([row[name] for row in rows]) for name, column in columns.items()}
    )


def _seconds(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _between(start: datetime, end: datetime | None) -> timedelta | None:
    return None if end is None else end - start


def _rate(bytes: int | None, seconds: float | None) -> float | None:
    return None if bytes is None or not seconds else bytes / seconds
