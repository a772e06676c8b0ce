"""The drills: for each assumption of the catalogue, how it is broken in the lab, and mended."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from blocks.plan.model import Plan
from deployments.lab.drills.ground import Ground
from deployments.lab.drills.live import Live
from deployments.lab.places import Places
from deployments.lab.site import Site

Break = Callable[[Ground], Iterator[None]]


@dataclass(frozen=True, slots=True)
class Drill:
    """Breaks the assumption `id` and nothing else.

    `stage` is the one that can see it, `what` says how it is broken. `select` is the backup that is
    rehearsed: a fresh one where what is broken must be in it, or is seen on the source only.
    """

    id: str
    stage: str
    what: str
    select: str
    broken: Callable[[Ground], AbstractContextManager[None]]


COMMON: dict[str, Drill] = {}
"""What is broken in the same way whatever the database; a board's own drill of an id goes first."""


@dataclass(frozen=True, slots=True)
class Board:
    """The drills of one plan of the lab.

    `live` makes its database as drills see it. `together` are those that can share a rehearsal:
    none of them ends it before another's stage. `undrilled` are assumptions of the catalogue that
    this plan's engine cannot break, and why. `whole` boards have the common drills as well.
    """

    live: Callable[[Places, Site, Plan], Live]
    together: Collection[Collection[str]]
    undrilled: Mapping[str, str]
    whole: bool = True
    drills: dict[str, Drill] = field(default_factory=dict)

    def drill(
        self, drill_id: str, stage: str, *, select: str = "latest"
    ) -> Callable[[Break], Break]:
        """As `drill`, of this plan alone."""
        return _registering(self.drills, drill_id, stage, select)


def drill(drill_id: str, stage: str, *, select: str = "latest") -> Callable[[Break], Break]:
    """Make a generator that breaks something, yields, and mends it, the drill of `drill_id`.

    Its docstring is what the board says of it.
    """
    return _registering(COMMON, drill_id, stage, select)


def _registering(
    drills: dict[str, Drill], drill_id: str, stage: str, select: str
) -> Callable[[Break], Break]:
    def register(breaks: Break) -> Break:
        what = (breaks.__doc__ or drill_id).strip().rstrip(".")
        drills[drill_id] = Drill(drill_id, stage, what, select, contextmanager(breaks))
        return breaks

    return register


ONE_PART = (
    {
        "ca-unknown",
        "credential-refused",
        "copy-is-cold",
        "store-region-hard-coded",
        "store-unreachable",
        "object-corrupt",
        "object-missing",
    },
    {"manifest-forged", "incomplete-restore", "disk-too-small"},
    {"set-of-another-plan", "key-rotated-away"},
    {"key-only-in-source", "key-stale"},
    # Nobody can look at a host that cannot be entered.
    {
        "host-unreachable",
        "ssh-trust-missing",
        "tool-missing",
        "engine-version",
        "extension-missing",
        "library-preloaded",
        "port-taken",
        "target-occupied",
        "disk-too-small",
        "clock-skew",
        "tool-fetched-from-source",
        "tool-linked-to-source",
        "storage-from-source",
        "leftovers",
    },
    {"restore-failed", "setting-too-low"},
    # Some servers tell of a table that it is damaged, whatever of it is.
    {"index-corrupt", "page-corrupt"},
    # Without a login, no secret is tried on what it would read.
    {"login-missing", "app-secret-missing"},
    # With one member dead, or one that never was, nothing else is whole.
    {"node-count-differs", "peer-list-stale", "incomplete-restore", "usable-not-restored"},
    # A standby that is dead shows nothing else; of two, one must be left to take over.
    {"node-count-differs", "placement-dropped", "peer-list-stale", "source-used"},
    {"node-count-differs", "login-missing", "archive-into-production"},
)
"""Drills that change the same part of the world, or hide it: not two of them at once."""

ONE_REHEARSAL = {
    "use-unattributed": "needs a network file system of neither domain; its test is in tests/tasks",
    "many-at-once": "one rehearsal cannot see it",
    "store-not-writable": "the lab's stores refuse nothing; its test is in tests/tasks",
}
"""Reasons why no rehearsal of the lab can break an assumption."""
NO_LOG = {
    "log-not-followed": "no log is followed",
    "log-retention-unbounded": "it keeps no log for anything",
    "source-not-archiving": "it archives no log",
    "source-at-limit": "a backup of it takes neither senders nor slots",
    "log-replay-short": "it replays no log",
}
"""Reasons of a database whose backups need no log."""
