"""Leaks: what of the source answers a recovery host, although it is lost."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from blocks.artifact.job import ProbeJob
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.findings import Finding, finding
from blocks.helper import probe_from
from blocks.hosts import Host
from tasks.diagnose import unreachable
from tasks.rehearsal import Rehearsal

PROBE_SECONDS = 2.0


def leaks(rehearsal: Rehearsal, stage: str) -> tuple[Finding, ...]:
    """Every endpoint of the source, asked from every recovery host at once: those that answer."""
    plan = rehearsal.plan
    endpoints = list(plan.gap(rehearsal.id).endpoints)
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe") as pool:
        found = pool.map(
            lambda host: tuple(_of_host(rehearsal, host, endpoints, stage)), plan.recovery.hosts
        )
        return tuple(item for group in found for item in group)


def _of_host(
    rehearsal: Rehearsal, host: Host, endpoints: list[tuple[str, int]], stage: str
) -> Iterator[Finding]:
    job = ProbeJob(endpoints=tuple(endpoints), timeout=PROBE_SECONDS)
    try:
        answers = probe_from(host, rehearsal.id, job)
    except FarsideError as error:
        # A host that cannot be asked cannot lead back either; the others go on.
        rehearsal.findings.add(unreachable(error, host, stage))
        return
    if len(answers) != len(endpoints):
        raise PermanentError(
            "the probe did not ask every endpoint", operation=stage, host=host.name
        )
    for (address, port), answer in zip(endpoints, answers, strict=True):
        if answer == "open":
            yield finding("fence-leaks", f"{address}:{port}", f"it answers {host.name}", stage)
