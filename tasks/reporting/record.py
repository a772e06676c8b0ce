"""The record of a rehearsal, put together from what its stages yielded."""

import importlib.metadata
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from blocks.artifact.manifest import LogIndex, Manifest, digest_of
from blocks.engines.registry import catalogue
from blocks.engines.restored import ROWS_NOT_SEARCHED, Restored
from blocks.errors import FarsideError
from blocks.evidence import bounds
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Acceptance, Finding, Findings, finding
from blocks.evidence.history import history
from blocks.evidence.record import (
    BackupSetSummary,
    PlanSummary,
    Record,
    RunbookStep,
    Stage,
    StageState,
    Topology,
)
from blocks.evidence.stages import StageName
from blocks.evidence.uses import Ledger
from blocks.evidence.verdict import verdict_of
from blocks.plan.model import AcceptedRisk
from blocks.repositories.farside.binding import KnownState
from blocks.repositories.farside.copier import SetCopier
from blocks.repositories.farside.writer import SetWriter
from tasks.context import Rehearsal, SourceClock
from tasks.declare import Declaration
from tasks.inspect import ownership
from tasks.inspect.reachability import unprobed
from tasks.key_fetch import Opening
from tasks.log_end import why_unknown
from tasks.preflight import Survey
from tasks.reporting.projection import Measured, at_production, measured, of_records
from tasks.verify import Verification

UNKNOWN_CLOCK_SECONDS = 0.5
"""How late a transaction may seem to be where the source's clock is not known."""


@dataclass(slots=True)
class Course:
    """How far a rehearsal got. Each part is set once, by the stage that yields it."""

    survey: Survey | None = None
    writer: SetWriter | None = None
    copier: SetCopier | None = None
    manifest: Manifest | None = None
    crossed: KnownState | None = None
    declaration: Declaration | None = None
    opening: Opening | None = None
    service: Restored | None = None
    verification: Verification | None = None
    ended_by: BaseException | None = None
    runbook: tuple[RunbookStep, ...] = field(default=())


def record_of(rehearsal: Rehearsal, course: Course, ledger: Ledger) -> Record:
    """The record of a rehearsal, however far it got; objectives that were missed are findings."""
    plan, declared, seen = rehearsal.plan, course.declaration, course.verification
    manifest = course.opening.manifest if course.opening else course.manifest
    usable = seen.usable_at if seen else None
    until = seen.recovered_until if seen else None
    selection = course.survey.selection if course.survey else rehearsal.options.select
    waited = rehearsal.clock.outside(declared.at, usable) if usable and declared else None
    rta = _seconds_between(rehearsal, declared.at, usable) if usable and declared else None
    rpa, odd = _rpa(rehearsal, _loss(declared, seen), until) if until and declared else (None, ())
    rto_seconds = plan.objectives.rto.total_seconds()
    judged = judges_rpo(rehearsal)
    rpo_seconds = plan.objectives.rpo.total_seconds() if judged else None
    stages = rehearsal.clock.stages()
    # What took too long to check did so whether it passed or not.
    took = _seconds_between(rehearsal, declared.at, seen.ended_at) if seen and declared else None
    all_found = Findings()
    all_found.add(*rehearsal.findings.all(), *odd)
    all_found.add(*_objectives(rehearsal, stages, took, rpa if judged else None))
    all_found.add(*_projection(rehearsal, measured(stages, took, _raw_bytes(manifest))))
    found = accept(all_found.all(), plan.accepted, rehearsal.started_at.date())
    checks = seen.checks if seen else ()
    verdict = verdict_of(stages, checks, found)
    return Record(
        rehearsal_id=rehearsal.id,
        plan=PlanSummary(
            plan.name,
            rehearsal.plan_digest,
            plan.engine.label,
            plan.source.name,
            plan.recovery.name,
        ),
        verdict=verdict,
        started_at=rehearsal.started_at,
        ended_at=max((s.ended_at for s in stages if s.ended_at), default=None),
        declared_at=declared.at if declared else None,
        usable_at=usable,
        recovered_until=until,
        rta_seconds=rta,
        rto_seconds=rto_seconds,
        waited_seconds=waited,
        rpa_seconds=rpa,
        rpo_seconds=rpo_seconds,
        transactions_lost=seen.lost.rows if seen and seen.lost else None,
        backup_set=_set_summary(manifest, course, selection) if manifest else None,
        stages=stages,
        checks=bounds.checks(checks),
        findings=bounds.findings(found),
        uses=bounds.uses(ownership.inventory(rehearsal).attributed(ledger.uses())),
        topology=replace(
            course.survey.topology if course.survey else Topology(plan.engine.predicted_nodes),
            observed=course.service.nodes if course.service else None,
        ),
        not_verified=_not_verified(rehearsal, course),
        runbook=course.runbook,
        versions=_versions(),
        trigger=rehearsal.trigger,
        overrides=dict(rehearsal.options.overrides),
    )


