"""What a restore is given: a set, the recovery domain's own means, and a clock."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import SecretStr

from blocks.artifact.manifest import LogIndex, Manifest
from blocks.domain import FailureDomain
from blocks.engines.facts import Facts
from blocks.evidence.record import Node
from blocks.hosts.host import Host
from blocks.repositories.farside.reader import SetReader


class StepHandle(Protocol):
    """A step being timed. `bytes` may be set while it runs."""

    bytes: int | None


class Steps(Protocol):
    """Where an engine says which step it is in; the time is taken there."""

    def step(self, name: str, *, grows: bool = False) -> AbstractContextManager[StepHandle]:
        """Time what happens inside as the step `name` of the current stage.

        `grows`: its time grows with the size of the data; see `blocks.evidence.record.Step`.
        """
        ...


class Spread(Protocol):
    """Does the same for several nodes at once."""

    def __call__(self, do: Callable[[Node], None], nodes: Sequence[Node]) -> None:
        """Call `do` for each node, side by side; raises the first error when all have ended."""
        ...


@dataclass(frozen=True, slots=True)
class Restoration:
    """All that a restore may use. Nothing in here comes from the source domain."""

    rehearsal_id: str
    recovery: FailureDomain
    reader: SetReader
    manifest: Manifest
    facts: Facts
    """The manifest's, as the engine has read them."""
    log: LogIndex
    identity: SecretStr
    steps: Steps
    spread: Spread
    last_look: Any = None
    """What the engine saw just before the source's loss; None where it was not asked then."""
    search_rows: float = 0.0
    """Seconds in which the rows of tables are searched for the source; none are with 0."""

    def host(self, name: str) -> Host:
        """A recovery host that Requirements named."""
        return self.recovery.host(name)

    def work(self, host: Host) -> str:
        """Directory of this rehearsal on a recovery host; it exists, mode 0700."""
        return f"{host.work_root}/{self.rehearsal_id}"
