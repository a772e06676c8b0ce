"""The drills: for each assumption of the catalogue, how it is broken in the lab, and mended."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from blocks.engines.registry import catalogue
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


@dataclass(frozen=True, slots=True)
class Board:
    """The drills of one plan of the lab.

    `together` are those that can share a rehearsal: none of them ends it before another's stage.
    `undrilled` are assumptions of the catalogue that this plan's engine cannot break, and why.
    """

    together: Collection[Collection[str]]
    undrilled: Mapping[str, str]
    drills: dict[str, Drill] = field(default_factory=dict)


POSTGRES, ETCD, GALERA = ("postgres",), ("etcd",), ("galera",)
"""Plans whose engine sees an assumption by ways of its own."""
STANDBYS = ("standbys",)
"""What only a shape of several PostgreSQL servers can break; `postgres` drills the others."""

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
    # MariaDB tells of a table that it is damaged, whatever of it is.
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

_POSTGRES_TOGETHER = (
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
        "address-hard-coded",
    ),
    ("locale-changed", "log-replay-short", "app-secret-missing"),
    ("locale-missing",),
    ("restored-jobs-fire", "login-missing"),
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
_ETCD_TOGETHER = (
    ("key-stale", "control-plane-in-source", "name-resolves-to-source", "revision-reused"),
    (
        "credential-from-source",
        "clock-skew",
        "key-chain-in-source",
        "rto-missed",
        "bandwidth-insufficient",
        "check-failed",
    ),
    ("address-hard-coded", "path-hard-coded", "source-used", "usable-not-restored"),
    ("login-missing", "node-count-differs"),
    ("incomplete-restore", "node-identity-reused", "fence-stays", "rpo-missed"),
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
    ("object-corrupt", "key-rotated-away", "copy-behind", "leftovers"),
)
_GALERA_TOGETHER = (
    (
        "address-hard-coded",
        "path-hard-coded",
        "source-used",
        "node-identity-reused",
        "peer-list-stale",
        "placement-dropped",
    ),
    ("node-count-differs", "app-secret-missing", "fence-stays"),
    (
        "port-taken",
        "target-occupied",
        "key-only-in-source",
        "tool-missing",
        "tool-fetched-from-source",
        "object-missing",
    ),
    (
        "name-resolves-to-source",
        "key-stale",
        "control-plane-in-source",
        "library-preloaded",
        "extension-missing",
    ),
    (
        "credential-from-source",
        "clock-skew",
        "key-chain-in-source",
        "rto-missed",
        "bandwidth-insufficient",
        "check-failed",
    ),
    ("usable-not-restored", "restored-jobs-fire", "page-corrupt"),
    ("login-missing", "index-corrupt"),
    ("incomplete-restore", "rpo-missed"),
    ("engine-version", "copy-is-cold"),
    ("sealed-to-source-only", "fence-leaks"),
    ("host-unreachable", "manifest-forged"),
    ("ssh-trust-missing", "ca-unknown"),
    ("object-corrupt", "key-rotated-away", "copy-behind", "leftovers"),
)
# All of its drills: what keeps a standby from following leaves another one that does.
_STANDBYS_TOGETHER = (
    ("port-taken", "target-occupied", "tool-missing", "engine-version", "disk-too-small"),
    ("node-count-differs", "page-corrupt", "address-hard-coded"),
    ("placement-dropped", "source-used"),
    ("peer-list-stale", "archive-into-production", "login-missing"),
)

_ONE_REHEARSAL = {
    "use-unattributed": "needs a network file system of neither domain; its test is in tests/tasks",
    "many-at-once": "one rehearsal cannot see it",
    "store-not-writable": "the lab's stores refuse nothing; its test is in tests/tasks",
}
_NO_LOG = {
    "log-not-followed": "no log is followed",
    "log-retention-unbounded": "it keeps no log for anything",
    "source-not-archiving": "it archives no log",
    "source-at-limit": "a backup of it takes neither senders nor slots",
    "log-replay-short": "it replays no log",
}
_POSTGRES_UNDRILLED = _ONE_REHEARSAL | {
    "node-count-differs": "one PostgreSQL server has no other shape",
    "revision-reused": "one PostgreSQL server has timelines instead",
    "service-more-open": "the restore writes a pg_hba.conf that asks each role for a password",
    "node-identity-reused": "one PostgreSQL server joins nobody",
    "peer-list-stale": "one PostgreSQL server has no peers",
    "placement-dropped": "one PostgreSQL server has no replicas",
}
_ETCD_UNDRILLED = (
    _ONE_REHEARSAL
    | _NO_LOG
    | {
        "access-from-source-only": "etcd lets in by certificate, from anywhere",
        "extension-missing": "etcd has no extensions",
        "library-preloaded": "etcd loads no libraries",
        "locale-changed": "etcd sorts bytes",
        "locale-missing": "etcd knows no locales",
        "setting-too-low": "no setting of a member must be as high as the source's",
        "placement-dropped": "every member of etcd holds everything",
        "log-gap": "etcd is restored to a snapshot, without a log",
        "index-corrupt": "a member makes its index anew whenever it starts",
        "page-corrupt": "etcd's pages have no checksums: the hash of all keys is compared",
        "archive-into-production": "etcd archives nothing",
        "restored-jobs-fire": "nothing in etcd runs by itself but the end of leases",
    }
)
_GALERA_UNDRILLED = (
    _ONE_REHEARSAL
    | _NO_LOG
    | {
        "access-from-source-only": "an account's host is part of its name: address-hard-coded",
        "locale-changed": "MariaDB has collations of its own: its version is compared",
        "locale-missing": "MariaDB has locales of its own",
        "setting-too-low": "what the data needs is set as it was in the source",
        "revision-reused": "clients of MariaDB watch no revisions",
        "log-gap": "Galera is restored to a backup, without a log",
        "archive-into-production": "MariaDB archives nothing",
    }
)
_STANDBYS_UNDRILLED = {
    id: reason
    for id, reason in (
        dict.fromkeys(catalogue(), "the board of one server, postgres, drills it")
        | _POSTGRES_UNDRILLED
        | {"node-identity-reused": "every copy of a PostgreSQL cluster has its identifier"}
    ).items()
    if not any(id in group for group in _STANDBYS_TOGETHER)
}

BOARDS = {
    "postgres": Board(_POSTGRES_TOGETHER, _POSTGRES_UNDRILLED),
    "etcd": Board(_ETCD_TOGETHER, _ETCD_UNDRILLED),
    "galera": Board(_GALERA_TOGETHER, _GALERA_UNDRILLED),
    "standbys": Board(_STANDBYS_TOGETHER, _STANDBYS_UNDRILLED),
}
"""What is drilled, by the plan's name."""
WHOLE = tuple(plan for plan in BOARDS if plan not in STANDBYS)
"""Plans that are drilled in all that their databases can break."""


def drill(
    id: str, stage: str, *, select: str = "latest", plans: Collection[str] = WHOLE
) -> Callable[[Break], Break]:
    """Make a generator that breaks something, yields, and mends it, the drill of `id`.

    Its docstring is what the board says of it.
    """

    def register(breaks: Break) -> Break:
        what = (breaks.__doc__ or id).strip().rstrip(".")
        made = Drill(id, stage, what, select, contextmanager(breaks))
        for plan in plans:
            BOARDS[plan].drills[id] = made
        return breaks

    return register
