"""The drills: for each assumption of the catalogue, how it is broken in the lab, and mended."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from deployments.lab.drills.ground import Ground

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


DRILLS: dict[str, Drill] = {}
"""All drills by id."""

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
        "leftovers",
    },
    {"restore-failed", "setting-too-low"},
)
"""Drills that change the same part of the world, or hide it: not two of them at once."""

TOGETHER = (
    (
        "key-stale",
        "key-rotated-away",
        "setting-too-low",
        "control-plane-in-source",
        "name-resolves-to-source",
        "copy-behind",
        "leftovers",
    ),
    (
        "credential-from-source",
        "clock-skew",
        "key-chain-in-source",
        "rto-missed",
        "bandwidth-insufficient",
        "check-failed",
    ),
    (
        "extension-missing",
        "library-preloaded",
        "path-hard-coded",
        "locale-changed",
        "address-hard-coded",
    ),
    ("restored-jobs-fire", "app-secret-missing", "login-missing"),
    ("source-used", "index-corrupt", "usable-not-restored", "archive-into-production"),
    ("page-corrupt", "incomplete-restore", "fence-stays", "rpo-missed"),
    (
        "key-only-in-source",
        "tool-missing",
        "tool-fetched-from-source",
        "target-occupied",
        "port-taken",
        "object-missing",
    ),
    ("engine-version", "copy-is-cold"),
    ("sealed-to-source-only", "fence-leaks"),
    ("host-unreachable", "manifest-forged"),
    ("ssh-trust-missing", "ca-unknown"),
)
"""Drills that can share a rehearsal: none of them ends it before another's stage."""

UNDRILLED = {
    "use-unattributed": "needs a network file system of neither domain; its test is in tests/tasks",
    "node-count-differs": "one PostgreSQL server has no other shape",
    "revision-reused": "one PostgreSQL server has timelines instead",
    "node-identity-reused": "one PostgreSQL server joins nobody",
    "peer-list-stale": "one PostgreSQL server has no peers",
    "placement-dropped": "one PostgreSQL server has no replicas",
    "many-at-once": "one rehearsal cannot see it",
}
"""Assumptions of the catalogue that this lab's engine cannot break, and why."""


def drill(id: str, stage: str, *, select: str = "latest") -> Callable[[Break], Break]:
    """Make a generator that breaks something, yields, and mends it, the drill of `id`.

    Its docstring is what the board says of it.
    """

    def register(breaks: Break) -> Break:
        what = (breaks.__doc__ or id).strip().rstrip(".")
        DRILLS[id] = Drill(id, stage, what, select, contextmanager(breaks))
        return breaks

    return register
