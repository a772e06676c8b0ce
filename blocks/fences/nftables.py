"""A fence of packet filters on the recovery hosts."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr

from blocks.agent.protocol.jobs import GuardJob
from blocks.agent.protocol.results import GuardResult
from blocks.artifact.wire import WireError
from blocks.block import is_ip
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.uses import unnoted
from blocks.fences import ruleset
from blocks.fences.fence import (
    Attempt,
    Fence,
    FenceBroken,
    FenceGone,
    FenceNotRaised,
    FenceShared,
    FilterMissing,
    Gap,
    Observed,
    OrchestratorInside,
    RecoveryIsSource,
    T,
    WorksForSource,
    together,
)
from blocks.fences.watcher import Watcher
from blocks.hosts.host import Host, HostUnreachable
from blocks.hosts.local import LocalHost
from blocks.hosts.machine import Connection, connections, machine
from blocks.hosts.process import NOT_RUN, CommandFailed
from blocks.hosts.ssh import AuthenticationRefused, HostKeyMismatch, SSHHost
from blocks.ids import id_in, name_of
from blocks.ownership import canonical
from blocks.remote.run import run_job
from blocks.workers import Workers

GUARD_SECONDS = 60.0
"""How long the guard on a host may take to start."""
KEPT_SECONDS = 3.0
"""A connection that is there for so long is kept."""


class NftablesFence(Fence):
    """Packet filters on the recovery hosts, and on their vault's: no way to the source, or from it.

    Raised over SSH, in a table of the rehearsal's own. TCP calls are redirected to a watcher on the
    same host, which sees the process; all others are rejected and noted by account.
    """

    _block_type_name: ClassVar[str | None] = "farside nftables fence"
    _block_type_slug: ClassVar[str | None] = "farside-nftables-fence"
    _description: ClassVar[str | None] = "Cuts a failure domain off on the recovery hosts."

    kind: Literal["nftables"] = Field(
        default="nftables",
        description="nftables: packet filters on each recovery host, and on the vault's.",
    )
    nft_argv: list[str] = Field(
        default=["sudo", "-n", "nft"],
        min_length=1,
        description="Command on those hosts that runs nft with the right to change the packet "
        "filter. Default: [sudo, -n, nft].",
    )

    _watchers: dict[str, "Watcher"] = PrivateAttr(default_factory=dict)
    _guards: dict[str, int] = PrivateAttr(default_factory=dict)
    """Machine -> process id of its guard."""
    _handles: dict[str, int] = PrivateAttr(default_factory=dict)
    """Machine -> handle of the table that was raised there."""
    _entered: set[str] = PrivateAttr(default_factory=set)
    """Machines, by name, that could be entered before the source was lost."""

    def check(self, gap: Gap) -> None:
        """See Fence: nft itself checks the rules, and who it is asked by."""
        networks = _networks(gap)
        rules = ruleset.ruleset(_table(gap), networks, 1)

        def check(host: Host) -> None:
            self._nft(host, "--check", "--file", "-", said=rules)
            self._entered.add(host.name)
            self._alone(gap, host)
            _harmless(gap, host, networks)

        self._everywhere(gap, check)

    def remember(self, gap: Gap) -> None:
        """See Fence: a filter tells of nothing before it stands."""

    def cut(self, gap: Gap) -> datetime:
        """See Fence."""
        networks = _networks(gap)
        # Looked at once more on all machines before anything is done on the first.
        self._everywhere(gap, lambda host: _harmless(gap, host, networks))
        at = datetime.now(UTC)

        def raise_on(host: Host) -> None:
            self._alone(gap, host)
            watcher = self._watchers.get(host.name) or Watcher(host, gap.rehearsal_id or "")
            self._watchers[host.name] = watcher
            self._entered.add(host.name)
            rules = ruleset.ruleset(_table(gap), networks, watcher.port)
            self._nft(host, "--file", "-", said=rules)
            if (handle := self._tables(host).get(_table(gap))) is not None:
                self._handles[host.name] = handle
            self._guard(gap, host)

        self._everywhere(gap, raise_on)
        return at

    def lift(self, gap: Gap) -> frozenset[str]:
        """See Fence. Each rehearsal has its own table.

        Whose they are is known on the recovery hosts, where each leaves its claim: a machine
        besides, a vault's, may have those of other plans. So may a host, for another account: the
        table of an unknown rehearsal may be in use, and stays.
        """
        strangers: frozenset[str] = frozenset()
        if gap.rehearsal_id is not None:
            ours = {_table(gap)}
        else:
            found = self._everywhere(gap, lambda host: set(self._tables(host)), gap.recovery.hosts)
            standing = {
                rehearsal_id for name in set().union(*found) if (rehearsal_id := id_in(name))
            } - gap.spared
            strangers = frozenset() if gap.ended is None else frozenset(standing) - gap.ended
            ours = {name_of(rehearsal_id) for rehearsal_id in standing - strangers}

        def lift_on(host: Host) -> None:
            for table in ours.intersection(self._tables(host)):
                # Added first: another sweep may have been faster.
                undo = f"add table inet {table}\ndelete table inet {table}\n"
                self._nft(host, "--file", "-", said=undo)
            if watcher := self._watchers.get(host.name):
                watcher.stop()
            if guard := self._guards.pop(host.name, None):
                host.run(["kill", str(guard)], check=False)  # it may have ended by itself

        if ours:
            self._everywhere(gap, lift_on)
        self._watchers.clear()
        return strangers

    def attempts(self, gap: Gap) -> Observed:
        """See Fence. A process is known of a TCP call; of others, the account at most."""

        def seen(host: Host) -> Observed:
            if host.name not in self._entered:
                return Observed()
            found, unseen = list[Attempt](), list[FarsideError]()
            if watcher := self._watchers.get(host.name):
                found += watcher.attempts()
                unseen += watcher.problems()
            try:
                found += self._noted(gap, host)
            except FarsideError as error:
                unseen.append(error)
            return Observed(tuple(found), tuple(unseen))

        return together(self._everywhere(gap, seen))

    @property
    def marks(self) -> frozenset[str]:
        """See Fence: its tables bear the rehearsal's id."""
        return frozenset()

    @property
    def tells(self) -> bool:
        """See Fence."""
        return True

    @property
    def shuts_names(self) -> bool:
        """See Fence: a packet filter knows addresses."""
        return False

    @property
    def is_on_hosts(self) -> bool:
        """See Fence."""
        return True

    def _guard(self, gap: Gap, host: Host) -> None:
        """Leave a guard on a host that lifts the filter if farside dies; once for each host.

        A vault's own machine has no lease to go by: there a sweep lifts it.
        """
        if host.name in self._guards or host not in gap.recovery.hosts or not gap.rehearsal_id:
            return
        job = GuardJob(
            work_dir=host.work_root,
            rehearsal_id=gap.rehearsal_id,
            nft_argv=tuple(self.nft_argv),
            table=_table(gap),
        )
        result = run_job(host, gap.rehearsal_id, job, idle=GUARD_SECONDS)
        assert isinstance(result, GuardResult)
        self._guards[host.name] = result.pid

    def _noted(self, gap: Gap, host: Host) -> Iterator[Attempt]:
        """What the filter on a host has noted. Raises FenceGone, and as `_read`."""
        handle = self._tables(host).get(_table(gap))
        if handle is None or handle != self._handles.get(host.name, handle):
            again = "" if handle is None else " and made again"
            raise FenceGone(
                f"the packet filter has been removed{again}",
                operation="fence",
                domain=host.domain,
                host=host.name,
                hint="find out who did it: from then on the source could be reached",
            )
        self._alone(gap, host)

        def calls(text: str) -> list[ruleset.DeniedCall]:
            return ruleset.denied_calls(text, _table(gap))

        for call in self._read(host, calls, *_LIST_RULES):
            by = (
                f"a process of account {call.account}" if call.account else "the kernel, or a guest"
            )
            yield Attempt(
                at=datetime.now(UTC) - timedelta(seconds=call.seconds_ago),
                host=host.name,
                address=call.address,
                port=call.port,
                process=f"{by} on {host.name}, over {call.protocol}, {call.packets} times",
            )

    def _alone(self, gap: Gap, host: Host) -> None:
        """Raise FenceShared where another rehearsal's filter stands: one would hide the other."""
        others = sorted({str(id_in(t)) for t in self._tables(host) if t != _table(gap)})
        if others:
            raise FenceShared(
                f"the fence of rehearsal {', '.join(others)} stands there",
                operation="fence",
                domain=host.domain,
                host=host.name,
                hint="wait for its end; if it is dead, `python -m flows.sweep` of its plan",
            )

    def _tables(self, host: Host) -> dict[str, int]:
        """The tables of rehearsals on a host, with their handles; none where there is no nft."""
        try:
            return self._read(host, ruleset.handles, *_LIST_TABLES)
        except FilterMissing:
            return {}

    def _everywhere(
        self, gap: Gap, do: Callable[[Host], T], machines: Sequence[Host] | None = None
    ) -> list[T]:
        """Do it on each machine, side by side; raises the first error, at last.

        One that could not be entered before the loss is of no use to farside, nor to the source:
        preflight has said so.
        """
        machines = gap.recovery.machines() if machines is None else machines
        done = []
        with Workers(len(machines), "fence") as pool:
            futures = [pool.submit(do, host) for host in machines]
        failures = list[FarsideError]()
        for host, future in zip(machines, futures, strict=True):
            try:
                done.append(future.result())
            except (HostUnreachable, HostKeyMismatch, AuthenticationRefused) as error:
                # A sweep has entered none before, and leaves nothing behind without a word.
                if host.name in self._entered or gap.rehearsal_id is None:
                    failures.append(error)
            except FarsideError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return done

    def _nft(self, host: Host, *words: str, said: str = "") -> str:
        try:
            return host.run([*self.nft_argv, *words], input=said.encode()).text
        except CommandFailed as error:
            where = {"operation": "fence", "domain": host.domain, "host": host.name}
            subject = f"{host.domain}/{host.name} {self.nft_argv[0]}"
            if error.exit_code in NOT_RUN:
                hint = "install nftables there, or correct nft_argv of the fence in the plan"
                raise FilterMissing(error.message, subject=subject, hint=hint, **where) from None
            hint = "let the account run nft there: sudoers, or nft_argv of the fence in the plan"
            raise FenceNotRaised(error.message, subject=subject, hint=hint, **where) from None

    def _read(self, host: Host, read: Callable[[str], T], *words: str) -> T:
        said = self._nft(host, *words)
        try:
            return read(said)
        except WireError as error:
            raise FenceBroken(
                f"nft printed {said[:200]!r}: {error.message}",
                operation="fence",
                domain=host.domain,
                host=host.name,
                hint="nftables 0.9.8 or later is needed",
            ) from None


