"""What a source says of itself, checked before it names a path, a command or a configuration.

The facts come from the source's own servers, by way of a manifest that anyone with the signing key
can write: data, not instructions. See docs/security.md.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from blocks.errors import PermanentError

_SEGMENT = r"^[0-9A-F]{24}$"
_LSN = r"^[0-9A-F]{1,8}/[0-9A-F]{1,8}$"
_NUMBER = r"^[0-9]{1,20}$"
_LINE = r"^[^\x00-\x1f\x7f]*$"


class FactsRefused(PermanentError):
    """The facts of a source are not what a PostgreSQL server says of itself."""


def _power_of_two(size: int) -> int:
    if size & (size - 1):
        raise ValueError("no power of two")
    return size


Bytes = Annotated[int, Field(ge=0, strict=True)]
Line = Annotated[str, Field(pattern=_LINE, max_length=500)]


class _Part(BaseModel):
    # Fields that later versions add, and those that only checks compare, are passed over.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Setting(_Part):
    """A row of pg_settings; which names and values come along is decided in `settings`."""

    name: str
    setting: str | None
    category: str
    context: str
    source: str


class Tablespace(_Part):
    """A tablespace: its oid becomes the name of an object, a directory and a link."""

    oid: str = Field(pattern=r"^[0-9]{1,10}$")
    bytes: Bytes


class Role(_Part):
    """A role and how its password is stored."""

    name: str
    password: Literal["none", "md5", "scram-sha-256", "unknown"]


class Extension(_Part):
    """An extension: its name becomes that of a file to look for."""

    name: str = Field(pattern=r"^[^/\x00-\x1f\x7f]{1,200}$")


class Database(_Part):
    """A database that takes connections."""

    name: str = Field(min_length=1)
    bytes: Bytes
    extensions: tuple[Extension, ...]


class Facts(_Part):
    """The facts that a restore and its runbook are made of."""

    version: Line
    version_num: int = Field(ge=90000, lt=10**7, strict=True)
    system_identifier: str = Field(pattern=_NUMBER)
    timeline: int = Field(ge=1, lt=2**32, strict=True)
    wal_segment_size: Annotated[
        int, Field(ge=2**20, le=2**30, strict=True), AfterValidator(_power_of_two)
    ]
    superuser: str = Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")
    maintenance_database: str = Field(default="postgres", pattern=r"^[^\x00-\x1f\x7f]{1,200}$")
    data_directory: str = Field(pattern=r"^/[^\x00-\x1f\x7f]*$")
    shared_preload_libraries: Line
    settings: tuple[Setting, ...]
    tablespaces: tuple[Tablespace, ...]
    roles: tuple[Role, ...]
    databases: tuple[Database, ...]


class SetFacts(Facts):
    """The same, with the log that a base backup needs."""

    start_lsn: str = Field(pattern=_LSN)
    stop_lsn: str = Field(pattern=_LSN)
    start_segment: str = Field(pattern=_SEGMENT)
    stop_segment: str = Field(pattern=_SEGMENT)


def check(facts: Mapping[str, Any], kind: type[Facts]) -> None:
    """Raise FactsRefused, which names what is wrong, unless `facts` are of this kind."""
    try:
        kind.model_validate(facts)
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
