"""The contract of a restored service: it is asked, searched and stopped."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from blocks.engines.checks import CheckSpec, SqlQuestion, Ticks
from blocks.engines.restoration import Restoration
from blocks.evidence.findings import Finding
from blocks.evidence.record import Check, Node
from blocks.ownership import Belongings

ROWS_NOT_SEARCHED = "addresses of the source in the rows of tables, unless the plan has search_rows"
"""What an engine does not verify that searches rows on request only."""


@dataclass(frozen=True, slots=True)
class References:
    """What in a restored service names something of the source, and what could not be searched.

    Anything `unseen` makes the check `dependencies` unknown. What is never searched is in
    `Restored.not_verified` instead.
    """

    found: tuple[Finding, ...] = ()
    unseen: tuple[str, ...] = ()


class Restored(ABC):
    """A restored service: running, isolated, in the recovery domain's own shape.

    It knows what it was made from, its hosts, sockets and secrets. A plain class: Prefect looks
    into data classes that are parameters. Every method raises FarsideError where the service
    cannot be asked.
    """

    def __init__(
        self,
        using: Restoration,
        *,
        nodes: tuple[Node, ...],
        host: str,
        reach: str,
        checks: tuple[Check, ...] = (),
    ) -> None:
        self.using = using
        self.nodes = nodes
        """What it consists of by its own word, not by the plan's."""
        self.host = host
        """The recovery host of the node that clients write to."""
        self.reach = reach
        """How a person reaches it; shown by --keep."""
        self.checks = checks
        """What was checked on the way, and cannot be asked later."""

    @property
    @abstractmethod
    def not_verified(self) -> list[str]:
        """What of this service no check of its engine looks at, a phrase each. Asks nothing."""

    @abstractmethod
    def usable(self, questions: Sequence[SqlQuestion]) -> Iterator[CheckSpec]:
        """What must hold before users may come: these checks end the recovery time.

        Isolation, a cluster of its own, replay to the end, a login, the plan's `questions`, a
        write that commits, nodes that are attached and follow.
        """

    @abstractmethod
    def integrity(self) -> Iterator[CheckSpec]:
        """What proves the data: indexes, pages, counts, definitions, privileges."""

    def failover(self) -> CheckSpec | None:
        """Kill a node and prove that the others serve; None where the shape does not allow it.

        The last that is asked of a service: it is not whole afterwards.
        """
        return None

    @abstractmethod
    def query(self, database: str, query: str) -> str:
        """The one value that a query yields."""

    @abstractmethod
    def newest_transaction(self) -> datetime | None:
        """Time of the newest transaction in the restored data; None if it cannot be known."""

    @abstractmethod
    def heartbeat(self, database: str, table: str) -> Ticks:
        """What the restored heartbeat table holds."""

    @abstractmethod
    def references(self, foreign: Belongings) -> References:
        """What in the service names something `foreign`: the object, and the line."""

    def end_of_replay(self) -> int | None:
        """Up to where the source's log was replayed; None if not known, or there is no log."""
        return None

    @abstractmethod
    def stop(self) -> None:
        """Stop it at once, if it is still this rehearsal's. The sweep removes its files."""