# With fixed words only, a sudoers line can name each command that is run; see docs/fences.md.
_LIST_TABLES = ("--json", "list", "tables")
_LIST_RULES = ("--json", "list", "ruleset", "inet")


def _table(gap: Gap) -> str:
    return name_of(gap.rehearsal_id or "")


def _networks(gap: Gap) -> list[ruleset.Network]:
    """The source's networks, and the addresses at which it answers outside of them."""
    found: list[ruleset.Network] = list(gap.source.networks)
    for host, _ in gap.endpoints:
        with suppress(ValueError):  # a name: its addresses are for the plan's networks to say
            address = ip_address(host)
            # No packet bears an address of IPv4 inside IPv6.
            address = getattr(address, "ipv4_mapped", None) or address
            if not any(address in network for network in found):
                found.append(ip_network(address))
    if not found:
        raise PermanentError(
            f"the plan gives no network of {gap.source.name}",
            operation="fence",
            domain=gap.source.name,
            hint="give `networks` to the domain: they are what the fence shuts off",
        )
    return found


def _harmless(gap: Gap, host: Host, networks: Sequence[ruleset.Network]) -> None:
    """Raise FarsideError where a filter on `host` would cut off the source itself, or farside.

    Where either cannot be told, it is not taken for harmless.
    """
    where = {"operation": "fence", "domain": host.domain, "host": host.name}
    if isinstance(host, SSHHost):  # else farside's own machine: no connection to cut
        _seen_from(gap, host, networks)
    for own in sorted(machine(host).addresses):
        if gap.source.owns_address(own) or any(ip_address(own) in item for item in networks):
            raise RecoveryIsSource(
                f"it has {own}, an address of {gap.source.name}: a filter would hit production",
                hint="correct the host's address, or the source's networks, in the plan",
                subject=f"{host.domain}/{host.name}",
                **where,
            )
    _at_work_for(gap, host)


