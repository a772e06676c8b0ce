"""Any number of records as pandas frames, for questions about RTO and RPO.

Every frame has `rehearsal_id` and `plan`, so that they join; `lifecycle`, which looks across
rehearsals, has `plan`. Durations are timedeltas, times UTC, bytes and counts nullable integers,
rates bytes per second; what is not known is missing, never zero. No records give empty frames with
the same columns and dtypes.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

import pandas as pd

from blocks.evidence.catalogue import Category, Severity
from blocks.evidence.findings import Finding
from blocks.evidence.record import (
    STAGES,
    Check,
    CheckStatus,
    Record,
    Stage,
    StageState,
    Step,
    Verdict,
)
from blocks.evidence.stages import StageName
from blocks.evidence.uses import Use
from blocks.evidence.verdict import exit_code
from tasks.columns import (
    COUNT,
    DAY,
    DURATION,
    FLAG,
    NUMBER,
    TEXT,
    TIME,
    Column,
    category,
    frame,
    one_of,
    ordered,
)


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


_STAGE = ordered(STAGES)
"""In the order of a rehearsal; stages that only some engine or plan has come after."""


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


_REHEARSALS: tuple[Column[Record], ...] = (
    Column("rehearsal_id", TEXT, lambda r: r.rehearsal_id),
    Column("plan", category, lambda r: r.plan.name),
    Column("plan_digest", category, lambda r: r.plan.digest),
    Column("engine", category, lambda r: r.plan.engine),
    Column("source", category, lambda r: r.plan.source),
    Column("recovery", category, lambda r: r.plan.recovery),
    Column("trigger", category, lambda r: r.trigger),
    Column("verdict", one_of(Verdict), lambda r: r.verdict.value),
    Column("exit_code", COUNT, exit_code),
    Column("started_at", TIME, lambda r: r.started_at),
    Column("ended_at", TIME, lambda r: r.ended_at),
    Column("duration", DURATION, lambda r: _between(r.started_at, r.ended_at)),
    Column("declared_at", TIME, lambda r: r.declared_at),
    Column("usable_at", TIME, lambda r: r.usable_at),
    Column("recovered_until", TIME, lambda r: r.recovered_until),
    Column("rta", DURATION, lambda r: _seconds(r.rta_seconds)),
    Column("rto", DURATION, lambda r: _seconds(r.rto_seconds)),
    Column("rto_met", FLAG, lambda r: r.rto_met),
    Column("rpa", DURATION, lambda r: _seconds(r.rpa_seconds)),
    Column("rpo", DURATION, lambda r: _seconds(r.rpo_seconds)),
    Column("rpo_met", FLAG, lambda r: r.rpo_met),
    Column("transactions_lost", COUNT, lambda r: r.transactions_lost),
    Column("backup_set", TEXT, lambda r: r.backup_set and r.backup_set.id),
    Column("backup_taken_at", TIME, lambda r: r.backup_set and r.backup_set.taken_at),
    Column("backup_bytes", COUNT, lambda r: r.backup_set and r.backup_set.bytes),
    Column("backup_raw_bytes", COUNT, lambda r: r.backup_set and r.backup_set.raw_bytes),
    Column("selection", category, lambda r: r.backup_set and r.backup_set.selection),
    Column("checks_passed", COUNT, lambda r: _checked(r, CheckStatus.PASSED)),
    Column("checks_failed", COUNT, lambda r: _checked(r, CheckStatus.FAILED)),
    Column("checks_unknown", COUNT, lambda r: _checked(r, CheckStatus.UNKNOWN)),
    Column("findings", COUNT, lambda r: len(r.findings)),
)


def rehearsals(records: Iterable[Record]) -> pd.DataFrame:
    """One row a rehearsal: verdict, actuals against objectives, the set, and counts."""
    return frame(_REHEARSALS, records)


def _checked(record: Record, status: CheckStatus) -> int:
    return sum(check.status is status for check in record.checks)


_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _Of(Generic[_Item]):
    """Something that a record holds, and the record."""

    record: Record
    item: _Item


@dataclass(frozen=True, slots=True)
class _OfStage(_Of[Stage]):
    """A stage, and how many of its seconds the RTA clock counted."""

    rta: float | None


@dataclass(frozen=True, slots=True)
class _OfStep(_Of[Step]):
    """A step, and its stage."""

    stage: Stage


_KEY: tuple[Column[_Of[Any]], ...] = (
    Column("rehearsal_id", TEXT, lambda row: row.record.rehearsal_id),
    Column("plan", category, lambda row: row.record.plan.name),
)

_STAGES: tuple[Column[_OfStage], ...] = (
    *_KEY,
    Column("stage", _STAGE, lambda row: row.item.name),
    Column("state", one_of(StageState), lambda row: row.item.state.value),
    Column("started_at", TIME, lambda row: row.item.started_at),
    Column("ended_at", TIME, lambda row: row.item.ended_at),
    Column("duration", DURATION, lambda row: _seconds(row.item.seconds)),
    Column("rta", DURATION, lambda row: _seconds(row.rta)),
    Column("attempts", COUNT, lambda row: row.item.attempts),
    Column("bytes", COUNT, lambda row: row.item.bytes),
    Column("bytes_per_second", NUMBER, lambda row: _rate(row.item.bytes, row.item.seconds)),
    Column("error", TEXT, lambda row: row.item.error),
)


def stages(records: Iterable[Record]) -> pd.DataFrame:
    """One row a stage; `rta` is the part of it that the RTA clock counted."""
    return frame(_STAGES, _stages(records))


def _stages(records: Iterable[Record]) -> Iterator[_OfStage]:
    for record in records:
        on_the_clock = record.rta_breakdown()
        for item in record.stages:
            yield _OfStage(record, item, on_the_clock.get(item.name))


_STEPS: tuple[Column[_OfStep], ...] = (
    *_KEY,
    Column("stage", _STAGE, lambda row: row.stage.name),
    Column("step", category, lambda row: row.item.name),
    Column("attempt", COUNT, lambda row: row.item.attempt),
    Column("started_at", TIME, lambda row: row.item.started_at),
    Column("ended_at", TIME, lambda row: row.item.ended_at),
    Column("duration", DURATION, lambda row: _seconds(row.item.seconds)),
    Column("bytes", COUNT, lambda row: row.item.bytes),
    Column("bytes_per_second", NUMBER, lambda row: _rate(row.item.bytes, row.item.seconds)),
)


def steps(records: Iterable[Record]) -> pd.DataFrame:
    """One row a step of a stage, those of attempts that failed included."""
    rows = (
        _OfStep(record, item, stage)
        for record in records
        for stage in record.stages
        for item in stage.steps
    )
    return frame(_STEPS, rows)


_CHECKS: tuple[Column[_Of[Check]], ...] = (
    *_KEY,
    Column("check", category, lambda row: row.item.name),
    Column("status", one_of(CheckStatus), lambda row: row.item.status.value),
    Column("expected", TEXT, lambda row: row.item.expected),
    Column("actual", TEXT, lambda row: row.item.actual),
    Column("detail", TEXT, lambda row: row.item.detail),
)


def checks(records: Iterable[Record]) -> pd.DataFrame:
    """One row a check."""
    return frame(_CHECKS, (_Of(record, item) for record in records for item in record.checks))


_FINDINGS: tuple[Column[_Of[Finding]], ...] = (
    *_KEY,
    Column("started_at", TIME, lambda row: row.record.started_at),
    Column("id", category, lambda row: row.item.id),
    Column("subject", TEXT, lambda row: row.item.subject),
    Column("category", one_of(Category), lambda row: row.item.category.value),
    Column("severity", one_of(Severity), lambda row: row.item.severity.value),
    Column("stage", _STAGE, lambda row: row.item.stage),
    Column("evidence", TEXT, lambda row: row.item.evidence),
    Column("remedy", TEXT, lambda row: row.item.remedy),
    Column("accepted_until", DAY, lambda row: row.item.accepted and row.item.accepted.until),
)


def findings(records: Iterable[Record]) -> pd.DataFrame:
    """One row a finding; id, subject and `started_at` order its history across rehearsals."""
    return frame(_FINDINGS, (_Of(record, item) for record in records for item in record.findings))


_USES: tuple[Column[_Of[Use]], ...] = (
    *_KEY,
    Column("stage", _STAGE, lambda row: row.item.stage),
    Column("at", TIME, lambda row: row.item.at),
    Column("kind", category, lambda row: row.item.kind),
    Column("name", TEXT, lambda row: row.item.name),
    Column("domain", category, lambda row: row.item.domain or None),
    Column("role", category, lambda row: _role(row)),
    Column("after_declaration", FLAG, lambda row: _after_declaration(row)),
)


def uses(records: Iterable[Record]) -> pd.DataFrame:
    """One row a use; `role` says whether its domain is the plan's source or recovery domain,
    `after_declaration` whether the source was lost by then (missing if it was never declared).
    """
    return frame(_USES, (_Of(record, item) for record in records for item in record.uses))


def _role(row: _Of[Use]) -> str | None:
    plan = row.record.plan
    return {plan.source: "source", plan.recovery: "recovery"}.get(row.item.domain)


def _after_declaration(row: _Of[Use]) -> bool | None:
    declared = row.record.declared_at
    return None if declared is None else row.item.at >= declared


@dataclass(slots=True)
class _Cause:
    """What is known of a cause so far; `last` is the finding when it was met last."""

    plan: str
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


_LIFECYCLE: tuple[Column[_Cause], ...] = (
    Column("plan", category, lambda cause: cause.plan),
    Column("id", category, lambda cause: cause.last.id),
    Column("subject", TEXT, lambda cause: cause.last.subject),
    Column("category", one_of(Category), lambda cause: cause.last.category.value),
    Column("severity", one_of(Severity), lambda cause: cause.last.severity.value),
    Column("state", one_of(Standing), lambda cause: cause.state.value),
    Column("first_seen", TIME, lambda cause: cause.first_seen),
    Column("last_seen", TIME, lambda cause: cause.last_seen),
    Column("rehearsals", COUNT, lambda cause: cause.rehearsals),
    Column("accepted_until", DAY, lambda cause: cause.last.accepted and cause.last.accepted.until),
    Column("remedy", TEXT, lambda cause: cause.last.remedy),
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
                known[item] = _Cause(record.plan.name, item, record.started_at, record.started_at)
    return frame(_LIFECYCLE, (cause for known in causes.values() for cause in known.values()))


def _looked_for(item: Finding, record: Record) -> bool:
    """Whether a rehearsal would have met `item`: it completed the stage, and knew the actual.

    Hosts of the source are looked at only where a backup is taken.
    """
    completed = {stage.name for stage in record.stages if stage.state is StageState.COMPLETED}
    needed = {item.stage}
    if item.subject.startswith(f"{record.plan.source}/"):
        needed.add(StageName.SNAPSHOT)
    return needed <= completed and record.objectives.get(item.id, True) is not None


def _seconds(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _between(start: datetime, end: datetime | None) -> timedelta | None:
    return None if end is None else end - start


def _rate(count: int | None, seconds: float | None) -> float | None:
    return None if count is None or not seconds else count / seconds
