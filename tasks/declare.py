"""Declare: the source is lost from this moment on, and it is proven that nothing of it answers."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from blocks.engines.abilities import TakesLastLook
from blocks.errors import FarsideError
from blocks.evidence.stages import StageName
from blocks.repositories.farside.binding import KnownState
from blocks.repositories.farside.writer import SetWriter
from tasks.context import Rehearsal, stage
from tasks.inspect.diagnose import FoundProblems
from tasks.inspect.reachability import leaks
from tasks.inspect.store_writes import listing
from tasks.log_end import note_end_of_log

STAGE = StageName.DECLARE


@dataclass(frozen=True, slots=True)
class Declaration:
    """The moment of the loss."""

    at: datetime


@stage(STAGE, limit=600)
def declare(
    rehearsal: Rehearsal,
    writer: SetWriter | None,
    crossed: KnownState | None,  # noqa: ARG001 (it orders the DAG: nothing is lost before it crossed)
) -> Declaration:
    """Cut the source off. Raises FoundProblems if anything of it still answers."""
    plan, gap = rehearsal.plan, rehearsal.plan.gap(rehearsal.id)
    with rehearsal.clock.stage(STAGE) as clock:
        with clock.step("list the source's store"):
            rehearsal.source_listing = listing(plan.source.store)
        if rehearsal.fresh:
            with clock.step("last look at the source"), suppress(FarsideError):
                if isinstance(plan.engine, TakesLastLook):
                    rehearsal.last_look = plan.engine.last_look(plan.source)
        with clock.step("end of the source's log"):
            note_end_of_log(rehearsal)
        if writer is not None:
            with clock.step("end of the log"):
                _release(rehearsal, writer)
        with clock.step("calls before the loss"):
            plan.fence.remember(gap)
        with clock.step("cut off"):
            rehearsal.lease.note_fence(plan.recovery.name, plan.fence.marks)
            rehearsal.cut = True
            rehearsal.lease.leave(plan.source.name)
            if writer is not None:
                writer.lose()
            at = rehearsal.clock.now()
            plan.fence.cut(gap)
            rehearsal.cut_at = rehearsal.clock.now()
            if writer is not None:
                writer.abandon()
            plan.source.close()
        with clock.step("prove"):
            # What answers ends it here. The rest, and what the fence saw, is asked at the end,
            # off the RTA clock.
            found = leaks(rehearsal, STAGE, watched=False).leaking
        if found:
            rehearsal.findings.add(*found)
            raise FoundProblems(STAGE, found)
        return Declaration(at)


def _release(rehearsal: Rehearsal, writer: SetWriter) -> None:
    """Free the source of what it keeps for the log's sake: behind the fence it could not be told.

    Raises what keeps it from that, or ended the following of the log before.
    """
    if not writer.release():
        rehearsal.plan.engine.clean_source(rehearsal.source, rehearsal.id)
