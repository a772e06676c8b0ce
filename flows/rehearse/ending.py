"""How a rehearsal ends: findings of what ended it, teardown, record, history, final state."""

import logging
from contextlib import suppress
from typing import Any

import pandas as pd
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Completed, Failed

from blocks.engines.checks import listed
from blocks.errors import FarsideError
from blocks.evidence.history import History, history
from blocks.evidence.record import Record, StageState, Verdict
from blocks.evidence.stages import StageName
from blocks.evidence.uses import Ledger
from blocks.evidence.verdict import exit_code
from flows.rehearse.watching import Watcher
from flows.signals import deferred
from tasks.context import Rehearsal
from tasks.frames import lifecycle
from tasks.inspect.diagnose import diagnose
from tasks.journal import Journal
from tasks.reporting.record import Course, record_of
from tasks.reporting.units import printable
from tasks.teardown import Teardown, teardown

log = logging.getLogger("flows")


def end(
    rehearsal: Rehearsal, course: Course, journal: Journal, ledger: Ledger, watcher: Watcher
) -> Record:
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
                watcher.record = record
                watcher.path = journal.finish(record)
                _keep_history(rehearsal, record, watcher)
            if came and course.ended_by is None:
                watcher.warning = f"{came[0].name} came during teardown, which was completed first"
        except (KeyboardInterrupt, TerminationSignal) as error:
            # It came in the instant before signals waited, or after it.
            course.ended_by = course.ended_by or error
    return record


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


def _keep_history(rehearsal: Rehearsal, record: Record, watcher: Watcher) -> None:
    plan = rehearsal.plan
    try:
        earlier = history(rehearsal.options.results, plan.name, plan.keys.record_signer)
        watcher.lifecycle = lifecycle_of(record, earlier)
        if earlier.left_out:
            watcher.warning = printable(
                "earlier records that are not proven by record_signer do not count: "
                + listed(earlier.left_out)
            )
            log.warning(watcher.warning)
    except FarsideError as error:
        # Both, for a terminal shows no log: that goes to Prefect's server.
        watcher.warning = printable(f"no history of the findings: {error}")
        log.warning(watcher.warning)


def lifecycle_of(record: Record, earlier: History) -> pd.DataFrame | None:
    """The lifecycle of findings up to `record`; None if it is the first of its plan."""
    until_now = [item for item in earlier.records if item.started_at <= record.started_at]
    return lifecycle(until_now) if len(until_now) > 1 else None


def state_of(record: Record) -> State[Any]:
    """What Prefect is told: completed if the exit code is 0, else failed, with the worst of it."""
    text = f"{record.rehearsal_id}: {record.verdict.value}"
    if exit_code(record) == 0:
        return Completed(message=text)
    counted = [item for item in record.findings if item.accepted is None]
    worst = "; ".join(f"{item.id}: {item.subject}" for item in counted[:5])
    if record.verdict is Verdict.VERIFIED and not worst:
        text += ", but an objective could not be judged"
    return Failed(message=f"{text}{': ' + worst if worst else ''}")
