"""Fences: make the source domain unreachable, show who still calls there, lift it again."""

import hashlib
import json
import queue
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
)

from blocks.agent.protocol import Caught, GuardJob, GuardResult, Listening, Released, WatchJob
from blocks.agent.redaction import redacted
from blocks.artifact.wire import WireError
from blocks.block import DomainPart, is_ip
from blocks.domain import FailureDomain
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.uses import ORCHESTRATOR, unnoted
from blocks.fences import ruleset
from blocks.hosts import (
    AuthenticationRefused,
    Host,
    HostKeyMismatch,
    HostUnreachable,
    LocalHost,
    SSHHost,
)
from blocks.hosts.machine import Connection, connections, machine
from blocks.hosts.process import NOT_RUN, CommandFailed
from blocks.ids import id_in, name_of
from blocks.ownership import canonical
from blocks.remote import HelperThread, run_job
from blocks.workers import Workers

T = TypeVar("T")

WATCHER_SECONDS = 60.0
"""How long the watcher on a host may take to start."""


GUARD_SECONDS = 60.0
"""How long the guard on a host may take to start."""
KEPT_SECONDS = 3.0
"""A connection that is there for so long is kept."""


class FenceBroken(PermanentError):
    """The fence's commands do not answer as they must."""


class FenceNotRaised(PermanentError):
    """A host takes no packet filter: the source could be reached from there."""

    finding = "fence-leaks"


class FenceGone(PermanentError):
    """A packet filter that was raised is not there any more."""

    finding = "fence-leaks"


class WorksForSource(PermanentError):
    """A host of the recovery side keeps a connection to the source that a filter would cut."""

    finding = "recovery-is-source"


class FenceShared(PermanentError):
    """Another rehearsal's packet filter stands on a machine: its watcher would get the calls."""

    finding = "target-occupied"


class FilterMissing(PermanentError):
    """A host has no nft, or not the command that is to run it."""

    finding = "tool-missing"


class RecoveryIsSource(PermanentError):
    """A machine of the recovery side is the source's by its own addresses."""

    finding = "recovery-is-source"


class OrchestratorInside(PermanentError):
    """farside itself runs in the domain that is to be cut off."""

    finding = "control-plane-in-source"


class Attempt(BaseModel):
    """A connection to the source that was caught after the declaration.

    `host` was called, or called itself, where the fence stands there.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: AwareDatetime
    host: str
    address: str
    port: int
    pid: int | None = None
    process: Annotated[str, AfterValidator(redacted)] | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """What a fence stands between, and for whom: a rehearsal, or any (None)."""

    source: FailureDomain
    recovery: FailureDomain
    endpoints: tuple[tuple[str, int], ...]
    """Where the source answers."""
    rehearsal_id: str | None
    spared: frozenset[str] = frozenset()
    """Other rehearsals that run, or may run: what they have raised is not lifted."""
    ended: frozenset[str] | None = None
    """Those of which a sweep may lift what they raised; None: all that are not spared."""
    raised: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Which `Fence.marks` each rehearsal that is known has raised, as its lease says."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Who called the source, oldest first, and where that could not be seen, and why."""

    attempts: tuple["Attempt", ...] = ()
    unseen: tuple[FarsideError, ...] = ()


