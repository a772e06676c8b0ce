"""What preflight has seen so far, and what of it stands in the way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding
from blocks.evidence.stages import StageName
from tasks.context import Rehearsal
from tasks.inspect.diagnose import diagnose

STAGE = StageName.PREFLIGHT

Look = Callable[[Rehearsal], Iterable[Finding]]


@dataclass(slots=True)
class Inspection:
    """Findings of preflight.

    `blockers` are those with which no restore can succeed; `ends` those that end the rehearsal
    before a backup is taken, as do all whose catalogue entry `stops`. `unseen` is what could not
    be looked at, and why.
    """

    found: list[Finding] = field(default_factory=list)
    blockers: list[Finding] = field(default_factory=list)
    ends: list[Finding] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[Finding]:
        """Every finding, those in the way first."""
        return [*self.ends, *self.blockers, *self.found]

    @property
    def stopping(self) -> tuple[Finding, ...]:
        """What ends the rehearsal before anything is made: it would endanger production."""
        return (*self.ends, *(item for item in (*self.blockers, *self.found) if item.stops))

    def leave_to(self, error: FarsideError) -> None:
        """Drop what was found of the host that an error, which ends the stage, is of: one cause."""
        one = (error.finding or FindingId.HOST_UNREACHABLE, f"{error.domain}/{error.host}")
        self.found = [item for item in self.found if (item.id, item.subject) != one]

    def look(self, rehearsal: Rehearsal, *looks: Look) -> None:
        """Note what looks find; one that breaks off is a finding as well, and the others go on."""
        self.found += _seen(rehearsal, looks)

    def look_for_blockers(self, rehearsal: Rehearsal, *looks: Look) -> None:
        """The same for what stands in the way of a restore."""
        self.blockers += _seen(rehearsal, looks)

    def look_for_ends(self, rehearsal: Rehearsal, *looks: Look) -> None:
        """The same for what makes it unsafe to go on."""
        self.ends += _seen(rehearsal, looks)


def _seen(rehearsal: Rehearsal, looks: Iterable[Look]) -> list[Finding]:
    found: list[Finding] = []
    for look in looks:
        try:
            found.extend(look(rehearsal))
        except FarsideError as error:
            found += diagnose(error, STAGE, rehearsal.source.name)
    return found
