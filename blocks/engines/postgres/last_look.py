"""The last look at a source, just before its loss: which facts of the survey still held then.

What is restored is what the source was at about this moment, when its log was last received. A
role, a table or an index that is gone by then was dropped by the source itself. A standby is asked
once it has replayed the log that it has: what is restored has all of that.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeVar

from blocks.engines.common.tally import NOT_ASKED
from blocks.engines.postgres import catalog, counting, digest, sequences, survey
from blocks.engines.postgres.facts import Database
from blocks.engines.postgres.psql import CLUSTER, Psql
from blocks.engines.postgres.rows import Role, SessionSetting, rows_of
from blocks.engines.postgres.wal import parse_lsn
from blocks.errors import FarsideError
from blocks.workers import Workers

_STATEMENT = "SET statement_timeout = '5s';\n"
"""One part that takes longer is not known: the others are."""
_SECONDS = 30.0
"""Time limit for a database."""
_ALL_SECONDS = 60.0
"""No database is looked at after this time."""

_CATCH_UP_SECONDS = 5.0
"""How long a standby may take to replay what it has received."""
_POSITIONS = """
SELECT pg_is_in_recovery() AS standby, pg_last_wal_replay_lsn()::text AS replayed,
       coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text AS received
"""

_OF_SERVER = {
    "roles": catalog.ROLES,
    "databases": catalog.OPEN,
    "sessions": catalog.SESSIONS,
}
# What is written to all the time comes last: as near to the loss as can be.
_OF_DATABASE = {
    "schema_digest": digest.SCHEMA_DIGEST,
    "catalog_writes": digest.CATALOG_WRITES,
    "extensions": catalog.EXTENSIONS,
    "collations": catalog.COLLATIONS,
    "tables": catalog.TABLES,
    "indexes": catalog.INDEXES,
    "sequences": sequences.LIST,
    "counters": counting.COUNTERS,
}

Row = Mapping[str, Any]
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class _Known:
    """A role or a database: its name and its number, which older sets do not have."""

    name: str
    oid: int | None = None


@dataclass(frozen=True, slots=True)
class LastLook:
    """What the source had, as rows of the survey's queries; None for what could not be asked."""

    server: Mapping[str, list[Row]] | None = None
    databases: Mapping[str, Mapping[str, list[Row]]] | None = None
    """Parts by the names of the databases that could be entered."""
    standby: bool = False
    """Whether it is a standby: nothing there tells what was written to a table."""

    def has(self, part: str, first: Role | Database) -> object:
        """Whether the server still had the role or the open database of the survey's.

        NOT_ASKED where it is not known, MADE_AGAIN where it had another one of that name.
        """
        rows = (self.server or {}).get(part)
        if rows is None:
            return NOT_ASKED
        known = {row.name: row for row in rows_of(_Known, rows)}
        return still_there(first, known.get(first.name), attrgetter("oid"))

    def sessions(self) -> tuple[SessionSetting, ...]:
        """What sessions were made to load or to set; none where it is not known."""
        return rows_of(SessionSetting, (self.server or {}).get("sessions", ()))

    def of(self, database: str, part: str, kind: type[_Row]) -> tuple[_Row, ...] | None:
        """The rows of a part of a database, which are of that `kind`."""
        rows = self.rows(database, part)
        return None if rows is None else rows_of(kind, rows)

    def rows(self, database: str, part: str) -> list[Row] | None:
        """The same, as they were read."""
        return (self.databases or {}).get(database, {}).get(part)


MADE_AGAIN = "made again"
"""In place of what a source had, where that was dropped and another made: it may be between two."""


def still_there(first: object, last: object | None, identity: Callable[[Any], object]) -> object:
    """Whether an object of the survey was the same at the last look: true, false, or MADE_AGAIN.

    `identity` tells one from another of its name; it is None in an older set.
    """
    if last is None:
        return False
    known = identity(first) is None or identity(first) == identity(last)
    return True if known else MADE_AGAIN


NO_LOOK = LastLook()
"""Where nobody has asked the source again: it was lost before, or the set is an older one."""


def last_look(psql: Psql) -> LastLook:
    """Look for the last time. Reads only, and counts no rows. Raises as Psql.parts.

    A standby that is behind shows less than is restored: nothing is known of it.
    """
    psql, until = replace(psql, preamble=_STATEMENT), time.monotonic() + _ALL_SECONDS
    (at,) = psql.rows(CLUSTER, _POSITIONS)
    if at["standby"] and not _catches_up(psql, at):
        return NO_LOOK
    server, _ = psql.parts(CLUSTER, _OF_SERVER, timeout=_SECONDS)
    found = dict[str, dict[str, list[Row]]]()

    def look_into(name: str) -> None:
        if time.monotonic() < until:
            with suppress(FarsideError):
                parts, _ = psql.parts(name, _OF_DATABASE, more=sequences.VALUES, timeout=_SECONDS)
                sequences.add_values(parts)
                found[name] = parts

    with Workers(survey.AT_ONCE, "last look") as pool:
        list(pool.map(look_into, [row["name"] for row in server.get("databases", ())]))
    return LastLook(server, found, standby=at["standby"])


def _catches_up(standby: Psql, at: Row) -> bool:
    """Whether a standby replays in time what it had received at a moment."""
    wanted, give_up = parse_lsn(at["received"]), time.monotonic() + _CATCH_UP_SECONDS
    while parse_lsn(at["replayed"]) < wanted:
        if time.monotonic() > give_up:
            return False
        time.sleep(0.2)
        (at,) = standby.rows(CLUSTER, _POSITIONS)
    return True
