"""Rehearse a disaster: `python -m flows.rehearse [PLAN]`, a Prefect deployment, or a flow call."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from blocks.evidence.stages import StageName
from blocks.evidence.uses import new_ledger
from blocks.plan.model import Plan
from blocks.plan.values import parse_duration, parse_rate
from blocks.repositories.farside.copier import SetCopier
from blocks.repositories.farside.reader import SetReader
from blocks.repositories.farside.writer import SetWriter
from flows.output import tolerate_closed
from flows.rehearse.ending import end, lifecycle_of, state_of
from flows.rehearse.watching import Watcher, present, watching
from flows.signals import obey_hangup, told
from flows.site import opened
from tasks.context import Options, Rehearsal, new_id
from tasks.declare import Declaration, declare
from tasks.journal import Journal
from tasks.key_fetch import key_fetch
from tasks.preflight import Survey, preflight
from tasks.reporting import markdown
from tasks.reporting.clock import StageClock
from tasks.reporting.record import Course, record_of
from tasks.restore import restore
from tasks.snapshot import snapshot
from tasks.transfer import transfer
from tasks.verify import verify

__all__ = ["Watcher", "lifecycle_of", "rehearse", "watching", "with_objectives"]


def _stages(rehearsal: Rehearsal, course: Course) -> None:
    """The DAG: each stage takes what it needs from those before it."""
    survey, reader = _steady_state(rehearsal, course)
    lost = declare(rehearsal, course.writer, course.crossed)
    _recovery(rehearsal, course, survey, reader, lost)


def _steady_state(rehearsal: Rehearsal, course: Course) -> tuple[Survey, SetReader]:
    """What a site does every day: it ends with a set in the recovery store."""
    plan, clock = rehearsal.plan, rehearsal.clock
    course.survey = survey = preflight(rehearsal)
    set_id = survey.manifest.set_id if survey.manifest else rehearsal.id
    if rehearsal.fresh:
        course.writer = writer = SetWriter(
            plan.source,
            plan.name,
            rehearsal.id,
            plan.keys.recipients,
            plan.engine.label,
            plan.backup.load,
        )
        course.manifest = manifest = snapshot(rehearsal, survey, writer)
        course.copier = copier = SetCopier(
            plan.source,
            plan.recovery,
            plan.recovery.host(plan.transfer.host),
            plan.name,
            rehearsal.id,
            rehearsal.options.rate,
        )
        course.crossed = transfer(rehearsal, writer, copier, manifest)
    else:
        clock.skip(StageName.SNAPSHOT, f"set {set_id} is retained")
        clock.skip(StageName.TRANSFER, f"set {set_id} is in the recovery store")
    return survey, SetReader(plan.recovery, plan.binding, set_id, rehearsal.id)


def _recovery(
    rehearsal: Rehearsal, course: Course, survey: Survey, reader: SetReader, lost: Declaration
) -> None:
    """From a declaration, of this rehearsal or of several, to a service that is proven."""
    plan = rehearsal.plan
    course.declaration = lost
    known = course.crossed if rehearsal.fresh else survey.known
    course.opening = opening = key_fetch(rehearsal, reader, lost, known)
    course.runbook = plan.engine.runbook(opening.manifest, opening.log, plan.recovery)
    course.service = service = restore(rehearsal, survey, reader, opening)
    course.verification = verify(rehearsal, service)


def _run_name() -> str:
    given = flow_run.parameters
    return f"{Path(str(given['plan'])).stem} {given['select'] or 'as planned'}"


@flow(name="rehearse", flow_run_name=_run_name, persist_result=False)
def rehearse(  # noqa: PLR0913 (each is a parameter of the flow, and of its deployments)
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
    keep: Annotated[
        str, Field(description="Leave the restored service running, behind its fence, e.g. 24h")
    ] = "",
    scale: Annotated[
        int | None, Field(description="Lab only: pgbench scale of a new lab, 15 MB each", ge=1)
    ] = None,
) -> State[Any]:
    """Lose the source, restore into the recovery domain, prove it, time it, tell what broke."""
    tolerate_closed()
    obey_hangup()
    watcher = present()
    with opened(plan, scale=scale, keep=bool(keep)) as site:
        chosen = with_objectives(site, rto, rpo)
        options = Options(
            select=select or chosen.backup.select,
            rate=_rate(wan, chosen),
            results=Path(results),
            keep=_duration(keep),
            rpo_given=bool(rpo),
            overrides={
                name: text
                for name, text in (("select", select), ("wan", wan), ("rto", rto), ("rpo", rpo))
                if text
            },
            plan_digest=site.digest,
        )
        clock = StageClock(watcher.listener)
        with new_ledger() as ledger:
            rehearsal = Rehearsal(new_id(), chosen, options, clock)
            course = Course()
            journal = Journal(rehearsal, lambda: record_of(rehearsal, course, ledger))
            with told(journal.interrupted):
                journal.start()
                try:
                    _stages(rehearsal, course)
                except BaseException as error:  # noqa: BLE001 (it is recorded; Ctrl-C is raised again below)
                    course.ended_by = error
                record = end(rehearsal, course, journal, ledger, watcher)
            watcher.service = course.service if keep else None
            if options.keep is not None and course.service is not None:
                watcher.kept_until = datetime.now(UTC) + options.keep
            markdown.publish(record, watcher.lifecycle)
    if course.ended_by is not None and not isinstance(course.ended_by, Exception):
        raise course.ended_by
    return state_of(record)


def with_objectives(plan: Plan, rto: str, rpo: str) -> Plan:
    """The plan with other objectives, where given. Raises ValueError for a bad duration."""
    given = {"rto": rto, "rpo": rpo}
    changed = {name: parse_duration(text) for name, text in given.items() if text}
    if not changed:
        return plan
    objectives = plan.objectives.model_copy(update=changed)
    return plan.model_copy(update={"objectives": objectives})


def _duration(text: str) -> timedelta | None:
    given = parse_duration(text) if text else None
    return given if isinstance(given, timedelta) else None


def _rate(wan: str, plan: Plan) -> int | None:
    return int(str(parse_rate(wan))) if wan else plan.transfer.rate