def judges_rpo(rehearsal: Rehearsal) -> bool:
    """Whether the RPO applies: an older set loses what its age says, unless the caller asks."""
    return rehearsal.options.select in ("fresh", "latest") or rehearsal.options.rpo_given


def _seconds_between(rehearsal: Rehearsal, since: datetime, until: datetime) -> float:
    """What the rehearsal itself took; what it waited for its orchestrator is told apart."""
    whole = (until - since).total_seconds()
    return max(0.0, whole - rehearsal.clock.outside(since, until))


def _loss(declared: Declaration, seen: Verification | None) -> datetime:
    """The declaration, or what was acknowledged and lost while the source was being cut off."""
    last = seen.lost.last if seen and seen.lost else None
    return max(declared.at, last or declared.at)


def _rpa(
    rehearsal: Rehearsal, lost_at: datetime, until: datetime
) -> tuple[float | None, tuple[Finding, ...]]:
    """The recovery point's age in seconds, by the rehearsal's clock.

    None, with a finding, where the newest transaction bears a time after the declaration.
    """
    clock = rehearsal.source_clock or SourceClock(0.0, UNKNOWN_CLOCK_SECONDS)
    rpa = (lost_at - until).total_seconds() + clock.correction
    if rpa >= -clock.within:
        return max(rpa, 0.0), ()
    known = f"{clock.ahead:+.1f} s" if rehearsal.source_clock else "unknown"
    text = (
        f"the newest restored transaction is dated {-rpa:.1f} s after the declaration (difference"
        f" of the source's clock as measured: {known}): how much was lost is not known"
    )
    return None, (finding(FindingId.CLOCK_SKEW, rehearsal.source.name, text, StageName.VERIFY),)


def accept(
    findings: Iterable[Finding], risks: Sequence[AcceptedRisk], on: date
) -> tuple[Finding, ...]:
    """The findings, those that the plan accepts on that day marked so.

    Of several acceptances of one finding the one that holds longest counts; if its day has passed,
    the evidence says so.
    """
    return tuple(_accepted(item, risks, on) for item in findings)


def _accepted(item: Finding, risks: Sequence[AcceptedRisk], on: date) -> Finding:
    matching = [
        risk for risk in risks if risk.finding == item.id and risk.subject in (None, item.subject)
    ]
    if not matching:
        return item
    risk = max(matching, key=lambda risk: risk.until)
    if on <= risk.until:
        return replace(item, accepted=Acceptance(risk.reason, risk.until))
    passed = f"accepted until {risk.until} ({risk.reason}): that has passed"
    return replace(item, evidence=f"{item.evidence}; {passed}")


def _objectives(
    rehearsal: Rehearsal, stages: tuple[Stage, ...], took: float | None, rpa: float | None
) -> Iterator[Finding]:
    objectives = rehearsal.plan.objectives
    if took is not None and took > objectives.rto.total_seconds():
        timed = [
            s
            for s in stages
            if s.name
            in (StageName.DECLARE, StageName.KEY_FETCH, StageName.RESTORE, StageName.VERIFY)
        ]
        longest = max(timed, key=lambda s: s.seconds or 0)
        evidence = f"{took:.1f} s, objective {objectives.rto.total_seconds():.1f} s; the longest"
        text = f"{evidence} stage is {longest.name} with {longest.seconds} s"
        yield finding(FindingId.RTO_MISSED, rehearsal.plan.name, text, StageName.VERIFY)
    if rpa is not None and rpa > objectives.rpo.total_seconds():
        text = (
            f"the newest restored transaction is {rpa:.1f} s older than the declaration,"
            f" objective {objectives.rpo.total_seconds():.1f} s"
        )
        yield finding(FindingId.RPO_MISSED, rehearsal.plan.name, text, StageName.VERIFY)


