"""What a record is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated

from pydantic import Field, computed_field

from blocks.evidence.catalogue import FindingId
from blocks.evidence.moments import Moment
from blocks.evidence.schema import DESCRIBED


class Verdict(StrEnum):
    """What the rehearsal showed."""

    VERIFIED = "verified"
    """Every stage ran and every check passed."""
    PARTIAL = "partial"
    """The service came up and nothing failed, but something could not be checked or removed."""
    COULD_NOT_VERIFY = "could-not-verify"
    """The rehearsal did not get far enough to show anything, good or bad."""
    FAILED = "failed"
    """Recovery does not work: a stage of it, a check, or an assumption that it stands on."""


class CheckStatus(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    """The answer is the expected one."""
    FAILED = "failed"
    """It is another one."""
    UNKNOWN = "unknown"
    """The check could not run. It never counts as passed."""


class StageState(StrEnum):
    """How a stage ended."""

    COMPLETED = "completed"
    """It did all its work."""
    FAILED = "failed"
    """An error or a broken assumption ended it."""
    SKIPPED = "skipped"
    """It was not reached, or had nothing to do."""
    CANCELLED = "cancelled"
    """A signal, or Prefect, ended it."""


@dataclass(frozen=True, slots=True)
class Step:
    """A timed part of a stage."""

    __pydantic_config__ = DESCRIBED

    name: str
    """What is timed, in the engine's own words."""
    started_at: Moment
    """When it began."""
    ended_at: Moment | None
    """When it ended."""
    seconds: float | None
    """From its start to its end."""
    bytes: int | None = None
    """What it moved."""
    attempt: int = 1
    """The stage's attempt that it belongs to, from 1."""
    grows: bool = False
    """Its time grows with the size of the data; that of other steps is taken as fixed."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the rehearsal; one that was skipped has no times and no attempts."""

    __pydantic_config__ = DESCRIBED

    name: str
    """Which stage; see Stages."""
    state: StageState
    """How it ended."""
    started_at: Moment | None = None
    """When its first attempt began."""
    ended_at: Moment | None = None
    """When its last attempt ended."""
    seconds: float | None = None
    """From the first attempt's start to the last one's end, waits included."""
    attempts: int = 0
    """How often it was tried."""
    bytes: int | None = None
    """What it moved."""
    steps: tuple[Step, ...] = ()
    """Its timed parts, in order."""
    error: str | None = None
    """Why it did not complete."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked of the restored service."""

    __pydantic_config__ = DESCRIBED

    name: str
    """What was asked."""
    status: CheckStatus
    """How it ended."""
    expected: str | None = None
    """The only answer that passes."""
    actual: str | None = None
    """The answer."""
    detail: str | None = None
    """How it was asked, or why it could not be."""
    seconds: tuple[float, float] | None = None
    """Of the plan's own checks: of the first answer, and of the same query repeated."""
    subjects: tuple[str, ...] = ()
    """The things that failed, by name, where the check can tell them apart. Each is a finding
    with the id `finding` and its own `evidence`, which are not repeated here."""
    finding: Annotated[str, Field(exclude=True)] = field(
        default=FindingId.CHECK_FAILED, compare=False
    )
    evidence: Annotated[Mapping[str, str], Field(exclude=True)] = field(
        default_factory=dict, compare=False
    )


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One running part of the service."""

    __pydantic_config__ = DESCRIBED

    host: str
    """Name of its host in the recovery domain."""
    role: str
    """What it does, in the engine's own words."""
    address: str
    """Where it answers."""
    port: int
    """TCP port there."""


@dataclass(frozen=True, slots=True)
class SourceNode:
    """One part of what was backed up, as the source itself said; null is what it did not say."""

    __pydantic_config__ = DESCRIBED

    name: str
    """Its name in the source."""
    role: str
    """What it did, in the engine's own words."""
    address: str | None = None
    """Where it answered."""
    port: int | None = None
    """TCP port there."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A node of the source, and the recovery host whose node takes its place."""

    __pydantic_config__ = DESCRIBED

    source: str | None
    """Name of the source's node; null: the recovery's node has no origin."""
    recovery: str | None
    """Name of the recovery host; null: the source's node is not replaced."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A host whose node is not as predicted: not there, not predicted, or another one."""

    __pydantic_config__ = DESCRIBED

    host: str
    """Name of the recovery host."""
    predicted: Node | None
    """The node that it was to have."""
    observed: Node | None
    """The node that it has."""

    @property
    def moved(self) -> bool:
        """Whether there is a node, but in another role or at another address."""
        return self.predicted is not None and self.observed is not None


@dataclass(frozen=True, slots=True)
class Topology:
    """The shape that the recovery was to have, and the one it had; null where it is not known."""

    __pydantic_config__ = DESCRIBED

    predicted: tuple[Node, ...] | None = None
    """The nodes that the plan's target has."""
    observed: tuple[Node, ...] | None = None
    """The nodes that the restored service says it has."""
    source: tuple[SourceNode, ...] | None = None
    """The nodes that the backup was taken from."""
    mapping: tuple[Counterpart, ...] | None = None
    """Which recovery node takes the place of which of the source."""

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def difference(self) -> tuple[Difference, ...] | None:
        """Where predicted and observed differ, by host; null where one of them is not known."""
        if self.predicted is None or self.observed is None:
            return None
        missing, more = set(self.predicted), set(self.observed)
        missing, more = missing - more, more - missing
        found = []
        for host in sorted({node.host for node in missing | more}):
            here = (sorted(n for n in nodes if n.host == host) for nodes in (missing, more))
            found += [Difference(host, *pair) for pair in zip_longest(*here)]
        return tuple(found)

    @property
    def as_predicted(self) -> bool | None:
        """Whether both are the same set of nodes; None if one of them is not known."""
        return None if self.difference is None else not self.difference


@dataclass(frozen=True, slots=True)
class BackupSetSummary:
    """The backup set that was restored."""

    __pydantic_config__ = DESCRIBED

    id: str
    """Its id: that of the rehearsal that took it."""
    taken_at: Moment | None
    """When it was taken."""
    bytes: int | None
    """What is stored of it, sealed."""
    selection: str
    """How it was chosen: fresh, latest, oldest, random, or an id."""
    raw_bytes: int | None = None
    """What comes out of it."""
    manifest_digest: str | None = None
    """SHA-256 of its manifest."""
    log_sequence: int | None = None
    """Number of the index of its log: a later rehearsal of the same set must not meet a lower
    one."""


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What was rehearsed."""

    __pydantic_config__ = DESCRIBED

    name: str
    """The plan's name."""
    digest: str
    """Identifies what the plan sets, without description, owners, schedule, accepted risks and
    retention."""
    engine: str
    """The engine's `kind`."""
    source: str
    """Name of the domain that is lost."""
    recovery: str
    """Name of the domain that recovers."""


@dataclass(frozen=True, slots=True)
class RunbookStep:
    """One thing to do by hand, without farside."""

    __pydantic_config__ = DESCRIBED

    title: str
    """What for."""
    commands: tuple[str, ...]
    """The exact commands."""
    where: str = ""
    """Name of the host, as DOMAIN/HOST; empty for any."""