class Fence(DomainPart):
    """Cuts the source domain off."""

    @abstractmethod
    def check(self, gap: Gap) -> None:
        """Raise FarsideError where the fence could not be raised; changes nothing."""

    @abstractmethod
    def remember(self, gap: Gap) -> None:
        """Note what is told of calls already: `attempts` does not tell it again.

        To be called just before `cut`. Raises nothing of what keeps it from that.
        """

    @abstractmethod
    def cut(self, gap: Gap) -> datetime:
        """Lose the source now; returns the declaration's time (UTC), taken before anything is done.

        Cutting what is cut already does no harm. Raises FarsideError when it cannot be done.
        """

    @abstractmethod
    def lift(self, gap: Gap) -> frozenset[str]:
        """Undo `cut` of the gap's rehearsal; without one, of all that are known and not spared.

        What no rehearsal has raised stays. Returns those of the spared, and those not known to
        have ended, for which a part of it stays, too. Without effect where nothing is cut. Raises
        FarsideError.
        """

    @abstractmethod
    def attempts(self, gap: Gap) -> Observed:
        """Who called the source since `cut`. Where one part cannot tell, the others do.

        When they called is by the fence's own clock, which may be any.
        """

    @property
    @abstractmethod
    def marks(self) -> frozenset[str]:
        """Names what it raises that does not bear the rehearsal's id by itself.

        They are to be in the rehearsal's lease before `cut`: nothing else says who raised it.
        """

    @property
    @abstractmethod
    def tells(self) -> bool:
        """Whether it can tell who calls."""

    @property
    @abstractmethod
    def shuts_names(self) -> bool:
        """Whether it can shut off what the plan knows by name only: a store of a provider's."""

    @property
    def is_on_hosts(self) -> bool:
        """Whether it cuts off the recovery hosts and no other machine of their domain."""
        return False

    @property
    def untried(self) -> tuple[str, ...]:
        """Programs of which only the declaration shows whether they can do their work."""
        return ()


class CommandFence(Fence):
    """A fence made of the site's own commands, run by farside where it runs itself.

    The commands know no rehearsals, and operators may run them, too: it is lifted only for a
    rehearsal whose lease says that it has raised it, and by the last one whose lease does.
    """

    _block_type_name: ClassVar[str | None] = "farside command fence"
    _block_type_slug: ClassVar[str | None] = "farside-command-fence"
    _description: ClassVar[str | None] = "Cuts a failure domain off with the site's own commands."

    kind: Literal["command"] = Field(default="command", description="A fence made of commands")
    raise_argv: list[str] = Field(
        min_length=1, description="Command that makes the source unreachable; may run twice"
    )
    lift_argv: list[str] = Field(
        min_length=1, description="Command that undoes it; may run where nothing is cut"
    )
    observe_argv: list[str] = Field(
        default=[],
        description="Command that prints the attempts caught, a JSON object on each line: at, "
        "host, address, port, and pid and process where known; farside's own calls among them",
    )
    check_argv: list[str] = Field(
        default=[],
        description="Command that ends with 0 if raise_argv and lift_argv could do their work, and "
        "changes nothing; run at preflight",
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="Time limit of each command, in seconds"
    )

    _before: Counter[Attempt] = PrivateAttr(default_factory=Counter)
    """What was told of before the source was lost."""

    def check(self, gap: Gap) -> None:  # noqa: ARG002 (the commands know what they cut)
        """See Fence. Without check_argv it is only seen that the programs are there."""
        for argv in filter(None, (self.raise_argv, self.lift_argv, self.observe_argv)):
            try:
                self._run(["sh", "-c", 'command -v "$1" >/dev/null', "sh", argv[0]])
            except CommandFailed:
                raise FilterMissing(
                    f"{argv[0]} is not there, or cannot be run",
                    operation="fence",
                    subject=f"fence {argv[0]}",
                    hint="install it where farside runs, or correct the fence in the plan",
                ) from None
        if self.check_argv:
            try:
                self._run(self.check_argv)
            except CommandFailed as error:
                hint = "mend what check_argv of the fence reports: no fence is raised until then"
                raise FenceNotRaised(error.message, operation="fence", hint=hint) from None

    def remember(self, gap: Gap) -> None:  # noqa: ARG002 (as above)
        """See Fence. A tool that tells nothing before the source is lost may tell after it."""
        self._before = Counter(self._told().attempts)

    def cut(self, gap: Gap) -> datetime:  # noqa: ARG002 (as above)
        """See Fence."""
        at = datetime.now(UTC)
        self._run(self.raise_argv)
        return at

    def lift(self, gap: Gap) -> frozenset[str]:
        """See Fence."""
        owners = frozenset(id for id, marks in gap.raised.items() if self.marks <= marks)
        holders = (owners & gap.spared) - {gap.rehearsal_id}
        if not holders and (gap.rehearsal_id is not None or owners):
            self._run(self.lift_argv)
        return holders

    def attempts(self, gap: Gap) -> Observed:  # noqa: ARG002 (as above)
        """See Fence."""
        told = self._told()
        new = Counter(told.attempts) - self._before
        return Observed(tuple(sorted(new.elements(), key=_when)), told.unseen)

    def _told(self) -> Observed:
        """All that the site's tool remembers, of other days as well."""
        if not self.tells:
            return Observed()
        found, unseen = list[Attempt](), list[FarsideError]()
        try:
            done = self._here().run(self.observe_argv, timeout=self.timeout_seconds, check=False)
            for line in filter(None, done.text.split("\n")):
                try:
                    found.append(_attempt(line))
                except FenceBroken as error:
                    unseen.append(error)
            if done.exit_code != 0:
                said = redacted(done.stderr.decode(errors="replace").strip())[-500:]
                text = f"{self.observe_argv[0]} ended with exit code {done.exit_code}: {said}"
                unseen.append(FenceBroken(text, operation="fence"))
        except FarsideError as error:
            unseen.append(error)
        return Observed(tuple(found), tuple(unseen))

    @property
    def marks(self) -> frozenset[str]:
        """See Fence: plans that lift with the same words share what they raise."""
        words = json.dumps(self.lift_argv).encode()
        return frozenset({hashlib.sha256(words).hexdigest()[:16]})

    @property
    def tells(self) -> bool:
        """See Fence."""
        return bool(self.observe_argv)

    @property
    def untried(self) -> tuple[str, ...]:
        """See Fence."""
        return () if self.check_argv else (self.raise_argv[0],)

    @property
    def shuts_names(self) -> bool:
        """See Fence: whatever the site's own tool can."""
        return True

    def _run(self, argv: list[str]) -> None:
        self._here().run(argv, timeout=self.timeout_seconds)

    def _here(self) -> LocalHost:
        here = LocalHost(name="fence")
        here.join(ORCHESTRATOR)
        return here


