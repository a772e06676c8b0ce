"""Rehearse a disaster: `python -m flows.rehearse [PLAN]`, a Prefect deployment, or a flow call."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.engines.checks import listed
from blocks.engines.restored import Restored
from blocks.errors import FarsideError
from blocks.evidence.history import History, history
from blocks.evidence.record import Record, StageState, Verdict
from blocks.evidence.stages import StageName
from blocks.evidence.uses import Ledger, new_ledger
from blocks.evidence.verdict import exit_code
from blocks.plan.model import Plan
from blocks.plan.values import parse_duration, parse_rate
from blocks.repositories.farside.copier import SetCopier
from blocks.repositories.farside.reader import SetReader
from blocks.repositories.farside.writer import SetWriter
from flows.output import tolerate_closed
from flows.signals import deferred, obey_hangup, told
from flows.site import opened
from tasks.context import Options, Rehearsal, new_id
from tasks.declare import declare
from tasks.frames import lifecycle
from tasks.inspect.diagnose import diagnose
from tasks.journal import Journal
from tasks.key_fetch import key_fetch
from tasks.preflight import preflight
from tasks.reporting import markdown
from tasks.reporting.clock import Listener, Silence, StageClock
from tasks.reporting.record import Course, record_of
from tasks.reporting.units import printable
from tasks.restore import restore
from tasks.snapshot import snapshot
from tasks.teardown import Teardown, teardown
from tasks.transfer import transfer
from tasks.verify import verify

log = logging.getLogger("flows")


class Watcher:
    """Who is told of a rehearsal that runs in this process: the terminal, a drill."""

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener or Silence()
        self.record: Record | None = None
        self.path: Path | None = None
        self.lifecycle: pd.DataFrame | None = None
        self.warning = ""
        self.service: Restored | None = None
        self.kept_until: datetime | None = None


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
        clock = StageClock(_watcher.listener)
        with new_ledger() as ledger:
            rehearsal = Rehearsal(new_id(), chosen, options, clock)
            course = Course()
            journal = Journal(rehearsal, lambda: record_of(rehearsal, course, ledger))
            with told(journal.interrupted):
                journal.start()
                try:
                    _stages(rehearsal, course)
                except BaseException as error:
                    course.ended_by = error
                record = _end(rehearsal, course, journal, ledger)
            _watcher.service = course.service if keep else None
            if options.keep is not None and course.service is not None:
                _watcher.kept_until = datetime.now(UTC) + options.keep
            markdown.publish(record, _watcher.lifecycle)
    if course.ended_by is not None and not isinstance(course.ended_by, Exception):
        raise course.ended_by
    return _state(record)


def _end(rehearsal: Rehearsal, course: Course, journal: Journal, ledger: Ledger) -> Record:
    """Tear down and write the record, whatever comes meanwhile: signals wait, or begin it anew."""
    record: Record | None = None
    while record is None:
        try:
            with deferred() as came:
                if course.ended_by is not None:
                    _note(rehearsal, course.ended_by)
                journal.stop()
                _tear_down(rehearsal, course)
                rehearsal.lease.stop()
                record = record_of(rehearsal, course, ledger)
                _watcher.record = record
                _watcher.path = journal.finish(record)
                _keep_history(rehearsal, record)
            if came and course.ended_by is None:
                _watcher.warning = f"{came[0].name} came during teardown, which was completed first"
        except (KeyboardInterrupt, TerminationSignal) as error:
            # It came in the instant before signals waited, or after it.
            course.ended_by = course.ended_by or error
    return record


def _keep_history(rehearsal: Rehearsal, record: Record) -> None:
    plan = rehearsal.plan
    try:
        earlier = history(rehearsal.options.results, plan.name, plan.keys.record_signer)
        _watcher.lifecycle = lifecycle_of(record, earlier)
        if earlier.left_out:
            _watcher.warning = printable(
                "earlier records that are not proven by record_signer do not count: "
                + listed(earlier.left_out)
            )
            log.warning(_watcher.warning)
    except FarsideError as error:
        # Both, for a terminal shows no log: that goes to Prefect's server.
        _watcher.warning = printable(f"no history of the findings: {error}")
        log.warning(_watcher.warning)


def _stages(rehearsal: Rehearsal, course: Course) -> None:
    """The DAG: each stage takes what it needs from those before it."""
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
    reader = SetReader(plan.recovery, plan.binding, set_id, rehearsal.id)
    course.declaration = lost = declare(rehearsal, course.writer, course.crossed)
    course.opening = opening = key_fetch(
        rehearsal, reader, lost, course.crossed if rehearsal.fresh else survey.known
    )
    course.runbook = plan.engine.runbook(opening.manifest, opening.log, plan.recovery)
    course.service = service = restore(rehearsal, survey, reader, opening)
    course.verification = verify(rehearsal, service)


def _note(rehearsal: Rehearsal, error: BaseException) -> None:
    """Turn what ended the rehearsal into findings; an interruption is none."""
    failed = next(
        (s.name for s in rehearsal.clock.stages() if s.state is StageState.FAILED),
        StageName.PREFLIGHT,
    )
    rehearsal.findings.add(*diagnose(error, failed, rehearsal.source.name))


def _tear_down(rehearsal: Rehearsal, course: Course) -> None:
    """Tear down, in threads of its own, and show that in Prefect, if its server can be reached."""
    work = Teardown(rehearsal, course.writer, course.copier, course.service)
    work.start()
    with suppress(Exception):  # not the teardown failed, Prefect did
        teardown(rehearsal, work, return_state=True)
    work.wait()


def lifecycle_of(record: Record, earlier: History) -> pd.DataFrame | None:
    """The lifecycle of findings up to `record`; None if it is the first of its plan."""
    until_now = [item for item in earlier.records if item.started_at <= record.started_at]
    return lifecycle(until_now) if len(until_now) > 1 else None


def _state(record: Record) -> State[Any]:
    text = f"{record.rehearsal_id}: {record.verdict.value}"
    if exit_code(record) == 0:
        return Completed(message=text)
    counted = [item for item in record.findings if item.accepted is None]
    worst = "; ".join(f"{item.id}: {item.subject}" for item in counted[:5])
    if record.verdict is Verdict.VERIFIED and not worst:
        text += ", but an objective could not be judged"
    return Failed(message=f"{text}{': ' + worst if worst else ''}")


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
