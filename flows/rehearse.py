"""Rehearse a disaster: `python -m flows.rehearse [PLAN]`, a Prefect deployment, or a flow call."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.engines.base import Service
from blocks.errors import FarsideError
from blocks.evidence.record import Record, StageState, exit_code, load_all
from blocks.evidence.uses import new_ledger
from blocks.plan import Plan, parse_duration, parse_rate
from blocks.sets import SetCopier, SetReader, SetWriter
from flows.site import opened
from tasks import report
from tasks.clock import Listener, Silence, StageClock
from tasks.declare import declare
from tasks.diagnose import diagnose
from tasks.frames import lifecycle
from tasks.key_fetch import key_fetch
from tasks.preflight import preflight
from tasks.publish import publish
from tasks.recording import Course, record_of
from tasks.rehearsal import Options, Rehearsal, new_id
from tasks.restore import restore
from tasks.snapshot import snapshot
from tasks.teardown import left_over, teardown
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
            course = Course()
            try:
                _stages(rehearsal, course)
            except BaseException as error:
                course.ended_by = error
                _note(rehearsal, error)
            finally:
                _tear_down(rehearsal, course)
            record = record_of(rehearsal, course, ledger)
            _watcher.record = record
            _watcher.service = course.service if keep else None
            _watcher.path = publish(rehearsal, record)
            try:
                _watcher.lifecycle = history(record, options.results)
            except FarsideError as error:
                # Both, for a terminal shows no log: that goes to Prefect's server.
                _watcher.warning = f"no history of the findings: {error}"
                log.warning(_watcher.warning)
            report.publish(record, _watcher.lifecycle)
    if course.ended_by is not None and not isinstance(course.ended_by, Exception):
        raise course.ended_by
    return _state(record)


def _stages(rehearsal: Rehearsal, course: Course) -> None:
    """The DAG: each stage takes what it needs from those before it."""
    plan, clock = rehearsal.plan, rehearsal.clock
    course.survey = survey = preflight(rehearsal)
    set_id = survey.manifest.set_id if survey.manifest else rehearsal.id
    if rehearsal.fresh:
        course.writer = writer = SetWriter(
            plan.source, plan.name, rehearsal.id, plan.keys.recipients, plan.engine.label
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
        clock.skip("snapshot", f"set {set_id} is retained")
        clock.skip("transfer", f"set {set_id} is in the recovery store")
    reader = SetReader(plan.recovery, plan.name, set_id, rehearsal.id)
    course.declaration = lost = declare(rehearsal, course.writer, course.crossed)
    course.opening = opening = key_fetch(rehearsal, reader, lost)
    course.runbook = plan.engine.runbook(opening.manifest, opening.log, plan.recovery)
    course.service = service = restore(rehearsal, survey, reader, opening)
    course.verification = verify(rehearsal, reader, opening, service)


def _note(rehearsal: Rehearsal, error: BaseException) -> None:
    """Turn what ended the rehearsal into findings; an interruption is none."""
    failed = next(
        (s.name for s in rehearsal.clock.stages() if s.state is StageState.FAILED), "preflight"
    )
    rehearsal.findings.add(*diagnose(error, failed, rehearsal.source.name))


def _tear_down(rehearsal: Rehearsal, course: Course) -> None:
    given = (rehearsal, course.writer, course.copier, course.service)
    try:
        done: State[Any] = teardown(*given, return_state=True)
        problem = done.message if done.is_failed() or done.is_crashed() else None
    except Exception:
        # Not the task failed, Prefect did: with its server lost, what was made is still removed.
        problem = _tear_down_alone(*given)
    if problem is not None:
        rehearsal.findings.add(
            left_over(rehearsal.plan.name, f"teardown of {rehearsal.id} failed: {problem}")
        )


def _tear_down_alone(*given: Any) -> str | None:
    try:
        teardown.fn(*given)
    except Exception as error:
        return str(error)
    return None


def history(record: Record, results: Path) -> pd.DataFrame | None:
    """The lifecycle of findings up to `record`; None if it is the first of its plan in `results`.

    Raises as `load_all`.
    """
    until_now = [
        item
        for item in load_all(results)
        if item.plan.name == record.plan.name and item.started_at <= record.started_at
    ]
    return lifecycle(until_now) if len(until_now) > 1 else None


def _state(record: Record) -> State[Any]:
    text = f"{record.rehearsal_id}: {record.verdict.value}"
    if exit_code(record) == 0:
        return Completed(message=text)
    counted = [item for item in record.findings if item.accepted is None]
    worst = "; ".join(f"{item.id}: {item.subject}" for item in counted[:5])
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
