"""What only some engines can say of a live source. An engine that can has these as base classes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from blocks.domain import FailureDomain
from blocks.engines.facts import Facts
from blocks.evidence.findings import Finding
from blocks.hosts.host import Host


@dataclass(frozen=True, slots=True)
class Running:
    """What runs on a host, a phrase each: servers of the source, and those that do not say."""

    of_source: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


class KnowsServers(ABC):
    """Knows a server of the source again, wherever it runs."""

    @abstractmethod
    def running(self, facts: Facts, host: Host) -> Running:
        """Which servers of the source itself run on a recovery host. Reads only.

        What a rehearsal has restored there is none of them. Raises as `Host.run`.
        """


class KnowsDangers(ABC):
    """Knows how a backup may harm the source."""

    @abstractmethod
    def dangers(self, facts: Facts, source: FailureDomain) -> Iterator[Finding]:
        """What of the live source its owner should know before a capture burdens it."""


class TakesLastLook(ABC):
    """Can ask the source again just before its loss."""

    @abstractmethod
    def last_look(self, source: FailureDomain) -> Any:
        """What tells later which of the facts still held at the loss: `Restoration.last_look`.

        Asked last before the declaration, so it takes a few seconds at most. Reads only.
        """


class HasLog(ABC):
    """The source has a log with positions."""

    @abstractmethod
    def end_of_log(self, source: FailureDomain) -> int | None:
        """Where the source's log ends; None where it is not known. Raises FarsideError.

        `Restored.end_of_replay` says up to where it was replayed.
        """