def _projection(rehearsal: Rehearsal, now: Measured | None) -> Iterable[Finding]:
    plan = rehearsal.plan
    if plan.production is None or now is None:
        return ()
    try:
        signer = plan.keys.record_signer
        earlier = history(rehearsal.options.results, plan.name, signer).records
    except FarsideError:
        earlier = ()  # whoever shows the history says so
    return at_production(plan, [*of_records(earlier), now])


def _raw_bytes(manifest: Manifest | None) -> int | None:
    return sum(item.raw_bytes for item in manifest.objects) if manifest else None


def _set_summary(manifest: Manifest, course: Course, selection: str) -> BackupSetSummary:
    log: LogIndex | None = course.opening.log if course.opening else None
    return BackupSetSummary(
        manifest.set_id,
        manifest.taken_at,
        sum(item.sealed_bytes for item in manifest.objects),
        selection,
        sum(item.raw_bytes for item in manifest.objects),
        digest_of(manifest),
        log.sequence if log else None,
    )


def _not_verified(rehearsal: Rehearsal, course: Course) -> tuple[str, ...]:
    """What this rehearsal did not look at, each with the reason."""
    plan = rehearsal.plan
    missing = [
        f"stage {s.name}: {s.error or 'not reached'}"
        for s in rehearsal.clock.stages()
        if s.state is StageState.SKIPPED
    ]
    if not plan.fence.tells:
        missing.append("who calls the source once it is lost: the fence has no observe_argv")
    missing += [
        f"whether the fence could be raised, before the loss: {program} has no check_argv, and is"
        " first run at the declaration"
        for program in plan.fence.untried
    ]
    if course.declaration is not None:
        missing += unprobed(rehearsal)
    for risk in plan.accepted:
        if catalogue()[risk.finding].isolation:
            missing.append(f"isolation: {risk.finding} of {risk.subject} is accepted by the plan")
    if not judges_rpo(rehearsal):
        missing.append(f"RPO: it is not judged for a set chosen by {rehearsal.options.select!r}")
    if course.verification is not None and rehearsal.source_clock is None:
        missing.append("the source's clock: it could not be asked, so RPA is not corrected by it")
    if course.verification is not None and course.verification.recovered_until is None:
        missing.append(f"the recovery point, and so the RPO: {why_unknown(rehearsal)}")
    if plan.heartbeat is None:
        missing.append("transactions lost: the plan has no heartbeat ledger")
    if plan.production is None:
        missing.append("production's size: the plan does not give it, so nothing is projected")
    if not plan.checks:
        missing.append("the application's own data: the plan has no checks")
    if plan.keys.record_key is None:
        missing.append("the record's authenticity: the plan names no record_key")
    elif plan.keys.record_signer is None:
        missing.append("earlier records' authenticity: the plan pins no record_signer")
    if not plan.names:
        missing.append("where the service's names lead: the plan lists no names")
    if course.survey is not None:
        missing += course.survey.unseen
    if course.declaration is not None and rehearsal.source_listing is None:
        missing.append("whether the source's store was written to: it could not be listed")
    if course.verification is not None and course.service is not None:
        missed = course.service.not_verified
        missing += [text for text in missed if not (plan.search_rows and text == ROWS_NOT_SEARCHED)]
        missing += [
            f"check {check.name}: {check.actual or check.detail}"
            for check in course.verification.checks
            if check.status.value == "unknown"
        ]
    missing += [
        "production's load on the recovery hosts: this hardware, no users",
        "clients, DNS and load balancers: who would lead users to the recovered service",
    ]
    return bounds.lines(missing)


def _versions() -> dict[str, str]:
    names = ("farside", "prefect", "boto3", "paramiko", "cryptography", "pandas", "zstandard")
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in names:
        found[name] = importlib.metadata.version(name)
    return found
