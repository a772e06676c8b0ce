"""What a source says of itself, checked before it names a path, a command or a configuration.

The facts come from the source's own servers, by way of a manifest that anyone with the signing key
can write: data, not instructions. See docs/security.md.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from typing_extensions import override

from blocks.engines.facts import Facts, Peer, parsed
from blocks.engines.postgres.rows import (
    Bytes,
    CaptureConditions,
    ClosedDatabase,
    Collation,
    Counter,
    Dictionary,
    Extension,
    IndexMethod,
    Library,
    Limit,
    Locale,
    LogicalSlot,
    Login,
    Relation,
    Role,
    Rule,
    Sequence,
    SessionSetting,
    Setting,
    Subscription,
    Table,
    Tablespace,
)
from blocks.errors import PermanentError
from blocks.evidence.record import SourceNode

_ABSENT = ("nodes", "places")
"""What is not in the manifest where it is not known."""


class FactsRefused(PermanentError):
    """The facts of a source are not what a PostgreSQL server says of itself."""


def _power_of_two(size: int) -> int:
    if size & (size - 1):
        raise ValueError("no power of two")
    return size


Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=500)]
Name = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
Lsn = Annotated[str, Field(pattern=r"^[0-9A-F]{1,8}/[0-9A-F]{1,8}$")]
Segment = Annotated[str, Field(pattern=r"^[0-9A-F]{24}$")]
SegmentSize = Annotated[int, Field(ge=2**20, le=2**30), AfterValidator(_power_of_two)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database that takes connections, and what a session in it tells.

    A part that could not be read is None, or empty, and `unread` says why.
    """

    name: Annotated[str, Field(min_length=1)]
    bytes: Bytes
    extensions: tuple[Extension, ...]
    oid: int | None = None
    encoding: str | None = None
    collate: str | None = None
    ctype: str | None = None
    provider: str | None = None
    recorded_version: str | None = None
    actual_version: str | None = None
    may_connect: bool = True
    counters: tuple[Counter, ...] | None = None
    collations: tuple[Collation, ...] | None = None
    locales: tuple[Locale, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    tables: tuple[Table, ...] | None = None
    sequences: tuple[Sequence, ...] | None = None
    large_objects: int | None = None
    object_pages: int | None = None
    index_methods: tuple[IndexMethod, ...] = ()
    unusable: tuple[Relation, ...] | None = ()
    schema_digest: str | None = None
    catalog_writes: int | None = None
    libraries: tuple[Library, ...] | None = None
    dictionaries: tuple[Dictionary, ...] | None = None
    unread: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresFacts(Facts):
    """What a server says of itself. `logins` and `access` are None where few may see them."""

    version: Line
    version_num: Annotated[int, Field(ge=90000, lt=10**7)]
    system_identifier: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
    timeline: Annotated[int, Field(ge=1, lt=2**32)]
    wal_segment_size: SegmentSize
    superuser: Name
    maintenance_database: Name = "postgres"
    data_directory: Annotated[str, Field(pattern=r"^/[^\x00-\x1f\x7f]*$")]
    shared_preload_libraries: Line
    settings: tuple[Setting, ...]
    tablespaces: tuple[Tablespace, ...]
    roles: tuple[Role, ...]
    databases: tuple[Database, ...]
    data_checksums: bool | None = None
    in_recovery: bool = False
    started: int | None = None
    burden: CaptureConditions = field(default_factory=CaptureConditions)
    closed_databases: tuple[ClosedDatabase, ...] = ()
    logical_slots: tuple[LogicalSlot, ...] = ()
    sessions: tuple[SessionSetting, ...] = ()
    logins: tuple[Login, ...] | None = None
    access: tuple[Rule, ...] | None = None
    places: tuple[Limit, ...] | None = None
    connected: Annotated[tuple[Peer, ...], Field(alias="peers")] = ()
    nodes: tuple[SourceNode, ...] | None = None
    unread: Mapping[str, str] = field(default_factory=dict)

    @override
    def to_json(self) -> Mapping[str, Any]:
        said = asdict(self)
        said["peers"] = said.pop("connected")
        return {key: part for key, part in said.items() if part is not None or key not in _ABSENT}

    @override
    def source_nodes(self) -> tuple[SourceNode, ...] | None:
        return self.nodes

    @override
    def peers(self) -> tuple[Peer, ...]:
        return self.connected

    @property
    def major(self) -> int:
        """The major version: a set is restored by the same one."""
        return self.version_num // 10000

    @property
    def data_bytes(self) -> int:
        """Bytes of all databases: what a restore will take."""
        return sum(database.bytes for database in self.databases)

    @property
    def data_files(self) -> int:
        """How many files the data have at least: of every database, and of each table two."""
        tables = sum(len(database.tables or ()) for database in self.databases)
        return 500 + 250 * len(self.databases) + 2 * tables


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFacts(PostgresFacts):
    """The facts of a backup set: the same, with the log that its base backup needs."""

    start_lsn: Lsn
    stop_lsn: Lsn
    start_segment: Segment
    stop_segment: Segment


_F = TypeVar("_F", bound=PostgresFacts)


def read(kind: type[_F], said: Mapping[str, Any]) -> _F:
    """Facts of that kind out of plain JSON. Raises FactsRefused, which names what is wrong."""
    try:
        return parsed(kind, said)
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        first = wrong[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise FactsRefused(
            f"{place} is {str(first['input'])[:80]!r}: {first['msg']}{more}",
            operation="facts of the source",
            hint="find out who changed what the source says of itself: no server says this",
        ) from None


def own(facts: Facts) -> PostgresFacts:
    """The facts, which this engine has read."""
    assert isinstance(facts, PostgresFacts)
    return facts


def of_set(facts: Facts) -> SetFacts:
    """The facts of a set, which this engine has read."""
    assert isinstance(facts, SetFacts)
    return facts
