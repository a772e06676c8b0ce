"""Declare: the source is lost from this moment on, and it is proven that nothing of it answers."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from blocks.artifact.job import ProbeJob
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.findings import Finding, finding
from blocks.helper import probe_from
from blocks.hosts import Host
from blocks.sets import SetWriter
from tasks.diagnose import FoundProblems, unreachable
from tasks.rehearsal import Rehearsal, stage
from tasks.source_listing import listing
from tasks.transfer import Crossed

STAGE = "declare"
PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Declaration:
    """The moment of the loss."""

    at: datetime
    probes: int
    """How many endpoints were asked, from how many hosts taken together."""


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
            endpoints = list(gap.endpoints)
            with ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe") as pool:
                leaks = list(
                    pool.map(lambda host: _leaks(rehearsal, host, endpoints), plan.recovery.hosts)
                )
        found = tuple(item for group in leaks for item in group)
        if found:
            rehearsal.findings.add(*found)
            raise FoundProblems(STAGE, found)
        return Declaration(at, len(endpoints) * len(plan.recovery.hosts))


def _leaks(rehearsal: Rehearsal, host: Host, endpoints: list[tuple[str, int]]) -> Iterable[Finding]:
    job = ProbeJob(endpoints=tuple(endpoints), timeout=PROBE_SECONDS)
    try:
        answers = probe_from(host, rehearsal.id, job)
    except FarsideError as error:
        # A host that cannot be asked cannot lead back either; the others go on.
        rehearsal.findings.add(unreachable(error, host, STAGE))
        return []
    if len(answers) != len(endpoints):
        raise PermanentError(
            "the probe did not ask every endpoint", operation=STAGE, host=host.name
        )
    return [
        finding("fence-leaks", f"{address}:{port}", f"it answers {host.name}", STAGE)
        for (address, port), answer in zip(endpoints, answers, strict=True)
        if answer == "open"
    ]
