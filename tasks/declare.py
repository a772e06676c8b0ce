"""Declare: the source is lost from this moment on, and it is proven that nothing of it answers."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from blocks.artifact.job import ProbeJob
from blocks.errors import PermanentError
from blocks.evidence.findings import Finding, finding
from blocks.evidence.uses import ledger
from blocks.helper import probe_from
from blocks.hosts import Host
from blocks.sets import SetWriter
from tasks.diagnose import FoundProblems
from tasks.rehearsal import Rehearsal, stage
from tasks.transfer import Crossed

STAGE = "declare"
PROBE_SECONDS = 2.0
AFTER_THE_LOSS = ("key fetch", "restore", "verify")
"""Stages in which nothing of the source may be used."""


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
    plan = rehearsal.plan
    with rehearsal.clock.stage(STAGE) as clock:
        with clock.step("cut off"):
            rehearsal.cut = True
            at = plan.fence.cut()
            if writer is not None:
                writer.abandon()
            plan.source.close()
        with clock.step("prove"):
            endpoints = plan.source.endpoints(plan.engine.source_endpoints(plan.source))
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
    answers = probe_from(host, rehearsal.id, job)
    if len(answers) != len(endpoints):
        raise PermanentError(
            "the probe did not ask every endpoint", operation=STAGE, host=host.name
        )
    return [
        finding("fence-leaks", f"{address}:{port}", f"it answers {host.name}", STAGE)
        for (address, port), answer in zip(endpoints, answers, strict=True)
        if answer == "open"
    ]


def uses_of_source(rehearsal: Rehearsal) -> list[Finding]:
    """What farside itself used of the source once it was lost."""
    return [
        finding(
            "source-used",
            # An object's name holds the id of its set: its store is what is used every time.
            "/".join(use.name.split("/")[:3]) if use.kind == "object" else use.name,
            f"the {use.kind} {use.name} of {use.domain} was used",
            use.stage,
        )
        for use in ledger().uses()
        if use.domain == rehearsal.source.name and use.stage in AFTER_THE_LOSS
    ]


def calls_to_source(rehearsal: Rehearsal) -> list[Finding]:
    """Who called the source after the declaration, as far as the fence can see."""
    found = []
    for attempt in rehearsal.plan.fence.attempts():
        process = attempt.process or "a process that could not be named"
        # farside's own proof knocks at every endpoint; nothing else may.
        if rehearsal.id in process and process.rstrip().endswith(" probe"):
            continue
        found.append(
            finding(
                "source-used",
                f"{attempt.address}:{attempt.port}",
                f"{process} (pid {attempt.pid}) called it at {attempt.at:%H:%M:%S}",
                "verify",
            )
        )
    return found
