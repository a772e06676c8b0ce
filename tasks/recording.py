"""The record of a rehearsal, put together from what its stages yielded."""

import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from blocks.artifact.manifest import Manifest
from blocks.engines.base import Service
from blocks.errors import FarsideError
from blocks.evidence.findings import Acceptance, Finding, finding
from blocks.evidence.record import (
    BackupSetSummary,
    PlanSummary,
    Record,
    RunbookStep,
    Stage,
    StageState,
    Topology,
    load_all,
    verdict_of,
)
from blocks.evidence.uses import Ledger
from blocks.plan import AcceptedRisk
from blocks.sets import SetCopier, SetWriter
from tasks import dependence
from tasks.declare import Declaration
from tasks.key_fetch import Opening
from tasks.preflight import Survey
from tasks.projection import Measured, at_production, measured, of_records
from tasks.rehearsal import Rehearsal
from tasks.transfer import Crossed
from tasks.verify import Verification


@dataclass(slots=True)
class Course:
    """How far a rehearsal got. Each part is set once, by the stage that yields it."""

    survey: Survey | None = None
    writer: SetWriter | None = None
    copier: SetCopier | None = None
    manifest: Manifest | None = None
    crossed: Crossed | None = None
    declaration: Declaration | None = None
    opening: Opening | None = None
    service: Service | None = None
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
    judged = rehearsal.options.select in ("fresh", "latest")
    rta = (usable - declared.at).total_seconds() if usable and declared else None
    rpa = (declared.at - until).total_seconds() if until and declared else None
    rto_seconds = plan.objectives.rto.total_seconds()
    rpo_seconds = plan.objectives.rpo.total_seconds() if judged else None
    stages = rehearsal.clock.stages()
    # What took too long to check did so whether it passed or not.
    took = (seen.ended_at - declared.at).total_seconds() if seen and declared else None
    _objectives(rehearsal, stages, took, rpa if judged else None)
    _projection(rehearsal, measured(stages, took, _raw_bytes(manifest)))
    found = accept(rehearsal.findings.all(), plan.accepted, rehearsal.started_at.date())
    checks = seen.checks if seen else ()
    return Record(
        rehearsal_id=rehearsal.id,
        plan=PlanSummary(
            plan.name, plan.digest, plan.engine.label, plan.source.name, plan.recovery.name
        ),
        verdict=verdict_of(stages, checks, found),
        started_at=rehearsal.started_at,
        ended_at=max((s.ended_at for s in stages if s.ended_at), default=None),
        declared_at=declared.at if declared else None,
        usable_at=usable,
        recovered_until=until,
        rta_seconds=rta,
        rto_seconds=rto_seconds,
        rpa_seconds=max(rpa, 0.0) if rpa is not None else None,
        rpo_seconds=rpo_seconds,
        transactions_lost=seen.transactions_lost if seen else None,
        backup_set=_set_summary(manifest, selection) if manifest else None,
        stages=stages,
        checks=checks,
        findings=found,
        uses=dependence.inventory(rehearsal).attributed(ledger.uses()),
        topology=replace(
            course.survey.topology
            if course.survey
            else Topology(plan.engine.predicted_nodes(plan.recovery)),
            observed=course.service.nodes if course.service else None,
        ),
        not_verified=_not_verified(rehearsal, course),
        runbook=course.runbook,
        versions=_versions(),
        trigger=rehearsal.trigger,
    )


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
) -> None:
    objectives = rehearsal.plan.objectives
    if took is not None and took > objectives.rto.total_seconds():
        timed = [s for s in stages if s.name in ("declare", "key fetch", "restore", "verify")]
        longest = max(timed, key=lambda s: s.seconds or 0)
        evidence = f"{took:.1f} s, objective {objectives.rto.total_seconds():.1f} s; the longest"
        rehearsal.findings.add(
            finding(
                "rto-missed",
                rehearsal.plan.name,
                f"{evidence} stage is {longest.name} with {longest.seconds} s",
                "verify",
            )
        )
    if rpa is not None and rpa > objectives.rpo.total_seconds():
        rehearsal.findings.add(
            finding(
                "rpo-missed",
                rehearsal.plan.name,
                f"the newest restored transaction is {rpa:.1f} s older than the declaration,"
                f" objective {objectives.rpo.total_seconds():.1f} s",
                "verify",
            )
        )


def _projection(rehearsal: Rehearsal, now: Measured | None) -> None:
    plan = rehearsal.plan
    if plan.production is None or now is None:
        return
    try:
        records = load_all(rehearsal.options.results)
    except FarsideError:
        records = []  # whoever shows the history says so
    earlier = [record for record in records if record.plan.name == plan.name]
    rehearsal.findings.add(*at_production(plan, [*of_records(earlier), now]))


def _raw_bytes(manifest: Manifest | None) -> int | None:
    return sum(item.raw_bytes for item in manifest.objects) if manifest else None


def _set_summary(manifest: Manifest, selection: str) -> BackupSetSummary:
    return BackupSetSummary(
        manifest.set_id,
        manifest.taken_at,
        sum(item.sealed_bytes for item in manifest.objects),
        selection,
        sum(item.raw_bytes for item in manifest.objects),
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
    beside = {host.name for host in plan.recovery.machines()} - {
        h.name for h in plan.recovery.hosts
    }
    if beside:
        missing.append(f"whether the source answers {', '.join(beside)}: only hosts are asked")
    if plan.heartbeat is None:
        missing.append("transactions lost: the plan has no heartbeat ledger")
    if plan.production is None:
        missing.append("production's size: the plan does not give it, so nothing is projected")
    if not plan.checks:
        missing.append("the application's own data: the plan has no checks")
    if plan.keys.record_key is None:
        missing.append("the record's authenticity: the plan names no record_key")
    if not plan.names:
        missing.append("where the service's names lead: the plan lists no names")
    if course.survey is not None:
        missing += course.survey.unseen
    if course.declaration is not None and rehearsal.source_listing is None:
        missing.append("whether the source's store was written to: it could not be listed")
    if course.verification is not None and course.opening is not None:
        missing += plan.engine.not_verified(course.opening.manifest.engine_facts)
        missing += [
            f"check {check.name}: {check.actual or check.detail}"
            for check in course.verification.checks
            if check.status.value == "unknown"
        ]
    missing += [
        "production's load on the recovery hosts: this hardware, no users",
        "clients, DNS and load balancers: who would lead users to the recovered service",
    ]
    return tuple(missing)


def _versions() -> dict[str, str]:
    names = ("farside", "prefect", "boto3", "paramiko", "cryptography", "pandas", "zstandard")
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in names:
        found[name] = importlib.metadata.version(name)
    return found
