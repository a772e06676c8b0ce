"""Teardown: remove all that the rehearsal made, and prove it. It always runs."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from blocks.domain import FailureDomain
from blocks.engines.base import Service
from blocks.errors import FarsideError, TransientError
from blocks.evidence.findings import Finding, Severity, finding
from blocks.helper import HelperFailed, remove_unused_folder, sweep_host
from blocks.hosts import Host
from blocks.sets import SetCopier, SetWriter, discard_unfinished
from tasks.clock import StageInProgress
from tasks.rehearsal import Rehearsal, stage
from tasks.source_listing import changed

STAGE = "teardown"
_RETRIES = 1
_KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"


@stage(STAGE, retries=_RETRIES, limit=1800)
def teardown(
    rehearsal: Rehearsal,
    writer: SetWriter | None,
    copier: SetCopier | None,
    service: Service | None,
) -> None:
    """Remove plaintext and keys first, then the rest. What remains is a finding."""
    with rehearsal.clock.stage(STAGE) as clock:
        found: list[Finding] = []  # of this attempt: the next one may find it gone
        with clock.step("recovery domain"):
            if service is None or not rehearsal.options.keep:
                found += _clear_recovery(rehearsal, service)
            for part in (writer, copier):
                if part is not None:
                    part.abandon()
        stays = _lift(rehearsal, clock) if rehearsal.cut else None
        # A filter that stays on a host of the recovery domain is not in farside's way.
        reachable = stays is None or stays.domain == rehearsal.recovery.name
        if stays is not None:
            found.append(_fence_stays(rehearsal, stays, reachable=reachable))
        if reachable and rehearsal.cut:
            with clock.step("the source's store"):
                found += changed(rehearsal)
        if reachable and rehearsal.fresh:  # else nothing was made there
            with clock.step("source domain"):
                found += _clear_source(rehearsal, writer)
        rehearsal.findings.add(*found)


def _lift(rehearsal: Rehearsal, clock: StageInProgress) -> FarsideError | None:
    """Lift the fence; what was in the way, where another attempt cannot help or there is none."""
    plan = rehearsal.plan
    try:
        with clock.step("fence"):
            plan.fence.lift(plan.gap(rehearsal.id))
    except FarsideError as error:
        if isinstance(error, TransientError) and clock.attempt <= _RETRIES:
            raise
        return error
    return None


def _fence_stays(rehearsal: Rehearsal, error: FarsideError, *, reachable: bool) -> Finding:
    source = rehearsal.plan.source.name
    if reachable:
        return finding("fence-stays", f"{error.domain}/{error.host}", error.message, STAGE)
    text = f"{error.message}; nothing was cleared in {source} either"
    return finding("fence-stays", source, text, STAGE)


def _clear_recovery(rehearsal: Rehearsal, service: Service | None) -> list[Finding]:
    plan = rehearsal.plan
    if service is not None:
        # A server that cannot be asked to stop is killed, or reported, by the sweep of its host.
        with suppress(FarsideError):
            plan.engine.destroy(service, plan.recovery)
    found = _clear_hosts(rehearsal, plan.recovery)
    return [*found, *_still_answering(plan.recovery, service)] if service is not None else found


def _still_answering(domain: FailureDomain, service: Service) -> Iterator[Finding]:
    """Nodes of which something answers although nothing of them was found any more."""
    hosts = {host.name: host for host in domain.hosts}
    for node in service.nodes:
        if host := hosts.get(node.host):
            argv = [host.python, "-c", _KNOCK, node.address, str(node.port)]
            with suppress(FarsideError):  # a host that is gone is the sweep's to tell
                if host.run(argv, check=False, timeout=30).exit_code == 0:
                    text = f"something still answers at {node.address}:{node.port}"
                    yield left_over(f"{domain.name}/{host.name}", text)


def _clear_hosts(rehearsal: Rehearsal, domain: FailureDomain) -> list[Finding]:
    """Remove what the rehearsal made on the hosts that it reached; what remains, as findings."""

    def clear(host: Host) -> Iterable[Finding]:
        name = f"{domain.name}/{host.name}"
        if name not in rehearsal.claimed:
            return []
        try:
            remaining = sweep_host(host, rehearsal.id, remove=True).remaining
        except FarsideError as error:
            if isinstance(error, HelperFailed) and remove_unused_folder(host, rehearsal.id):
                return []
            return [left_over(name, f"could not be swept: {error.message}")]
        left = [what for item in remaining for what in (*item.processes, *item.paths)]
        return [left_over(name, f"{what} remains") for what in left]

    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="sweep") as pool:
        return [item for group in pool.map(clear, domain.hosts) for item in group]


def _clear_source(rehearsal: Rehearsal, writer: SetWriter | None) -> list[Finding]:
    """The same for the source, once the fence is lifted: hosts, server, unfinished objects."""
    plan = rehearsal.plan
    found = _clear_hosts(rehearsal, plan.source)
    if writer is None:
        return found
    try:
        plan.engine.withdraw(plan.source, rehearsal.id)
    except FarsideError as error:
        found.append(left_over(f"{plan.source.name} server", error.message))
    for domain in (plan.source, plan.recovery):
        try:
            discard_unfinished(domain.store, plan.name, rehearsal.id)
        except FarsideError as error:
            found.append(left_over(f"{domain.name} store", error.message))
    return found


def left_over(subject: str, evidence: str) -> Finding:
    """Remains of this very rehearsal: worse than what it finds of others, for they are its own."""
    return finding("leftovers", subject, evidence, STAGE, severity=Severity.HIGH)
