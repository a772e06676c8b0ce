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


def leaks(rehearsal: Rehearsal, stage: str) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Every endpoint of the source, asked from every recovery host at once: those that answer.

    And the hosts, as DOMAIN/HOST, that could be entered before and cannot be asked now: of those
    nobody knows. One that never could be entered is of no use to anybody.
    """
    plan = rehearsal.plan
    endpoints = list(plan.gap(rehearsal.id).endpoints)
    found, silent = list[Finding](), list[str]()

    def ask(host: Host) -> tuple[Host, list[Finding] | FarsideError]:
        try:
            return host, list(_of_host(rehearsal, host, endpoints, stage))
        except FarsideError as error:
            return host, error

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="probe") as pool:
        answers = list(pool.map(ask, plan.recovery.hosts))
    for host, answer in answers:
        name = f"{host.domain}/{host.name}"
        if isinstance(answer, FarsideError):
            rehearsal.findings.add(unreachable(answer, host, stage))
            silent += [name] if name in rehearsal.claimed else []
        else:
            found += answer
    return tuple(found), tuple(silent)


def _of_host(
    rehearsal: Rehearsal, host: Host, endpoints: list[tuple[str, int]], stage: str
) -> Iterator[Finding]:
    job = ProbeJob(endpoints=tuple(endpoints), timeout=PROBE_SECONDS)
    answers = probe_from(host, rehearsal.id, job)
    if len(answers) != len(endpoints):
        raise PermanentError(
            "the probe did not ask every endpoint", operation=stage, host=host.name
        )
    for (address, port), answer in zip(endpoints, answers, strict=True):
        if answer == "open":
            yield finding("fence-leaks", f"{address}:{port}", f"it answers {host.name}", stage)