def _at_work_for(gap: Gap, host: Host) -> None:
    """Raise WorksForSource where a filter on `host` would cut off what the source may wait for.

    That is a connection that the host made to a machine of the source's own and keeps: of a
    replica, a voter, a mirrored disk, an application. Farside keeps none there, but on its own
    machine.
    """
    with unnoted():  # farside's own machine is nothing that a restore depends on
        here = machine(LocalHost(name="here"))
    if not isinstance(host, SSHHost) or machine(host).is_same(here):
        return
    stores = gap.source.store.endpoints()
    theirs = {canonical(name) for name, port in gap.endpoints if (name, port) not in stores}

    def made() -> frozenset[Connection]:
        return frozenset(item for item in connections(host) if item.address in theirs)

    kept = made()
    deadline = time.monotonic() + KEPT_SECONDS
    while kept and time.monotonic() < deadline:
        time.sleep(0.5)
        kept &= made()
    if kept:
        shown = ", ".join(sorted({f"{item.address}:{item.port}" for item in kept})[:5])
        raise WorksForSource(
            f"something there keeps a connection to {gap.source.name}, at {shown}: a filter would "
            "cut it, and production may wait for what has it",
            hint="see what it is with `ss -tnp` there; rehearse on machines that do no work for "
            f"{gap.source.name}, or end it first",
            subject=f"{host.domain}/{host.name}",
            operation="fence",
            domain=host.domain,
            host=host.name,
        )


def _seen_from(gap: Gap, host: Host, networks: Sequence[ruleset.Network]) -> None:
    """Raise FarsideError where a filter on `host` would shut farside out, or might."""
    where = {"operation": "fence", "domain": host.domain, "host": host.name}
    said = host.run(["sh", "-c", 'echo "$SSH_CONNECTION"'], check=False).text.split()
    if not said or not is_ip(said[0]):
        raise FenceNotRaised(
            "its SSH server does not say from where farside comes ($SSH_CONNECTION)",
            hint="a filter there might shut farside out for good: use an SSH server that sets it",
            **where,
        )
    if any(ip_address(canonical(said[0])) in network for network in networks):
        raise OrchestratorInside(
            f"farside comes there from {said[0]}, an address of {gap.source.name}",
            hint=f"run farside outside {gap.source.name}: the fence would shut it out",
            subject="farside",
            operation="fence",
        )
