"""Rows of a source's facts, as its queries yield them; see `facts`.

Fields that older sets do not have are those with a default.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter

Bytes = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A row of pg_settings; which names and values come along is decided in `settings`."""

    name: str
    setting: str | None
    category: str
    context: str
    source: str
    sourcefile: str | None = None
    sourceline: int | None = None

    @property
    def value(self) -> str:
        """The setting as text; empty where the server shows none."""
        return self.setting or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tablespace:
    """A tablespace: its oid becomes the name of an object, a directory and a link."""

    oid: Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
    bytes: Bytes
    name: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role, whether it can log in now, and how its password is stored."""

    name: str
    password: Literal["none", "md5", "scram-sha-256", "unknown"]
    oid: int | None = None
    superuser: bool | None = None
    login: bool = True
    replication: bool | None = None
    expired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A line of pg_hba.conf that depends on an outside service, or names a role or an address."""

    line: int
    method: str
    options: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A line of pg_hba.conf for TCP, as the source reads it."""

    line: int
    type: str
    method: str
    database: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    address: str | None = None
    netmask: str | None = None
    file: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureConditions:
    """What bears on a capture; see `burden`."""

    unbounded: bool = False
    synchronous_standby_names: str = ""
    archive_mode: str = "off"
    archive_configured: bool = False
    last_failed_wal: str | None = None
    archive_failing: bool = False
    queue_is_seen: bool = False
    may_switch: bool = False
    archive_queue: int | None = None
    archive_oldest: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit of the source's that a snapshot meets, and how much of it is used."""

    kind: Literal["senders", "slots", "sessions", "both"]
    setting: str
    most: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedDatabase:
    """A database that takes no connections, or that a broken-off DROP has left."""

    name: str
    invalid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalSlot:
    """A logical replication slot of a database."""

    name: str
    database: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSetting:
    """What sessions of a role, or in a database, are made to load or to set; empty is all."""

    role: str
    database: str
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An extension: its name becomes that of a file to look for.

    `offered` is whether the source has this version to install, `control` its control file.
    """

    name: Annotated[str, Field(pattern=r"^[^/\x00-\x1f\x7f]{1,200}$")]
    version: str = ""
    offered: bool = True
    control: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Collation:
    """A collation: the version that its data was sorted with, and the library's."""

    name: str
    recorded_version: str | None = None
    actual_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Locale:
    """A collation, and a locale of the C library that it is made of."""

    name: str
    locale: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription of a database."""

    name: str
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table or filled materialized view.

    `rows` is an estimate, `count` exact; None is not known. `apart` is whether it has values that
    are stored apart (TOAST), `file` tells it from another one of its name, `readable` is None in
    older sets if it was dropped while the source was asked.
    """

    schema: str
    name: str
    unlogged: bool = False
    readable: bool | None = True
    file: str | None = None
    apart: bool = False
    rows: int | None = None
    count: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A sequence and how far it is; `readable` is whether the value was shown."""

    schema: str
    name: str
    increment: int
    cycle: bool
    readable: bool = True
    file: str | None = None
    value: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What the server's statistics say was written to a table; see `counting.COUNTERS`."""

    schema: str
    name: str
    written: str
    deleted: int

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexMethod:
    """How many indexes there are of a method other than B-tree."""

    method: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """An index or a materialized view; its number is None in older sets."""

    name: str
    oid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library of functions, and whether the source has its file."""

    name: str
    there: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dictionary:
    """A text search dictionary: its template's library, and whether the source can use it."""

    name: str
    library: str | None = None
    usable: bool | None = None


_Row = TypeVar("_Row")


def rows_of(kind: type[_Row], rows: Iterable[Mapping[str, Any]]) -> tuple[_Row, ...]:
    """Rows of a query, asked again, as the facts have them."""
    return TypeAdapter(tuple[kind, ...]).validate_python(tuple(rows))  # type: ignore[valid-type]
