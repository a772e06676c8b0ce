"""The contract of an engine: what a database must be able to do to be rehearsed.

`docs/adding-an-engine.md` is the guide for adding one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol

from pydantic import SecretStr

from blocks.artifact.manifest import LogIndex, Manifest
from blocks.block import StrictBlock
from blocks.domain import FailureDomain
from blocks.engines.checks import SqlQuestion, Ticks
from blocks.errors import PermanentError
from blocks.evidence.findings import Finding
from blocks.evidence.record import Check, Node, RunbookStep, SourceNode
from blocks.hosts.host import Host
from blocks.ownership import Belongings
from blocks.repositories.farside.reader import SetReader
from blocks.repositories.farside.writer import SetWriter

Facts = Mapping[str, Any]
"""What an engine knows of a source: plain JSON, stored in the signed manifest."""


class LeftElsewhere(PermanentError):
    """What a capture made in the source may be on a server that does not answer any more."""

    finding = "leftovers"


class StepHandle(Protocol):
    """A step being timed. `bytes` may be set while it runs."""

    bytes: int | None


class Steps(Protocol):
    """Where an engine says which step it is in; the time is taken there."""

    def step(self, name: str) -> AbstractContextManager[StepHandle]:
        """Time what happens inside as the step `name` of the current stage."""
        ...


class Spread(Protocol):
    """Does the same for several nodes at once."""

    def __call__(self, do: Callable[[Node], None], nodes: Sequence[Node]) -> None:
        """Call `do` for each node, side by side; raises the first error when all have ended."""
        ...


@dataclass(frozen=True, slots=True)
class Requirements:
    """What one recovery host needs for its part in the restore of a set."""

    host: str
    programs: tuple[str, ...]
    directories: Mapping[str, int]
    """Directory that must be empty or absent -> bytes that it will take."""
    ports: tuple[tuple[str, int], ...]
    """Addresses and ports that the restored service will listen on."""
    work_bytes: int = 0
    """What it will take, beside those, in the rehearsal's own directory."""
    files: int = 0
    """How many files the largest of these directories will hold at least."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Directory -> the plan's field that puts it elsewhere, where it is not plain from its name."""


ROWS_NOT_SEARCHED = "addresses of the source in the rows of tables, unless the plan has search_rows"
"""What an engine does not verify that searches rows on request only."""


@dataclass(frozen=True, slots=True)
class Running:
    """What runs on a host, a phrase each: servers of the source, and those that do not say."""

    of_source: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """What the source itself says that it works with: a node of its own, or a receiver of its log.

    `awaited`: commits of the source may wait for it.
    """

    name: str
    address: str
    awaited: bool


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture learned: stored in the manifest."""

    taken_at: datetime
    completed_at: datetime
    facts: Facts


@dataclass(frozen=True, slots=True)
class Restoration:
    """All that a restore may use. Nothing in here comes from the source domain."""

    rehearsal_id: str
    recovery: FailureDomain
    reader: SetReader
    manifest: Manifest
    log: LogIndex
    identity: SecretStr
    steps: Steps
    spread: Spread
    last_look: Any = None
    """What `Engine.last_look` saw; None where the source was not asked just before its loss."""
    search_rows: float = 0.0
    """Seconds in which the rows of tables are searched for the source; none are with 0."""
    unseen: list[str] = field(default_factory=list)
    """What of the restored service could not be searched, for the record."""

    def host(self, name: str) -> Host:
        """A recovery host that Requirements named."""
        return self.recovery.host(name)

    def work(self, host: Host) -> str:
        """Directory of this rehearsal on a recovery host; it exists, mode 0700."""
        return f"{host.work_root}/{self.rehearsal_id}"


@dataclass(frozen=True, slots=True)
class Service:
    """A restored service: running, isolated, in the recovery domain's own shape."""

    rehearsal_id: str
    host: str
    """The node that clients write to: its host, address and port."""
    address: str
    port: int
    controls: Mapping[str, str]
    """How farside reaches each host's node as administrator, in the engine's own terms."""
    administrator: str
    """The account that farside uses there."""
    reach: str
    """How a person reaches it; shown by --keep."""
    nodes: tuple[Node, ...]
    checks: tuple[Check, ...] = ()
    """What was checked on the way, and cannot be asked later."""
    major: int = 0
    """The major version of its software, where it matters to the engine."""


