"""Teardown: end what burdens production, remove all that the rehearsal made, and prove it.

It always runs, whatever ended the rehearsal, and it does not depend on Prefect: its work starts in
threads of its own, and the task only waits for it.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from blocks.domain import FailureDomain
from blocks.engines.restored import Restored
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.stages import StageName
from blocks.fences.fence import Gap
from blocks.hosts.host import Host
from blocks.remote.failures import AgentFailed
from blocks.remote.folder import remove_unused_folder
from blocks.remote.jobs import end_processes, sweep_host
from blocks.repositories.farside.copier import SetCopier
from blocks.repositories.farside.listing import discard_unfinished
from blocks.repositories.farside.writer import SetWriter
from blocks.settings import teardown_seconds
from blocks.workers import Workers
from tasks.context import Rehearsal, stage
from tasks.inspect.store_writes import changed
from tasks.liveness import look
from tasks.parts import Part, left_over, run_parts

STAGE = StageName.TEARDOWN
URGENT_SECONDS = 150.0
"""How long a part may take that others, or production, wait for."""
_KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"


class Teardown:
    """The teardown of one rehearsal, under way from `start` on."""

    def __init__(
        self,
        rehearsal: Rehearsal,
        writer: SetWriter | None,
        copier: SetCopier | None,
        service: Restored | None,
    ) -> None:
        self._rehearsal = rehearsal
        self._writer = writer
        self._copier = copier
        self._service = service
        self._running: list[str] = []
        """Of what was restored, what may still run."""
        self._fenced = rehearsal.cut
        """Whether the fence is up, and this rehearsal is to lift it."""
        self._reachable = not rehearsal.cut
        """Whether the source may be entered again."""
        self._server_clean = False
        self._kept = service is not None and rehearsal.options.keep is not None
        self._thread = threading.Thread(target=self._work, name=STAGE, daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._rehearsal.lease.enter_no_more()
        self._thread.start()

    def wait(self) -> None:
        """Return when every part has ended, or used up its time. Raises nothing."""
        self._thread.join()

    def _work(self) -> None:
        rehearsal = self._rehearsal
        try:
            with rehearsal.clock.stage(STAGE) as clock:
                rehearsal.findings.add(*run_parts(self._parts(), clock))
        except BaseException as error:  # noqa: BLE001 (a teardown that breaks is a finding, and the record is still written)
            text = f"teardown of {rehearsal.id} failed: {type(error).__name__}: {error}"
            rehearsal.findings.add(left_over(rehearsal.plan.name, text))

    def _parts(self) -> list[Part]:
        """What burdens or threatens production first, then plaintext and keys, then the rest."""
        rehearsal, plan = self._rehearsal, self._rehearsal.plan
        source, recovery = plan.source.name, plan.recovery.name
        long = teardown_seconds()
        urgent = min(URGENT_SECONDS, long)
        parts = [
            Part("follower", f"{source} follower", self._end_follower, urgent),
            Part("copying", f"{recovery} store", self._end_copying, urgent),
        ]
        if self._kept:
            parts.append(Part("keep", f"{recovery} hosts", self._keep, urgent))
        elif rehearsal.cut:
            # The fence keeps what was restored from production until none of it runs any more.
            parts += [
                Part("service", f"{recovery} service", self._stop_service, urgent),
                Part("fence", source, self._lift_fence, urgent, after=("service",)),
                Part("the source's store", f"{source} store", self._changed, long, ("fence",)),
            ]
        after: tuple[str, ...]
        if rehearsal.fresh:  # else nothing was made in the source
            after = ("follower", "fence")
            parts += [
                Part("source server", f"{source} server", self._clean_server, urgent, after),
                Part("source hosts", f"{source} hosts", self._clear_source, long, after),
            ]
        if not self._kept:
            # Plaintext of terabytes takes long to remove: nothing waits for that.
            after = ("service", "fence", "source server")
            clear = self._clear_recovery
            parts.append(Part("recovery hosts", f"{recovery} hosts", clear, long, after))
        if rehearsal.fresh:
            after = ("copying", "source hosts", "recovery hosts")
            parts.append(Part("objects", f"{recovery} store", self._discard, long, after))
        if not self._kept:
            after = ("source server", "source hosts", "recovery hosts", "objects")
            parts.append(Part("lease", f"{recovery} store", self._end_lease, urgent, after))
        return parts

    def _keep(self) -> Iterable[Finding]:
        """Leave the service and its fence; both count as kept until their time is over."""
        rehearsal = self._rehearsal
        assert rehearsal.options.keep is not None
        rehearsal.lease.keep(rehearsal.recovery, rehearsal.options.keep.total_seconds())
        return ()

    def _end_follower(self) -> Iterable[Finding]:
        if self._writer is not None:
            self._writer.abandon()
        return ()

    def _end_copying(self) -> Iterable[Finding]:
        if self._copier is not None:
            self._copier.abandon()
        return ()

    def _stop_service(self) -> Iterable[Finding]:
        """Stop what was restored, by its engine, then whatever else was started for it.

        What cannot be shown to have ended keeps the fence up.
        """
        recovery, service = self._rehearsal.recovery, self._service
        self._running = ["what was restored has not been stopped"]
        if service is not None:
            with suppress(FarsideError):
                service.stop()
        running = _still_running(self._rehearsal)
        answering = _answering(recovery, service) if service else []
        self._running = [*running, *(f"{item.subject}: {item.evidence}" for item in answering)]
        return answering

    def _lift_fence(self) -> Iterator[Finding]:
        """Lift it, unless what was restored may still run: that could reach production then.

        Nor is it lifted under another rehearsal that has raised it, too, or may have.
        """
        plan = self._rehearsal.plan
        try:
            self._check_stopped()
            holders = plan.fence.lift(self._gap())
        except FarsideError as error:
            # A filter that stays on a host of the recovery domain is not in farside's way.
            self._reachable = error.domain == plan.recovery.name or not plan.fence.marks
            yield self._fence_stays(error)
            return
        self._fenced = False
        self._reachable = not holders
        with suppress(FarsideError):  # else a sweep lifts it once more
            self._rehearsal.lease.note_fence(plan.recovery.name, ())
        if holders:
            who = ", ".join(sorted(holders))
            text = f"{who} raised it, too, with the same command, and may still run"
            remedy = (
                "Nothing: that rehearsal lifts it. Then run `python -m flows.sweep` for what is "
                "left in the source."
            )
            yield finding(
                FindingId.FENCE_STAYS,
                plan.source.name,
                text,
                STAGE,
                severity=Severity.MEDIUM,
                remedy=remedy,
            )

    def _check_stopped(self) -> None:
        """Raise PermanentError where something restored may run."""
        if self._running:
            what = "; ".join(self._running)
            raise PermanentError(f"without it, what runs could reach the source: {what}")

    def _gap(self) -> Gap:
        """With the other rehearsals that may have raised the same fence, where it has no owner."""
        rehearsal, plan = self._rehearsal, self._rehearsal.plan
        gap = plan.gap(rehearsal.id)
        if not plan.fence.marks:
            return gap
        seen = look(plan, (plan.recovery,))
        if seen.fences_unseen:
            what = "; ".join(seen.problems)
            raise PermanentError(f"whether another rehearsal needs it cannot be told: {what}")
        others = [
            rehearsal_id
            for rehearsal_id in seen.known
            if rehearsal_id != rehearsal.id and seen.state(rehearsal_id) != "dead"
        ]
        return replace(gap, spared=frozenset(others), raised=seen.raised(plan.fence))

    def _fence_stays(self, error: FarsideError) -> Finding:
        if self._reachable:
            return finding(
                FindingId.FENCE_STAYS, f"{error.domain}/{error.host}", error.message, STAGE
            )
        source = self._rehearsal.source.name
        text = f"{error.message}; nothing was cleared in {source} either"
        return finding(FindingId.FENCE_STAYS, source, text, STAGE)

    def _changed(self) -> Iterable[Finding]:
        return changed(self._rehearsal) if self._reachable else ()

    def _clean_server(self) -> Iterable[Finding]:
        if self._reachable and self._writer is not None:
            plan = self._rehearsal.plan
            plan.engine.clean_source(plan.source, self._rehearsal.id)
        self._server_clean = self._reachable
        return ()

    def _clear_source(self) -> Iterable[Finding]:
        return _clear_hosts(self._rehearsal, self._rehearsal.source) if self._reachable else ()

    def _clear_recovery(self) -> Iterable[Finding]:
        return _clear_hosts(self._rehearsal, self._rehearsal.recovery)

    def _discard(self) -> Iterator[Finding]:
        """Remove the objects of a set that was not finished, and what a finished one needs not."""
        plan = self._rehearsal.plan
        if self._writer is None:
            return
        for domain in (plan.source, plan.recovery):
            if domain is plan.source and not self._reachable:
                continue
            try:
                discard_unfinished(domain.store, plan.name, self._rehearsal.id)
                self._writer.prune(domain.store)
            except FarsideError as error:
                yield left_over(f"{domain.name} store", error.message)

    def _end_lease(self) -> Iterable[Finding]:
        """Remove the lease; where it stays it runs out, and says whose the rest is.

        That includes the fence: only a sweep that finds the lease lifts it.
        """
        rehearsal = self._rehearsal
        if self._fenced:
            with suppress(FarsideError):
                rehearsal.lease.end(rehearsal.recovery.store)
            return ()
        cleaned = self._reachable and rehearsal.fresh and self._server_clean
        domains = (rehearsal.recovery, rehearsal.source) if cleaned else (rehearsal.recovery,)
        with suppress(FarsideError):
            rehearsal.lease.remove(domain.store for domain in domains)
        return ()


@stage(STAGE)
def teardown(rehearsal: Rehearsal, work: Teardown) -> None:  # noqa: ARG001 (it names the task)
    """Show a teardown that is under way in Prefect."""
    work.wait()


def _still_running(rehearsal: Rehearsal) -> list[str]:
    """End what the rehearsal started on the recovery hosts; what may still run there.

    On a host that cannot be asked nothing runs unless a restore was begun that has a node there.
    """
    plan = rehearsal.plan
    begun = any(
        item.name == StageName.RESTORE and item.started_at for item in rehearsal.clock.stages()
    )
    nodes = {node.host for node in plan.engine.predicted_nodes} if begun else set()

    def end(host: Host) -> list[str]:
        name = f"{host.domain}/{host.name}"
        if name not in rehearsal.claimed:
            return []
        try:
            running = end_processes(host, rehearsal.id)
        except FarsideError as error:
            if isinstance(error, AgentFailed) and remove_unused_folder(host, rehearsal.id):
                return []
            if host.name not in nodes:
                return []
            return [f"{name}: what runs there could not be told: {error.message}"]
        return [f"{name}: {process} still runs" for process in running]

    with Workers(8, "end") as pool:
        return [item for found in pool.map(end, rehearsal.recovery.hosts) for item in found]


def _answering(domain: FailureDomain, service: Restored) -> list[Finding]:
    """Nodes of which something still answers."""
    hosts = {host.name: host for host in domain.hosts}
    found = []
    for node in service.nodes:
        if host := hosts.get(node.host):
            argv = [host.python, "-c", _KNOCK, node.address, str(node.port)]
            with suppress(FarsideError):  # a host that is gone is the sweep's to tell
                if host.run(argv, check=False, timeout=30).exit_code == 0:
                    text = f"something still answers at {node.address}:{node.port}"
                    found.append(left_over(f"{domain.name}/{host.name}", text))
    return found


def _clear_hosts(rehearsal: Rehearsal, domain: FailureDomain) -> list[Finding]:
    """Remove what the rehearsal made on the hosts that it reached; what remains, as findings."""

    def clear(host: Host) -> Iterable[Finding]:
        name = f"{domain.name}/{host.name}"
        if name not in rehearsal.claimed:
            return []
        try:
            own_only = domain is rehearsal.source
            swept = sweep_host(host, rehearsal.id, remove=True, own_only=own_only)
            remaining = swept.remaining
        except FarsideError as error:
            if isinstance(error, AgentFailed) and remove_unused_folder(host, rehearsal.id):
                return []
            return [left_over(name, f"could not be swept: {error.message}")]
        left = [what for item in remaining for what in (*item.processes, *item.paths)]
        left = [f"{what} remains" for what in left]
        left += [what for item in swept.found for what in item.left_alone]
        return [left_over(name, text) for text in left]

    with Workers(8, "sweep") as pool:
        return [item for group in pool.map(clear, domain.machines()) for item in group]
