"""What the engine knows of a source: the facts of a Galera cluster, as one node tells them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ValidationError
from typing_extensions import override

from blocks.engines.facts import Facts, parsed
from blocks.engines.galera import settings
from blocks.engines.galera.mariadb import identifier
from blocks.errors import PermanentError
from blocks.evidence.record import SourceNode

OUTBOUND = ("CONNECT", "FEDERATED", "S3", "SPHINX", "SPIDER")
"""Storage engines whose tables are another server's: reading one, or opening it, calls that."""
_NEEDED = (
    *("AUTHENTICATION", "DATA TYPE", "FTPARSER", "FUNCTION", "PASSWORD VALIDATION"),
    "STORAGE ENGINE",
)
"""Types of plugins without which a table cannot be read, or a user not get in, as at the source."""
_PROVIDERS = tuple(f"provider_{name}" for name in ("bzip2", "lz4", "lzma", "lzo", "snappy"))
"""Plugins that unpack what is compressed in tables. Their type is DAEMON; they do nothing else."""
_SERVING = (*_NEEDED, "AUDIT", "INFORMATION SCHEMA", "UDF")
"""Types of plugins that only serve sessions; any other may act by itself, in threads of its own."""


@dataclass(frozen=True, slots=True)
class TableName:
    """A table: its schema, its own name, and its storage engine in capitals."""

    schema: str
    name: str
    engine: str

    @property
    def label(self) -> str:
        """Its name with its schema's, for people."""
        return f"{self.schema}.{self.name}"

    @property
    def place(self) -> str:
        """Its name with its schema's, quoted for SQL."""
        return f"{identifier(self.schema)}.{identifier(self.name)}"


@dataclass(frozen=True, slots=True)
class Table(TableName):
    """A table of the source.

    `rows` is the server's estimate, None where there is none; `exact` is how many were counted, and
    None where none were. `made` differs when the table was emptied, altered or created again,
    `written` (seconds since 1970) when rows were written. `broken` is the number of the error with
    which the server refused a table that it could not open.
    """

    rows: int | None = None
    made: str = ""
    written: float | int | None = None
    broken: int | None = None
    exact: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, `broken` and `exact` only where they are known."""
        found = asdict(self)
        return {
            name: value
            for name, value in found.items()
            if value is not None or name not in ("broken", "exact")
        }


_T = TypeVar("_T", bound=TableName)


def local(tables: Iterable[_T]) -> list[_T]:
    """Those of some tables whose rows are here: to read another server's would call it."""
    return [item for item in tables if item.engine not in OUTBOUND]


def _flag(said: object) -> bool:
    """A truth out of JSON. Raises ValueError."""
    if not isinstance(said, bool | int | str):
        raise ValueError("is neither true nor false")
    return bool(int(said))


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that runs. `installed`: it starts with the data, for a statement installed it."""

    name: str
    type: str
    library: str
    # A number, or a number as a text, in older sets.
    installed: Annotated[bool, BeforeValidator(_flag)]

    @property
    def is_needed(self) -> bool:
        """Whether the data, or who may read it, depends on it."""
        return self.type in _NEEDED or self.name in _PROVIDERS

    @property
    def may_act(self) -> bool:
        """Whether it may act by itself."""
        return self.type not in _SERVING and self.name not in _PROVIDERS


@dataclass(frozen=True, slots=True)
class SequenceState:
    """Where a sequence goes on, by which step, whether it cycles (1), and between what."""

    value: int | None
    increment: int | None
    cycle: int | None
    least: int | None
    most: int | None

    @property
    def limits(self) -> tuple[int | None, ...]:
        """All but where it goes on."""
        return self.increment, self.cycle, self.least, self.most

    def is_behind(self, value: int | None) -> bool:
        """Whether it will give out again what one at this value has given out already."""
        if self.value is None or value is None:
            return value is not None
        return self.value > value if (self.increment or 0) < 0 else self.value < value


@dataclass(frozen=True, slots=True)
class UnreadableSequence:
    """A sequence that the source could not read, with the number of the error, or 0."""

    broken: int


KnownSequence = SequenceState | UnreadableSequence


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server has counted since it `started` (seconds since 1970).

    Rows deleted from all tables, and statements that define.
    """

    node: str
    started: int
    deleted: int
    statements: int


@dataclass(frozen=True, slots=True)
class BackupPlace:
    """Where in the cluster's history the backup is, and which node it was taken from."""

    node: str
    state_uuid: str
    seqno: int


