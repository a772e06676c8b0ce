"""Teardown: remove all that the rehearsal made, and prove it. It always runs."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from blocks.domain import FailureDomain
from blocks.engines.base import Service
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, Severity, finding
from blocks.helper import HelperFailed, remove_unused_folder, sweep_host
from blocks.hosts import Host
from blocks.plan import Plan
from blocks.sets import SetCopier, SetWriter, discard_unfinished
from tasks.rehearsal import Rehearsal, stage

STAGE = "teardown"


@stage(STAGE, retries=2, limit=1800)
def teardown(
    rehearsal: Rehearsal,
    writer: SetWriter | None,
    copier: SetCopier | None,
    service: Service | None,
) -> None:
    """Remove plaintext and keys first, then the rest. What remains is a finding."""
    plan = rehearsal.plan
    with rehearsal.clock.stage(STAGE) as clock:
        with clock.step("recovery domain"):
            if service is None or not rehearsal.options.keep:
                rehearsal.findings.add(*_clear_recovery(rehearsal, service))
            for part in (writer, copier):
                if part is not None:
                    part.abandon()
        if rehearsal.cut:  # else the fence may be that of another rehearsal, which runs
            with clock.step("fence"):
                plan.fence.lift()
        if writer is not None:  # else nothing was made there
            with clock.step("source domain"):
                rehearsal.findings.add(*clear_source(plan, rehearsal.id))


def _clear_recovery(rehearsal: Rehearsal, service: Service | None) -> list[Finding]:
    plan = rehearsal.plan
    if service is not None:
        # A server that cannot be asked to stop is killed, or reported, by the sweep of its host.
        with suppress(FarsideError):
            plan.engine.destroy(service, plan.recovery)
    # Nothing can be left on a host that was never reached: it has its finding already.
    reached = {f"{plan.recovery.name}/{name}" for name in rehearsal.claimed}
    refused = {item.subject for item in rehearsal.findings.all()} - reached
    return [
        item for item in clear_hosts(plan.recovery, rehearsal.id) if item.subject not in refused
    ]


def clear_hosts(domain: FailureDomain, rehearsal_id: str) -> list[Finding]:
    """Remove what a rehearsal made on every host of a domain; what remains, as findings."""

    def clear(host: Host) -> Iterable[Finding]:
        name = f"{domain.name}/{host.name}"
        try:
            remaining = sweep_host(host, rehearsal_id, remove=True).remaining
        except FarsideError as error:
            if isinstance(error, HelperFailed) and remove_unused_folder(host, rehearsal_id):
                return []
            return [left_over(name, f"could not be swept: {error.message}")]
        left = [what for item in remaining for what in (*item.processes, *item.paths)]
        return [left_over(name, f"{what} remains") for what in left]

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="sweep") as pool:
        return [item for group in pool.map(clear, domain.hosts) for item in group]


def clear_source(plan: Plan, rehearsal_id: str) -> list[Finding]:
    """The same for the source, once the fence is lifted: hosts, server, unfinished objects."""
    found = clear_hosts(plan.source, rehearsal_id)
    try:
        plan.engine.withdraw(plan.source, rehearsal_id)
    except FarsideError as error:
        found.append(left_over(f"{plan.source.name} server", error.message))
    for domain in (plan.source, plan.recovery):
        try:
            discard_unfinished(domain.store, plan.name, rehearsal_id)
        except FarsideError as error:
            found.append(left_over(f"{domain.name} store", error.message))
    return found


def left_over(subject: str, evidence: str) -> Finding:
    """Remains of this very rehearsal: worse than what it finds of others, for they are its own."""
    return finding("leftovers", subject, evidence, STAGE, severity=Severity.HIGH)
