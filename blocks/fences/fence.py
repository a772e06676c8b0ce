"""What every fence can do, and how it fails."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict

from blocks.agent.redaction import redacted
from blocks.block import DomainPart
from blocks.domain import FailureDomain
from blocks.errors import FarsideError, PermanentError
from blocks.evidence.catalogue import FindingId

T = TypeVar("T")


class FenceBroken(PermanentError):
    """The fence's commands do not answer as they must."""


class FenceNotRaised(PermanentError):
    """A host takes no packet filter: the source could be reached from there."""

    finding = FindingId.FENCE_LEAKS


class FenceGone(PermanentError):
    """A packet filter that was raised is not there any more."""

    finding = FindingId.FENCE_LEAKS


class WorksForSource(PermanentError):
    """A host of the recovery side keeps a connection to the source that a filter would cut."""

    finding = FindingId.RECOVERY_IS_SOURCE


class FenceShared(PermanentError):
    """Another rehearsal's packet filter stands on a machine: its watcher would get the calls."""

    finding = FindingId.TARGET_OCCUPIED


class FilterMissing(PermanentError):
    """A host has no nft, or not the command that is to run it."""

    finding = FindingId.TOOL_MISSING


class RecoveryIsSource(PermanentError):
    """A machine of the recovery side is the source's by its own addresses."""

    finding = FindingId.RECOVERY_IS_SOURCE


class OrchestratorInside(PermanentError):
    """farside itself runs in the domain that is to be cut off."""

    finding = FindingId.CONTROL_PLANE_IN_SOURCE


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
    """What a fence stands between, and for which rehearsal (None: for any)."""

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


class Fence(DomainPart, ABC):
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


def when(attempt: Attempt) -> datetime:
    """When an attempt was seen: what attempts are sorted by."""
    return attempt.at


def together(parts: Iterable[Observed]) -> Observed:
    """What several have seen."""
    parts = list(parts)
    attempts = sorted((item for part in parts for item in part.attempts), key=when)
    return Observed(tuple(attempts), tuple(error for part in parts for error in part.unseen))
