"""Rehearse a disaster: `python -m flows.rehearse [PLAN]`, a Prefect deployment, or a flow call."""

import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.artifact.manifest import Manifest
from blocks.engines.base import Service
from blocks.evidence.findings import finding
from blocks.evidence.record import (
    BackupSetSummary,
    PlanSummary,
    Record,
    RunbookStep,
    Stage,
    StageState,
    Topology,
    exit_code,
    verdict_of,
)
from blocks.evidence.uses import Ledger, new_ledger
from blocks.plan import Plan, parse_duration, parse_rate
from blocks.sets import SetCopier, SetReader, SetWriter
from flows.site import opened
from tasks import report
from tasks.clock import Listener, Silence, StageClock
from tasks.declare import Declaration, declare
from tasks.diagnose import diagnose
from tasks.key_fetch import Opening, key_fetch
from tasks.preflight import Survey, preflight
from tasks.publish import publish
from tasks.rehearsal import Options, Rehearsal, new_id
from tasks.restore import restore
from tasks.snapshot import snapshot
from tasks.teardown import teardown
from tasks.transfer import Crossed, transfer
from tasks.verify import Verification, verify


class Watcher:
    """Who is told of a rehearsal that runs in this process: the terminal, a drill."""

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener or Silence()
        self.record: Record | None = None
        self.path: Path | None = None
        self.service: Service | None = None


_watcher = Watcher()


@contextmanager
def watching(watcher: Watcher) -> Iterator[Watcher]:
    """Have `watcher` told of the rehearsals that are run inside."""
    global _watcher
    former, _watcher = _watcher, watcher
    try:
        yield watcher
    finally:
        _watcher = former


@dataclass(slots=True)
class _Progress:
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


def _run_name() -> str:
    given = flow_run.parameters
    return f"{Path(str(given['plan'])).stem} {given['select'] or 'as planned'}"


@flow(name="rehearse", flow_run_name=_run_name, persist_result=False)
def rehearse(
    plan: Annotated[
        str, Field(description="Name of a lab plan, path of a plan file, or a saved plan block")
    ] = "postgres",
    select: Annotated[
        str, Field(description="fresh, latest, oldest, random, or the id of a set")
    ] = "",
    wan: Annotated[str, Field(description="Limit of the transfer, e.g. 50Mbit/s")] = "",
    rto: Annotated[str, Field(description="Another RTO than the plan's, e.g. 15m")] = "",
    rpo: Annotated[str, Field(description="Another RPO than the plan's, e.g. 60s")] = "",
    results: Annotated[str, Field(description="Folder for the record")] = "rehearsals",
    keep: Annotated[bool, Field(description="Leave the restored service running")] = False,
    scale: Annotated[
        int | None, Field(description="Lab only: pgbench scale of a new lab, 15 MB each", ge=1)
    ] = None,
) -> State[Any]:
    """Lose the source, restore into the recovery domain, prove it, time it, tell what broke."""
    with opened(plan, scale=scale, keep=keep) as site:
        chosen = with_objectives(site, rto, rpo)
        options = Options(
            select=select or chosen.backup.select,
            rate=_rate(wan, chosen),
            results=Path(results),
            keep=keep,
        )
        clock = StageClock(_watcher.listener)
        with new_ledger() as ledger:
            rehearsal = Rehearsal(new_id(), chosen, options, clock)
            progress = _Progress()
            try:
                _stages(rehearsal, progress)
            except BaseException as error:
                progress.ended_by = error
                _note(rehearsal, error)
            finally:
                _tear_down(rehearsal, progress)
            record = _record(rehearsal, progress, ledger)
            _watcher.record = record
            _watcher.service = progress.service if keep else None
            _watcher.path = publish(rehearsal, record)
            report.publish(record)
    if progress.ended_by is not None and not isinstance(progress.ended_by, Exception):
        raise progress.ended_by
    return _state(record)


def _stages(rehearsal: Rehearsal, progress: _Progress) -> None:
    """The DAG: each stage takes what it needs from those before it."""
    plan, clock = rehearsal.plan, rehearsal.clock
    progress.survey = survey = preflight(rehearsal)
    set_id = survey.set_id or rehearsal.id
    if rehearsal.fresh:
        progress.writer = writer = SetWriter(
            plan.source, plan.name, rehearsal.id, plan.keys.recipients, plan.engine.label
        )
        progress.manifest = manifest = snapshot(rehearsal, survey, writer)
        progress.copier = copier = SetCopier(
            plan.source,
            plan.recovery,
            plan.recovery.host(plan.transfer.host),
            plan.name,
            rehearsal.id,
            rehearsal.options.rate,
        )
        progress.crossed = transfer(rehearsal, writer, copier, manifest)
    else:
        clock.skip("snapshot", f"set {set_id} is retained")
        clock.skip("transfer", f"set {set_id} is in the recovery store")
    reader = SetReader(plan.recovery, plan.name, set_id, rehearsal.id)
    progress.declaration = lost = declare(rehearsal, progress.writer, progress.crossed)
    progress.opening = opening = key_fetch(rehearsal, reader, lost)
    progress.runbook = plan.engine.runbook(opening.manifest, opening.log, plan.recovery)
    progress.service = service = restore(rehearsal, reader, opening)
    progress.verification = verify(rehearsal, reader, opening, service)