@dataclass(frozen=True, slots=True)
class Moved:
    """What the source itself did to a table since the survey."""

    dropped: bool = False
    fewer: int = 0
    """Rows that are gone from it, by the server's estimates."""
    remade: bool = False
    """It was emptied, altered, or dropped and made again."""
    written: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; of a table that was dropped, no more than that."""
        found = asdict(self)
        if self.dropped:
            return {"dropped": True}
        del found["dropped"]
        return found


@dataclass(frozen=True, slots=True)
class Since:
    """What of a survey's facts was otherwise when the backup had ended.

    By part, what each name has instead (None: it is gone). A part that could not be asked again is
    None: it is not known. So are the numbers of rows `deleted` from all tables, and of `statements`
    that define.
    """

    definitions: Mapping[str, str | None] | None = None
    details: Mapping[str, str | None] | None = None
    demands: Mapping[str, str | None] | None = None
    accounts: Mapping[str, bool | None] | None = None
    privileges: Mapping[str, str | None] | None = None
    sequences: Mapping[str, KnownSequence | None] | None = None
    plugins: Mapping[str, str | None] | None = None
    tables: Mapping[str, Moved] | None = None
    deleted: int | None = None
    statements: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, without what is not known."""
        found = asdict(self)
        if self.tables is not None:
            found["tables"] = {name: moved.to_json() for name, moved in self.tables.items()}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class GaleraFacts(Facts):
    """What a cluster is: everything that a restore has to match.

    `changed` are the settings that somebody has set, `libraries` those of functions, `hidden` the
    kinds of objects that the survey's user may not see all of, with the privilege that it lacks,
    `demands` by what each account is let in, `upstreams` the hosts that the node replicates from,
    `elsewhere` the tables with a file at a path of its own, `fulltext` how many full-text indexes
    InnoDB keeps. Digests stand for definitions, details of how objects are made, and privileges.
    """

    version: str
    state_uuid: str
    bytes: int
    settings: Mapping[str, str]
    plugins: tuple[Plugin, ...]
    libraries: tuple[str, ...]
    tables: tuple[Table, ...]
    definitions: Mapping[str, str]
    accounts: tuple[str, ...]
    upstreams: tuple[str, ...]
    elsewhere: tuple[tuple[str, str], ...]
    # What older sets do not say is not known.
    cluster: str | None = None
    nodes: tuple[SourceNode, ...] | None = None
    changed: tuple[str, ...] | None = None
    counters: Counters | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)
    demands: Mapping[str, str] | None = None
    privileges: Mapping[str, str] | None = None
    """None as well where the survey's user may not read them."""
    fulltext: int | None = None
    details: Mapping[str, str] | None = None
    sequences: Mapping[str, KnownSequence] | None = None
    backup: BackupPlace | None = None
    since: Since | None = None

    @override
    def to_json(self) -> Mapping[str, Any]:
        found = asdict(self)
        found["tables"] = [item.to_json() for item in self.tables]
        if self.since is not None:
            found["since"] = self.since.to_json()
        return {
            name: value
            for name, value in found.items()
            if value is not None or name == "privileges"
        }

    @override
    def source_nodes(self) -> tuple[SourceNode, ...] | None:
        return self.nodes


def own(facts: Facts) -> GaleraFacts:
    """The facts, which this engine has read."""
    assert isinstance(facts, GaleraFacts)
    return facts


def read(said: Mapping[str, Any]) -> GaleraFacts:
    """The facts of a manifest. Raises PermanentError where no MariaDB server says so."""
    try:
        facts = parsed(GaleraFacts, said)
    except ValidationError as error:
        wrong = [_told(item["loc"], item["msg"]) for item in error.errors(include_input=False)]
        raise _unfit(wrong) from error
    except ValueError as error:
        raise _unfit([str(error)]) from error
    if wrong := [
        *settings.malformed(facts.settings),
        *(
            f"library {name[:80]!r}"
            for name in (*(item.library for item in facts.plugins), *facts.libraries)
            if not settings.LIBRARY.fullmatch(name)
        ),
        *([] if settings.VERSION.fullmatch(facts.version) else [f"version {facts.version[:80]!r}"]),
    ]:
        raise _unfit(wrong)
    return facts


def _told(place: tuple[int | str, ...], text: str) -> str:
    """What of the facts has another form than it must have; names are the source's word."""
    if place == ("bytes",):
        return "its size is no number"
    return f"{'.'.join(map(str, place))[:80]!r}: {text[:200]}"


def _unfit(wrong: list[str]) -> PermanentError:
    return PermanentError(
        f"the facts of the source are not a MariaDB server's: {'; '.join(wrong[:5])}",
        operation="facts of the source",
        hint="find out who changed what the source says of itself",
    )
