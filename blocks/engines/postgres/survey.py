"""What a PostgreSQL server is: everything that the recovery side must be able to match."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from blocks.agent.redaction import redacted_value
from blocks.engines.postgres import burden, catalog, counting, digest, files, privileges, sequences
from blocks.engines.postgres.facts import PostgresFacts, read
from blocks.engines.postgres.psql import CLUSTER, LoginRefused, NoDatabase, Psql, SqlError, literal
from blocks.errors import FarsideError, TransientError
from blocks.workers import Workers

AT_ONCE = 4
"""Databases that are looked into at the same time."""

_OF_DATABASE = {
    "counters": counting.COUNTERS,
    "collations": catalog.COLLATIONS,
    "locales": catalog.LOCALES,
    "extensions": catalog.EXTENSIONS,
    "subscriptions": catalog.SUBSCRIPTIONS,
    "tables": catalog.TABLES,
    "sequences": sequences.LIST,
    "large_objects": catalog.LARGE_OBJECTS,
    "object_pages": catalog.PAGES_IF_MODERATE,
    "index_methods": catalog.METHODS,
    "unusable": catalog.UNUSABLE,
    "schema_digest": digest.SCHEMA_DIGEST,
    "catalog_writes": digest.CATALOG_WRITES,
}
_MORE = files.DICTIONARIES + sequences.VALUES + counting.COUNT
_SINGLE = {
    "large_objects": "count",
    "object_pages": "count",
    "schema_digest": "digest",
    "catalog_writes": "count",
}
"""Parts that are one number or text: the column that holds it."""
SECONDS = 180.0
"""Time limit for looking into one database."""
_LISTS = ("extensions", "subscriptions", "index_methods", "locales")
"""Parts that hold nothing, rather than None, where they could not be read."""


def survey(psql: Psql) -> PostgresFacts:
    """Facts of the server. Reads only. Raises as `answers`, and FactsRefused."""
    return read(PostgresFacts, answers(psql))


def answers(psql: Psql) -> dict[str, Any]:
    """Facts of the server as it tells them. Reads only. Raises as Psql does, and Lacking.

    A part that cannot be read (a lock, a missing privilege) is None, and `unread`, the server's or
    the database's, says why: a physical backup needs none of it.
    """
    privileges.require(psql)
    facts: dict[str, Any] = psql.rows(CLUSTER, catalog.SERVER)[0]
    # A session with settings of its own would not see what others get.
    facts["settings"] = psql.seeing_defaults().rows(CLUSTER, catalog.SETTINGS)
    facts["burden"] = asdict(burden.survey(psql))
    facts["tablespaces"] = psql.rows(CLUSTER, catalog.TABLESPACES)
    facts["roles"] = psql.rows(CLUSTER, catalog.ROLES)
    privileges.add_what_few_may_see(psql, facts)
    # A manifest is signed, not sealed: who reads a store reads it.
    for row in facts["settings"]:
        row["setting"] = redacted_value(row["name"], row["setting"] or "")
    facts["databases"] = psql.rows(CLUSTER, catalog.DATABASES)
    facts["closed_databases"] = psql.rows(CLUSTER, catalog.CLOSED)
    facts["peers"] = psql.rows(CLUSTER, catalog.PEERS)
    facts["logical_slots"] = psql.rows(CLUSTER, catalog.LOGICAL_SLOTS)
    facts["sessions"] = psql.rows(CLUSTER, catalog.SESSIONS)
    queries = dict(_OF_DATABASE)
    if psql.rows(CLUSTER, files.MAY_LOOK)[0]["may"]:
        queries["libraries"] = files.LIBRARIES
    # A site may have many databases, and each session takes its time: a few at once.
    with Workers(AT_ONCE, "survey") as pool:
        there = list(
            pool.map(lambda database: _look_into(psql, database, queries), facts["databases"])
        )
    facts["databases"] = [row for row, kept in zip(facts["databases"], there, strict=True) if kept]
    return facts


_NO_TEXT = "\N{REPLACEMENT CHARACTER}"
"""Where bytes of a name are no text: the server knows none of the name that is read."""


def _is_there(psql: Psql, database: str) -> bool:
    """Whether the server has a database; where it cannot say, it has."""
    if _NO_TEXT in database:
        return True
    with suppress(FarsideError):
        ask = f"SELECT 1 AS one FROM pg_database WHERE datname = {literal(database)}"
        return bool(psql.rows(CLUSTER, ask))
    return True


def _look_into(psql: Psql, database: dict[str, Any], queries: Mapping[str, str]) -> bool:
    """Add to the row of a database what only a session in it can tell; false if it was dropped."""
    name = database["name"]
    found, database["unread"] = dict[str, Any](), dict[str, str]()
    try:
        if database["may_connect"]:
            found, database["unread"] = psql.parts(name, queries, more=_MORE, timeout=SECONDS)
        else:
            database["unread"] = {"contents": privileges.to_connect(psql, name)}
    except FarsideError as error:
        # psql tells no SQLSTATE of a connection that failed, and its words may be in any language.
        if not _is_there(psql, name):
            return False
        if not isinstance(error, LoginRefused | NoDatabase | SqlError | TransientError):
            raise
        database["unread"] = {"contents": error.message}
    sequences.add_values(found)
    for part in (*_OF_DATABASE, "libraries", "dictionaries"):
        database[part] = found.get(part, [] if part in _LISTS else None)
    for part, column in _SINGLE.items():
        if database[part] is not None:
            database[part] = database[part][0][column]
    numbers = {(row["schema"], row["name"]): row["count"] for row in found.get("counted", ())}
    for table in database["tables"] or ():
        table["count"] = numbers.get((table["schema"], table["name"]))
    return True