def _note(rehearsal: Rehearsal, error: BaseException) -> None:
    """Turn what ended the rehearsal into findings; an interruption is none."""
    failed = next(
        (s.name for s in rehearsal.clock.stages() if s.state is StageState.FAILED), "preflight"
    )
    rehearsal.findings.add(*diagnose(error, failed, rehearsal.source.name))


def _tear_down(rehearsal: Rehearsal, progress: _Progress) -> None:
    done: State[Any] = teardown(
        rehearsal, progress.writer, progress.copier, progress.service, return_state=True
    )
    if done.is_failed() or done.is_crashed():
        rehearsal.findings.add(
            finding("leftovers", rehearsal.id, f"teardown failed: {done.message}", "teardown")
        )


def _record(rehearsal: Rehearsal, progress: _Progress, ledger: Ledger) -> Record:
    plan, declared, seen = rehearsal.plan, progress.declaration, progress.verification
    manifest = progress.opening.manifest if progress.opening else progress.manifest
    usable = seen.usable_at if seen else None
    until = seen.recovered_until if seen else None
    judged = rehearsal.options.select in ("fresh", "latest")
    rta = (usable - declared.at).total_seconds() if usable and declared else None
    rpa = (declared.at - until).total_seconds() if until and declared else None
    rto_seconds = plan.objectives.rto.total_seconds()
    rpo_seconds = plan.objectives.rpo.total_seconds() if judged else None
    stages = rehearsal.clock.stages()
    _objectives(rehearsal, stages, rta, rpa if judged else None)
    found = rehearsal.findings.all()
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
        backup_set=_set_summary(manifest, rehearsal.options.select) if manifest else None,
        stages=stages,
        checks=checks,
        findings=found,
        uses=ledger.uses(),
        topology=Topology(
            plan.engine.predicted_nodes(plan.recovery),
            progress.service.nodes if progress.service else None,
        ),
        not_verified=_not_verified(rehearsal, progress),
        runbook=progress.runbook,
        versions=_versions(),
        trigger=deployment.name or "manual",
    )


def _objectives(
    rehearsal: Rehearsal, stages: tuple[Stage, ...], rta: float | None, rpa: float | None
) -> None:
    objectives = rehearsal.plan.objectives
    if rta is not None and rta > objectives.rto.total_seconds():
        timed = [s for s in stages if s.name in ("declare", "key fetch", "restore", "verify")]
        longest = max(timed, key=lambda s: s.seconds or 0)
        evidence = f"{rta:.1f} s, objective {objectives.rto.total_seconds():.1f} s; the longest"
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


def _set_summary(manifest: Manifest, selection: str) -> BackupSetSummary:
    return BackupSetSummary(
        manifest.set_id,
        manifest.taken_at,
        sum(item.sealed_bytes for item in manifest.objects),
        selection,
        sum(item.raw_bytes for item in manifest.objects),
    )


def _not_verified(rehearsal: Rehearsal, progress: _Progress) -> tuple[str, ...]:
    """What this rehearsal did not look at, each with the reason."""
    plan = rehearsal.plan
    missing = [
        f"stage {s.name}: {s.error or 'not reached'}"
        for s in rehearsal.clock.stages()
        if s.state is StageState.SKIPPED
    ]
    if plan.heartbeat is None:
        missing.append("transactions lost: the plan has no heartbeat ledger")
    if not plan.checks:
        missing.append("the application's own data: the plan has no checks")
    if plan.keys.record_key is None:
        missing.append("the record's authenticity: the plan names no record_key")
    if progress.verification is not None:
        missing += [
            f"check {check.name}: {check.actual or check.detail}"
            for check in progress.verification.checks
            if check.status.value == "unknown"
        ]
    missing += [
        "production's size and load on the recovery hosts: this database, this hardware",
        "clients, DNS and load balancers: who would lead users to the recovered service",
    ]
    return tuple(missing)


def _versions() -> dict[str, str]:
    names = ("farside", "prefect", "boto3", "paramiko", "cryptography", "pandas", "zstandard")
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in names:
        found[name] = importlib.metadata.version(name)
    return found


def _state(record: Record) -> State[Any]:
    text = f"{record.rehearsal_id}: {record.verdict.value}"
    if exit_code(record) == 0:
        return Completed(message=text)
    worst = "; ".join(f"{item.id}: {item.subject}" for item in record.findings[:5])
    return Failed(message=f"{text}{': ' + worst if worst else ''}")


def with_objectives(plan: Plan, rto: str, rpo: str) -> Plan:
    """The plan with other objectives, where given. Raises ValueError for a bad duration."""
    given = {"rto": rto, "rpo": rpo}
    changed = {name: parse_duration(text) for name, text in given.items() if text}
    if not changed:
        return plan
    objectives = plan.objectives.model_copy(update=changed)
    return plan.model_copy(update={"objectives": objectives})


def _rate(wan: str, plan: Plan) -> int | None:
    return int(str(parse_rate(wan))) if wan else plan.transfer.rate


if __name__ == "__main__":
    # Otherwise the command line would import a second copy of this module, and of the flow.
    sys.modules["flows.rehearse"] = sys.modules["__main__"]
    from flows.command_line import main

    main()
