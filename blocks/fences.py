"""Fences: make the source domain unreachable, show who still calls there, lift it again."""

import queue
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
)

from blocks import nftables
from blocks.artifact.job import Caught, Listening, WatchJob
from blocks.base import DomainPart
from blocks.domain import FailureDomain
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.uses import ORCHESTRATOR
from blocks.helper import HelperThread
from blocks.hosts import AuthenticationRefused, Host, HostKeyMismatch, HostUnreachable, LocalHost
from blocks.processes import CommandFailed

T = TypeVar("T")

WATCHER_SECONDS = 60.0
"""How long the watcher on a host may take to start."""


class FenceBroken(PermanentError):
    """The fence's commands do not answer as they must."""


class FenceNotRaised(PermanentError):
    """A host takes no packet filter: the source could be reached from there."""

    finding = "fence-leaks"


class FenceGone(PermanentError):
    """A packet filter that was raised is not there any more."""

    finding = "fence-leaks"


class FenceShared(PermanentError):
    """Another rehearsal's packet filter stands on a machine: its watcher would get the calls."""

    finding = "target-occupied"


class FilterMissing(PermanentError):
    """A host has no nft, or not the command that is to run it."""

    finding = "tool-missing"


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
    process: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """What a fence stands between, and for whom: a rehearsal, or any (None)."""

    source: FailureDomain
    recovery: FailureDomain
    endpoints: tuple[tuple[str, int], ...]
    """Where the source answers."""
    rehearsal_id: str | None
    living: frozenset[str] = frozenset()
    """Other rehearsals that still run: what they have raised is not lifted."""


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
    def cut(self, gap: Gap) -> datetime:
        """Lose the source now; returns the declaration's time (UTC), taken before anything is done.

        Cutting what is cut already does no harm. Raises FarsideError when it cannot be done.
        """

    @abstractmethod
    def lift(self, gap: Gap) -> None:
        """Undo `cut`; without effect where nothing is cut. Raises FarsideError."""

    @abstractmethod
    def attempts(self, gap: Gap) -> Observed:
        """Who called the source since `cut`. Where one part cannot tell, the others do."""

    @property
    @abstractmethod
    def tells(self) -> bool:
        """Whether it can tell who calls."""

    @property
    @abstractmethod
    def shuts_names(self) -> bool:
        """Whether it can shut off what the plan knows by name only: a store of a provider's."""


