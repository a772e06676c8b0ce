"""Declare: the source is lost from this moment on, and it is proven that nothing of it answers."""

from dataclasses import dataclass
from datetime import datetime

from blocks.sets import SetWriter
from tasks.diagnose import FoundProblems
from tasks.leaks import leaks
from tasks.rehearsal import Rehearsal, stage
from tasks.source_listing import listing
from tasks.transfer import Crossed

STAGE = "declare"


@dataclass(frozen=True, slots=True)
class Declaration:
    """The moment of the loss."""

    at: datetime


@stage(STAGE, limit=600)
def declare(
    rehearsal: Rehearsal,
    writer: SetWriter | None,
    crossed: Crossed | None,  # noqa: ARG001 (it orders the DAG: nothing is lost before it crossed)
) -> Declaration:
    """Cut the source off. Raises FoundProblems if anything of it still answers."""
    plan, gap = rehearsal.plan, rehearsal.plan.gap(rehearsal.id)
    with rehearsal.clock.stage(STAGE) as clock:
        with clock.step("list the source's store"):
            rehearsal.source_listing = listing(plan.source.store)
        with clock.step("cut off"):
            rehearsal.cut = True
            if writer is not None:
                writer.lose()
            at = plan.fence.cut(gap)
            if writer is not None:
                writer.abandon()
            plan.source.close()
        with clock.step("prove"):
            found, _ = leaks(rehearsal, STAGE)  # a host that is silent is asked again at the end
        if found:
            rehearsal.findings.add(*found)
            raise FoundProblems(STAGE, found)
        return Declaration(at)
