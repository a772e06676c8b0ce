"""What etcd's facts of a source are: its cluster, its accounts and leases, and its snapshot."""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from blocks.engines.common.tally import NOT_ASKED
from blocks.engines.facts import Facts, parsed
from blocks.errors import PermanentError
from blocks.evidence.record import SourceNode

_VERSION = re.compile(r"\d+\.\d+\.\d+[\w.+-]*", re.ASCII)
_OPTIONAL = frozenset(
    {"leases_at", "client_certificates", "alarms", "below_prefix", "granted", "since", "snapshot"}
)
"""Facts that older sets lack, or a survey."""
_COUNTED = frozenset({"at_source", "below_prefix"})
"""Parts of a snapshot that a source does not tell which has compacted its revision."""


@dataclass(frozen=True, slots=True)
class SourceMember:
    """A member of the source; one that has not started yet has no name."""

    name: str
    id: str
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LastLook:
    """Parts of the survey as they were last; None: it could not be asked again."""

    alarms: tuple[str, ...] | None = None
    auth: bool | None = None
    users: tuple[str, ...] | None = None
    roles: tuple[str, ...] | None = None
    granted: Mapping[str, str] | None = None

    def had_user(self, name: str) -> object:
        """Whether there was a user of this name; NOT_ASKED where it is not known."""
        return NOT_ASKED if self.users is None else name in self.users

    def had_role(self, name: str) -> object:
        """Whether there was a role of this name; NOT_ASKED where it is not known."""
        return NOT_ASKED if self.roles is None else name in self.roles

    def grant_of(self, label: str) -> object:
        """What a user or a role was granted; NOT_ASKED where it is not known."""
        return (self.granted or {}).get(label, NOT_ASKED)

    def asked_for_login(self) -> object:
        """Whether clients were asked for a user; NOT_ASKED where it is not known."""
        return NOT_ASKED if self.auth is None else self.auth


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is in the snapshot's file. None: its form was not known, or the set is older.

    `digest` is of all keys, `lasting` of those without a lease, `largest` the bytes of the largest
    key with its value. `at_source` and `below_prefix` are how many keys the source counted at the
    snapshot's revision.
    """

    revision: int
    keys: int
    bytes: int
    compacted: int | None = None
    largest: int | None = None
    digest: str | None = None
    lasting: str | None = None
    live: int | None = None
    at_source: int | None = None
    below_prefix: int | None = None

    @property
    def newest(self) -> int:
        """The revision at which its keys are to be asked for.

        It is the compacted one, if that is newer than any that is kept.
        """
        return max(self.revision, self.compacted or 0)


@dataclass(frozen=True, slots=True)
class EtcdFacts(Facts):
    """The source at its survey; `since` and `snapshot` are the capture's.

    `bytes` is the size of its database. `leases` are the seconds of the first leases, as granted,
    by id, as they were at `leases_at` (seconds of the epoch). `granted` are digests of what users
    and roles are granted, by `user NAME` and `role NAME`.
    """

    version: str
    cluster_id: str
    members: tuple[SourceMember, ...]
    revision: int
    bytes: int
    auth: bool
    users: tuple[str, ...]
    roles: tuple[str, ...]
    leases: Mapping[str, int]
    leases_at: int | None = None
    client_certificates: bool | None = None
    alarms: tuple[str, ...] | None = None
    below_prefix: int | None = None
    granted: Mapping[str, str] | None = None
    since: LastLook | None = None
    snapshot: Snapshot | None = None

    @property
    def last(self) -> LastLook:
        """What still held of the survey when the snapshot was taken."""
        return self.since or LastLook()

    @property
    def taken(self) -> Snapshot:
        """The snapshot, of facts out of a manifest: `read` has seen that it is there."""
        assert self.snapshot is not None
        return self.snapshot

    @override
    def to_json(self) -> Mapping[str, Any]:
        said = _without_unknown(asdict(self), _OPTIONAL)
        if self.since is not None:
            said["since"] = _without_unknown(said["since"], said["since"].keys())
        if self.snapshot is not None:
            said["snapshot"] = _without_unknown(said["snapshot"], _COUNTED)
        return said

    @override
    def source_nodes(self) -> tuple[SourceNode, ...]:
        return tuple(
            SourceNode(item.name or item.id, "member", url.hostname, url.port)
            for item in self.members
            for url in [urlsplit(item.urls[-1])]
        )


def _without_unknown(said: Mapping[str, Any], optional: Collection[str]) -> dict[str, Any]:
    return {
        name: value for name, value in said.items() if value is not None or name not in optional
    }


def own(facts: Facts) -> EtcdFacts:
    """The facts, which this engine has made or read."""
    assert isinstance(facts, EtcdFacts)
    return facts


def read(said: Mapping[str, Any]) -> EtcdFacts:
    """The facts of a manifest. Raises PermanentError where etcd's engine never says so."""
    try:
        facts = parsed(EtcdFacts, said)
        facts.source_nodes()  # of which each member has a URL, with a port
    except (ValueError, IndexError):
        facts = None
    if facts is None or facts.snapshot is None or not _VERSION.fullmatch(facts.version):
        raise PermanentError(
            "the facts of the source are not etcd's: version "
            f"{str(said.get('version', 'none'))[:80]!r}",
            operation="facts of the source",
            hint="find out who changed what the source says of itself",
        )
    return facts
