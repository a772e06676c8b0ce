"""The last look at a source, just before its loss: which facts of the survey still held then.

What is restored is what the source was at about this moment, when its log was last received. A
role, a table or an index that is gone by then was dropped by the source itself.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from blocks.engines.pg import counting, sequences, survey
from blocks.engines.pg.psql import CLUSTER, Psql
from blocks.engines.tally import NOT_ASKED
from blocks.errors import FarsideError
from blocks.workers import Workers

_STATEMENT = "SET statement_timeout = '5s';\n"
"""One part that takes longer is not known: the others are."""
_SECONDS = 30.0
"""Time limit for a database."""
_ALL_SECONDS = 60.0
"""No database is looked at after this time."""

_OF_SERVER = {
    "roles": survey.ROLES,
    "databases": survey.OPEN,
    "sessions": survey.SESSIONS,
}
# What is written to all the time comes last: as near to the loss as can be.
_OF_DATABASE = {
    "schema_digest": survey.SCHEMA_DIGEST,
    "extensions": survey.EXTENSIONS,
    "collations": survey.COLLATIONS,
    "tables": survey.TABLES,
    "indexes": survey.INDEXES,
    "sequences": sequences.LIST,
    "counters": counting.COUNTERS,
}

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LastLook:
    """What the source had, as rows of the survey's queries; None for what could not be asked."""

    server: Mapping[str, list[Row]] | None = None
    databases: Mapping[str, Mapping[str, list[Row]]] | None = None
    """Parts by the names of the databases that could be entered."""

    def has(self, part: str, name: str) -> object:
        """Whether the server had a role or an open database; NOT_ASKED where it is not known."""
        rows = (self.server or {}).get(part)
        return NOT_ASKED if rows is None else any(row["name"] == name for row in rows)

    def of(self, database: str, part: str) -> list[Row] | None:
        """The rows of a part of a database."""
        return (self.databases or {}).get(database, {}).get(part)


NO_LOOK = LastLook()
"""Where nobody has asked the source again: it was lost before, or the set is an older one."""


def last_look(psql: Psql) -> LastLook:
    """Look for the last time. Reads only, and counts no rows. Raises as Psql.parts."""
    psql, until = replace(psql, preamble=_STATEMENT), time.monotonic() + _ALL_SECONDS
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
    return LastLook(server, found)