class NftablesFence(Fence):
    """Packet filters on the recovery hosts, and on their vault's: no way to the source, or from it.

    Raised over SSH, in a table of the rehearsal's own. TCP calls are redirected to a watcher on the
    same host, which sees the process; all others are rejected and noted by account.
    """

    _block_type_name: ClassVar[str | None] = "farside nftables fence"
    _block_type_slug: ClassVar[str | None] = "farside-nftables-fence"
    _description: ClassVar[str | None] = "Cuts a failure domain off on the recovery hosts."

    kind: Literal["nftables"] = Field(
        default="nftables", description="A fence of nftables on each recovery host"
    )
    nft_argv: list[str] = Field(
        default=["sudo", "-n", "nft"],
        min_length=1,
        description="Command that runs nft with the right to change the packet filter there",
    )

    _watchers: dict[str, "_Watcher"] = PrivateAttr(default_factory=dict)
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
            watcher = self._watchers.get(host.name) or _Watcher(host, gap.rehearsal_id or "")
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
        """See Fence. Each rehearsal has a table of its own.

        Whose they are is known on the recovery hosts, where each leaves its claim: a machine
        besides, a vault's, may have those of other plans. So may a host, for another account: the
        table of an unknown rehearsal may be in use, and stays.
        """
        strangers: frozenset[str] = frozenset()
        if gap.rehearsal_id is not None:
            ours = {_table(gap)}
        else:
            found = self._everywhere(gap, lambda host: set(self._tables(host)), gap.recovery.hosts)
            standing = {id for name in set().union(*found) if (id := id_in(name))} - gap.spared
            strangers = frozenset() if gap.ended is None else frozenset(standing) - gap.ended
            ours = {name_of(id) for id in standing - strangers}

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

        return _together(self._everywhere(gap, seen))

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