class CommandFence(Fence):
    """A fence made of the site's own commands, run by farside where it runs itself."""

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
        "host, address, port, and pid and process where known",
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, description="Time limit of each command, in seconds"
    )

    def check(self, gap: Gap) -> None:
        """See Fence: what a command would do, only running it tells."""

    def cut(self, gap: Gap) -> datetime:  # noqa: ARG002 (the commands know what they cut)
        """See Fence."""
        at = datetime.now(UTC)
        self._run(self.raise_argv)
        return at

    def lift(self, gap: Gap) -> None:
        """See Fence. The commands know no rehearsals: while another one runs, they stay away."""
        if not gap.living:
            self._run(self.lift_argv)

    def attempts(self, gap: Gap) -> Observed:  # noqa: ARG002 (as above)
        """See Fence."""
        if not self.tells:
            return Observed()
        found, unseen = list[Attempt](), list[FarsideError]()
        try:
            done = self._here().run(self.observe_argv, timeout=self.timeout_seconds, check=False)
            found += [_attempt(line) for line in done.text.splitlines() if line]
            if done.exit_code != 0:
                said = done.stderr.decode(errors="replace").strip()[-500:]
                text = f"{self.observe_argv[0]} ended with exit code {done.exit_code}: {said}"
                unseen.append(FenceBroken(text, operation="fence"))
        except FarsideError as error:
            unseen.append(error)
        return Observed(tuple(sorted(found, key=_when)), tuple(unseen))

    @property
    def tells(self) -> bool:
        """See Fence."""
        return bool(self.observe_argv)

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
    _entered: set[str] = PrivateAttr(default_factory=set)
    """Machines, by name, that could be entered before the source was lost."""

    def check(self, gap: Gap) -> None:
        """See Fence: nft itself checks the rules, and who it is asked by."""
        networks = _networks(gap)
        rules = nftables.ruleset(_table(gap), networks, 1)

        def check(host: Host) -> None:
            self._nft(host, "--check", "--file", "-", said=rules)
            self._entered.add(host.name)
            self._alone(gap, host)
            said = host.run(["sh", "-c", 'echo "$SSH_CONNECTION"'], check=False).text.split()
            if said and any(ip_address(said[0]) in network for network in networks):
                raise OrchestratorInside(
                    f"farside comes there from {said[0]}, an address of {gap.source.name}",
                    operation="fence",
                    hint=f"run farside outside {gap.source.name}: the fence would shut it out",
                    subject="farside",
                )

        self._everywhere(gap, check)

    def cut(self, gap: Gap) -> datetime:
        """See Fence."""
        at, networks = datetime.now(UTC), _networks(gap)

        def raise_on(host: Host) -> None:
            self._alone(gap, host)
            watcher = self._watchers.get(host.name) or _Watcher(host, gap.rehearsal_id or "")
            self._watchers[host.name] = watcher
            self._entered.add(host.name)
            rules = nftables.ruleset(_table(gap), networks, watcher.port)
            self._nft(host, "--file", "-", said=rules)

        self._everywhere(gap, raise_on)
        return at

    def lift(self, gap: Gap) -> None:
        """See Fence. Without a rehearsal, what those have raised that do not live.

        Whose they are is known on the recovery hosts, where each leaves its claim: a machine
        besides, a vault's, may have those of other plans.
        """
        if gap.rehearsal_id is not None:
            ours = {_table(gap)}
        else:
            standing = self._everywhere(
                gap, lambda host: set(self._tables(host)), gap.recovery.hosts
            )
            ours = set().union(*standing) - {nftables.table_of(id) for id in gap.living}

        def lift_on(host: Host) -> None:
            for table in ours.intersection(self._tables(host)):
                # Added first: another sweep may have been faster.
                undo = f"add table inet {table}\ndelete table inet {table}\n"
                self._nft(host, "--file", "-", said=undo)
            if watcher := self._watchers.get(host.name):
                watcher.stop()

        if ours:
            self._everywhere(gap, lift_on)
        self._watchers.clear()

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
    def tells(self) -> bool:
        """See Fence."""
        return True

    @property
    def shuts_names(self) -> bool:
        """See Fence: a packet filter knows addresses."""
        return False

    def _noted(self, gap: Gap, host: Host) -> Iterator[Attempt]:
        """What the filter on a host has noted. Raises FenceGone, and as `_read`."""
        if _table(gap) not in self._tables(host):
            raise FenceGone(
                "the packet filter has been removed",
                operation="fence",
                domain=host.domain,
                host=host.name,
                hint="find out who did it: from then on the source could be reached",
            )
        self._alone(gap, host)
        words = ("--json", "list", "table", "inet", _table(gap))
        for call in self._read(host, lambda text: list(nftables.denied_calls(text)), *words):
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
        others = sorted({nftables.id_of(t) for t in self._tables(host) if t != _table(gap)})
        if others:
            raise FenceShared(
                f"the fence of rehearsal {', '.join(others)} stands there",
                operation="fence",
                domain=host.domain,
                host=host.name,
                hint="wait for its end; if it is dead, `python -m flows.sweep` of its plan",
            )

    def _tables(self, host: Host) -> list[str]:
        """The tables of rehearsals on a host; none where there is no nft to raise one."""
        try:
            return self._read(host, nftables.tables, *_LIST_TABLES)
        except FilterMissing:
            return []

    def _everywhere(
        self, gap: Gap, do: Callable[[Host], T], machines: Sequence[Host] | None = None
    ) -> list[T]:
        """Do it on each machine, side by side; raises the first error, at last.

        One that could not be entered before the loss is of no use to farside, nor to the source:
        preflight has said so.
        """
        machines = gap.recovery.machines() if machines is None else machines
        done = []
        with ThreadPoolExecutor(max_workers=len(machines), thread_name_prefix="fence") as pool:
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
            if error.exit_code in _NOT_RUN:
                hint = "install nftables there, or correct nft_argv of the fence in the plan"
                raise FilterMissing(error.message, subject=subject, hint=hint, **where) from None
            hint = "let the account run nft there: sudoers, or nft_argv of the fence in the plan"
            raise FenceNotRaised(error.message, subject=subject, hint=hint, **where) from None

    def _read(self, host: Host, read: Callable[[str], T], *words: str) -> T:
        said = self._nft(host, *words)
        try:
            return read(said)
        except (ValueError, KeyError) as error:
            raise FenceBroken(
                f"nft printed {said[:200]!r}: {error}",
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

    def cut(self, gap: Gap) -> datetime:
        """See Fence."""
        return min([fence.cut(gap) for fence in self.fences])

    def lift(self, gap: Gap) -> None:
        """See Fence. All are tried; of several failures, that of the one raised first is told."""
        failure: FarsideError | None = None
        for fence in reversed(self.fences):
            try:
                fence.lift(gap)
            except FarsideError as error:
                failure = error
        if failure is not None:
            raise failure

    def attempts(self, gap: Gap) -> Observed:
        """See Fence."""
        return _together([fence.attempts(gap) for fence in self.fences])

    @property
    def tells(self) -> bool:
        """See Fence: each sees what the others may not."""
        return any(fence.tells for fence in self.fences)

    @property
    def shuts_names(self) -> bool:
        """See Fence."""
        return any(fence.shuts_names for fence in self.fences)


AnyFence = Annotated[CommandFence | NftablesFence | SeveralFences, Field(discriminator="kind")]
"""Any kind of fence, told apart by `kind`."""

_NOT_RUN = (126, 127)
_LIST_TABLES = ("--json", "list", "tables")


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

    def _hear(self, event: Listening | Caught) -> None:
        if isinstance(event, Listening):
            self._ports.put(event.port)
        else:
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
    return nftables.table_of(gap.rehearsal_id or "")


def _networks(gap: Gap) -> list[nftables.Network]:
    """The source's networks, and the addresses at which it answers outside of them."""
    found: list[nftables.Network] = list(gap.source.networks)
    for host, _ in gap.endpoints:
        with suppress(ValueError):  # a name: its addresses are for the plan's networks to say
            address = ip_address(host)
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
