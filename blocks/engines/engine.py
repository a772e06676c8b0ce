"""The contract of an engine: what a database must be able to do to be rehearsed.

`docs/adding-an-engine.md` is the guide for adding one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from blocks.artifact.manifest import LogIndex, Manifest
from blocks.block import StrictBlock
from blocks.domain import FailureDomain
from blocks.engines.facts import Facts
from blocks.engines.restoration import Restoration, Steps
from blocks.engines.restored import Restored
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding
from blocks.evidence.record import Node, RunbookStep
from blocks.materials import Material
from blocks.ownership import Belongings
from blocks.repositories.farside.writer import SetWriter


class LeftElsewhere(PermanentError):
    """What a capture made in the source may be on a server that does not answer any more."""

    finding = FindingId.LEFTOVERS


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


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture learned: stored in the manifest."""

    taken_at: datetime
    completed_at: datetime
    facts: Facts


class Engine(StrictBlock, ABC):
    """One kind of database, as a plan describes it; it holds no connection.

    A subclass is one package in this folder. What only some engines can do is in `abilities`.
    Findings are made without a stage: the caller knows in which it asked.
    """

    label: ClassVar[str]
    """The `kind` by which a plan names it."""
    takes: ClassVar[frozenset[Material]]
    """What it restores from; what its own capture makes is one of these."""
    version_words: ClassVar[Mapping[str, str]] = {}
    """Programs of it that do nothing else when they are asked for their version, and the word that
    asks each. Others are never run for it."""
    without_rows: ClassVar[str] = ""
    """Why a plan's search_rows means nothing to it; empty where it does."""

    @property
    @abstractmethod
    def source_hosts(self) -> tuple[tuple[str, str], ...]:
        """Each part of the plan that names a host of the source, and the name."""

    @property
    @abstractmethod
    def source_endpoints(self) -> list[tuple[str, int]]:
        """Address and port of every source server: none may answer once it is lost.

        Empty for a database without a server.
        """

    @property
    @abstractmethod
    def predicted_nodes(self) -> tuple[Node, ...]:
        """The nodes that a restore will make; the port is 0 where nothing listens."""

    @property
    def passwords(self) -> tuple[str, ...]:
        """Names, in the recovery vault, of the passwords that the restored service is used with."""
        return ()

    def check_hosts(self, source: FailureDomain, recovery: FailureDomain) -> None:
        """The plan names only hosts of its domains. Raises ValueError."""
        for domain, part, name in (
            *((source, part, name) for part, name in self.source_hosts),
            *((recovery, "target", node.host) for node in self.predicted_nodes),
        ):
            known = sorted(host.name for host in domain.hosts)
            if name not in known:
                raise ValueError(
                    f"engine.{part}: {name!r} is not a host of {domain.name} ({', '.join(known)})"
                )

    @abstractmethod
    def survey(self, source: FailureDomain) -> Facts:
        """What the live source is. Reads only. Raises PermanentError, TransientError."""

    @abstractmethod
    def read_facts(self, said: Mapping[str, Any]) -> Facts:
        """The facts of a manifest. Raises PermanentError unless a restore can be made of them.

        They are the source's word: nothing is made of them, no path, no command and no line of a
        configuration, before they are checked. What an older set does not say is not known.
        """

    @abstractmethod
    def requirements(self, facts: Facts) -> tuple[Requirements, ...]:
        """What each recovery host must have to restore a source with these facts."""

    @abstractmethod
    def compare(
        self, facts: Facts, recovery: FailureDomain, foreign: Belongings
    ) -> Iterator[Finding]:
        """Versions, extensions, libraries and settings of the source against the recovery hosts.

        `foreign` is what belongs to the source by address, name or path: no setting may need it.
        What needs no host comes first: one that does not answer hides only the rest.
        """

    @abstractmethod
    def capture(
        self, source: FailureDomain, sink: SetWriter, facts: Facts, steps: Steps
    ) -> Captured:
        """Stream a consistent backup into `sink`, sealed, and start following the log."""

    @abstractmethod
    def clean_source(self, source: FailureDomain, rehearsal_id: str) -> list[str]:
        """Remove what a capture made inside the source; returns what was removed.

        Called after the fence is lifted, and by the sweep: it is idempotent. Raises LeftElsewhere
        where the source that answers may not be the one in which it was made.
        """

    @abstractmethod
    def leftovers(self, source: FailureDomain) -> list[str]:
        """Ids of rehearsals that left something in the source that nothing uses now. Reads only.

        The sweep asks: such a rehearsal may have left nothing anywhere else.
        """

    @abstractmethod
    def restore(self, using: Restoration) -> Restored:
        """Bring the service up from the set, isolated. Raises PermanentError, TransientError."""

    @abstractmethod
    def runbook(
        self, manifest: Manifest, log: LogIndex, recovery: FailureDomain
    ) -> tuple[RunbookStep, ...]:
        """The commands that restore this very set by hand, without farside."""
