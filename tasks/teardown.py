"""Teardown: remove all that the rehearsal made, and prove it. It always runs."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from blocks.domain import FailureDomain
from blocks.engines.base import Service
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, finding
from blocks.helper import sweep_host
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
            found = []
            if not rehearsal.options.keep:
                if service is not None:
                    plan.engine.destroy(service, plan.recovery)
                found += clear_hosts(plan.recovery, rehearsal.id)
            for part in (writer, copier):
                if part is not None:
                    part.abandon()
        with clock.step("fence"):
            plan.fence.lift()
        if rehearsal.fresh:
            with clock.step("source domain"):
                found += clear_source(plan, rehearsal.id)
        rehearsal.findings.add(*found)


def clear_hosts(domain: FailureDomain, rehearsal_id: str) -> list[Finding]:
    """Remove what a rehearsal made on every host of a domain; what remains, as findings."""

    def clear(host: Host) -> Iterable[Finding]:
        name = f"{domain.name}/{host.name}"
        try:
            remaining = sweep_host(host, rehearsal_id, remove=True).remaining
        except FarsideError as error:
            return [finding("leftovers", name, f"could not be swept: {error.message}", STAGE)]
        left = [what for item in remaining for what in (*item.processes, *item.paths)]
        return [finding("leftovers", name, f"{what} remains", STAGE) for what in left]

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="sweep") as pool:
        return [item for group in pool.map(clear, domain.hosts) for item in group]


def clear_source(plan: Plan, rehearsal_id: str) -> list[Finding]:
    """The same for the source, once the fence is lifted: hosts, server, unfinished objects."""
    found = clear_hosts(plan.source, rehearsal_id)
    try:
        plan.engine.withdraw(plan.source, rehearsal_id)
    except FarsideError as error:
        found.append(finding("leftovers", f"{plan.source.name} server", error.message, STAGE))
    for domain in (plan.source, plan.recovery):
        try:
            discard_unfinished(domain.store, plan.name, rehearsal_id)
        except FarsideError as error:
            found.append(finding("leftovers", f"{domain.name} store", error.message, STAGE))
    return found