class SeveralFences(Fence):
    """Fences one behind the other; the first one raised is the declaration."""

    _block_type_name: ClassVar[str | None] = "farside several fences"
    _block_type_slug: ClassVar[str | None] = "farside-several-fences"
    _description: ClassVar[str | None] = "Cuts a failure domain off in more than one way."

    kind: Literal["several"] = Field(default="several", description="Fences, raised in this order")
    fences: list[Annotated[CommandFence | NftablesFence, Field(discriminator="kind")]] = Field(
        min_length=1, description="The fences"
    )

    def check(self, gap: Gap) -> None:
        """See Fence."""
        for fence in self.fences:
            fence.check(gap)

    def remember(self, gap: Gap) -> None:
        """See Fence."""
        for fence in self.fences:
            fence.remember(gap)

    def cut(self, gap: Gap) -> datetime:
        """See Fence."""
        return min([fence.cut(gap) for fence in self.fences])

    def lift(self, gap: Gap) -> frozenset[str]:
        """See Fence. All are tried; of several failures, that of the one raised first is told."""
        failure: FarsideError | None = None
        holders: frozenset[str] = frozenset()
        for fence in reversed(self.fences):
            try:
                holders |= fence.lift(gap)
            except FarsideError as error:
                failure = error
        if failure is not None:
            raise failure
        return holders

    def attempts(self, gap: Gap) -> Observed:
        """See Fence."""
        return _together([fence.attempts(gap) for fence in self.fences])

    @property
    def marks(self) -> frozenset[str]:
        """See Fence."""
        return frozenset().union(*(fence.marks for fence in self.fences))

    @property
    def tells(self) -> bool:
        """See Fence: each sees what the others may not."""
        return any(fence.tells for fence in self.fences)

    @property
    def untried(self) -> tuple[str, ...]:
        """See Fence."""
        return tuple(name for fence in self.fences for name in fence.untried)

    @property
    def shuts_names(self) -> bool:
        """See Fence."""
        return any(fence.shuts_names for fence in self.fences)

    @property
    def is_on_hosts(self) -> bool:
        """See Fence."""
        return all(fence.is_on_hosts for fence in self.fences)


AnyFence = Annotated[CommandFence | NftablesFence | SeveralFences, Field(discriminator="kind")]
"""Any kind of fence, told apart by `kind`."""

# With fixed words only, a sudoers line can name each command that is run; see the README.
_LIST_TABLES = ("--json", "list", "tables")
_LIST_RULES = ("--json", "list", "ruleset", "inet")


class _Watcher:
    """Takes, on one host, the calls that its packet filter redirects."""

    def __init__(self, host: Host, rehearsal_id: str) -> None:
        self._host = host
        self._caught: list[tuple[datetime, Caught]] = []
        self._ports: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread = HelperThread(host, rehearsal_id, WatchJob(), heard=self._hear)
        try:
            self.port = self._ports.get(timeout=WATCHER_SECONDS)
        except queue.Empty:
            self._thread.abandon()
            self._thread.check()
            raise FenceBroken(
                f"the watcher did not start within {WATCHER_SECONDS:.0f} s",
                operation="fence",
                domain=host.domain,
                host=host.name,
            ) from None

    def problems(self) -> Iterator[FarsideError]:
        """What ended it, if it has ended: then there may have been more calls than it saw."""
        try:
            self._thread.check()
        except FarsideError as error:
            yield error

    def attempts(self) -> Iterator[Attempt]:
        """The calls so far."""
        for at, call in self._caught:
            yield Attempt(
                at=at,
                host=self._host.name,
                address=call.address,
                port=call.port,
                pid=call.pid,
                process=call.process,
            )

    def stop(self) -> None:
        """End it; that its host may be gone does not matter."""
        with suppress(FarsideError):
            self._thread.stop(timeout=10)

    def _hear(self, event: Listening | Caught | Released) -> None:
        if isinstance(event, Listening):
            self._ports.put(event.port)
        elif isinstance(event, Caught):
            at = datetime.now(UTC) - timedelta(seconds=event.seconds_ago)
            self._caught.append((at, event))


def _when(attempt: Attempt) -> datetime:
    return attempt.at


def _together(parts: Iterable[Observed]) -> Observed:
    """What several have seen."""
    parts = list(parts)
    attempts = sorted((item for part in parts for item in part.attempts), key=_when)
    return Observed(tuple(attempts), tuple(error for part in parts for error in part.unseen))


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


def _attempt(line: str) -> Attempt:
    try:
        return Attempt.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise FenceBroken(
            f"observe_argv printed {line[:200]!r}: {field}: {first['msg']}",
            operation="fence",
            hint="it must print a JSON object a line with at, host, address and port",
        ) from None