class Engine(StrictBlock, ABC):
    """One kind of database. A subclass is one file in this folder, and nothing else changes."""

    label: ClassVar[str]
    """The `kind` by which a plan names it."""
    without_rows: ClassVar[str] = ""
    """Why a plan's search_rows means nothing to it; empty where it does."""

    @abstractmethod
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        """Each part of the plan that names a host of the source, and the name."""

    def check_hosts(self, source: FailureDomain, recovery: FailureDomain) -> None:
        """The plan names only hosts of its domains. Raises ValueError."""
        nodes = self.predicted_nodes(recovery)
        for domain, part, name in (
            *((source, part, name) for part, name in self.source_hosts()),
            *((recovery, "target", node.host) for node in nodes),
        ):
            known = sorted(host.name for host in domain.hosts)
            if name not in known:
                raise ValueError(
                    f"engine.{part}: {name!r} is not a host of {domain.name} ({', '.join(known)})"
                )

    @abstractmethod
    def source_endpoints(self, source: FailureDomain) -> list[tuple[str, int]]:
        """Address and port of every source server: none may answer once it is lost."""

    @abstractmethod
    def predicted_nodes(self, recovery: FailureDomain) -> tuple[Node, ...]:
        """The nodes that a restore will make."""

    @abstractmethod
    def survey(self, source: FailureDomain) -> Facts:
        """What the live source is. Reads only. Raises PermanentError, TransientError."""

    def check_facts(self, facts: Facts) -> None:
        """Raise PermanentError unless the facts of a manifest have the form that a restore needs.

        They are the source's word: nothing is made of them, no path, no command and no line of a
        configuration, before they are checked.
        """

    def source_nodes(self, facts: Facts) -> tuple[SourceNode, ...] | None:
        """What the source consisted of, each part by a name of its own; None if facts do not say.

        They say so as `nodes`, an object with the fields of SourceNode for each.
        """
        nodes = facts.get("nodes")
        return None if nodes is None else tuple(SourceNode(**node) for node in nodes)

    def peers(self, facts: Facts) -> tuple[Peer, ...]:
        """With what the live source works, wherever that runs: cut off, it would be missed."""
        nodes = self.source_nodes(facts) or ()
        return tuple(Peer(node.name, node.address, True) for node in nodes if node.address)

    @abstractmethod
    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        """What each recovery host must have to restore a source with these facts."""

    def passwords(self) -> tuple[str, ...]:
        """Names, in the recovery vault, of the passwords that the restored service is used with."""
        return ()

    @abstractmethod
    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        """Versions, extensions, libraries and settings of the source against the recovery hosts.

        `foreign` is what belongs to the source by address, name or path: no setting may need it.
        What needs no host comes first: one that does not answer hides only the rest.
        """

    def running(
        self,
        facts: Facts,  # noqa: ARG002 (an engine may know no server again)
        host: Host,  # noqa: ARG002
    ) -> Running:
        """Which servers of the source itself run on a recovery host. Reads only.

        What a rehearsal has restored there is none of them. Raises as `Host.run`.
        """
        return Running()

    def dangers(
        self,
        facts: Facts,  # noqa: ARG002 (an engine may know of none)
        source: FailureDomain,  # noqa: ARG002
    ) -> Iterator[Finding]:
        """What of the live source its owner should know before a capture burdens it."""
        yield from ()

    @abstractmethod
    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """Stream a consistent backup into `sink`, sealed, and start following the log."""

    def last_look(self, source: FailureDomain) -> Any:  # noqa: ARG002 (an engine may need none)
        """What tells later which of the facts still held when the source was lost; see Restoration.

        Asked last before the declaration, so it takes a few seconds at most. Reads only.
        """
        return None

    @abstractmethod
    def withdraw(self, source: FailureDomain, rehearsal_id: str) -> list[str]:
        """Remove what a capture made inside the source; returns what was removed.

        Called after the fence is lifted, and by the sweep: it must work a second time. Raises
        LeftElsewhere where the source that answers may not be the one in which it was made.
        """

    @abstractmethod
    def remains(self, source: FailureDomain) -> list[str]:
        """Ids of rehearsals that left something in the source that nothing uses now. Reads only.

        The sweep asks: such a rehearsal may have left nothing anywhere else.
        """

    @abstractmethod
    def restore(self, using: Restoration) -> Service:
        """Bring the service up from the set, isolated. Raises PermanentError, TransientError."""

    @abstractmethod
    def verify(
        self, service: Service, using: Restoration, questions: Sequence[SqlQuestion]
    ) -> Iterator[Check]:
        """Prove the service, one check after the other; a check that cannot run says so."""

    def survive(
        self,
        service: Service,  # noqa: ARG002 (a service of one node survives nothing)
        using: Restoration,  # noqa: ARG002 (nor needs anything for it)
    ) -> Iterator[Check]:
        """Kill a node, where the shape allows it, and prove that the others serve.

        The last that is asked of a service: it is not whole afterwards.
        """
        yield from ()

    @abstractmethod
    def value(self, service: Service, recovery: FailureDomain, database: str, query: str) -> str:
        """The one value that a query yields in the restored service. Raises FarsideError."""

    @abstractmethod
    def dependencies(
        self, service: Service, using: Restoration, foreign: Belongings
    ) -> list[Finding]:
        """What in the restored service names something `foreign`: the object, and the line."""

    def not_verified(self, facts: Facts) -> list[str]:  # noqa: ARG002 (an engine may miss nothing)
        """What of such a source no check of this engine looks at, a phrase each."""
        return []

    @abstractmethod
    def recovered_until(self, service: Service, recovery: FailureDomain) -> datetime | None:
        """Time of the newest transaction in the restored data; None if it cannot be known."""

    def end_of_log(self, source: FailureDomain) -> int | None:  # noqa: ARG002 (not every engine has a log)
        """Where the source's log ends; None where it is not known, or the engine has none.

        Raises FarsideError.
        """
        return None

    def end_of_replay(
        self,
        service: Service,  # noqa: ARG002 (as above)
        recovery: FailureDomain,  # noqa: ARG002 (as above)
    ) -> int | None:
        """Up to where the restored service had replayed the source's log; None if not known.

        Raises FarsideError.
        """
        return None

    @abstractmethod
    def ticks(
        self, service: Service, recovery: FailureDomain, database: str, table: str
    ) -> "Ticks":
        """What the restored heartbeat table holds."""

    @abstractmethod
    def destroy(self, service: Service, recovery: FailureDomain) -> None:
        """Stop the service at once. Files are removed by the sweep that follows."""

    @abstractmethod
    def runbook(
        self, manifest: Manifest, log: LogIndex, recovery: FailureDomain
    ) -> tuple[RunbookStep, ...]:
        """The commands that restore this very set by hand, without farside."""
