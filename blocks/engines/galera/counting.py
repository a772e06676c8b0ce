"""Rows of the source, counted where that costs little and nothing was written meanwhile."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from blocks.engines.galera.facts import Table, local
from blocks.engines.galera.mariadb import Mariadb, identifier
from blocks.engines.galera.survey import ids, names, of_each
from blocks.errors import FarsideError

COUNTED_BYTES = 2**26
"""A table that is larger is not counted: its rows are estimated by the server."""
ALL_COUNTED_BYTES = 2**30
"""What is read for counting, at most, of all tables together."""
_SECONDS = 30
_AT_ONCE = 50
_QUIET_SECONDS = 2
# When a table was last written to; the server forgets it when it restarts, and says NULL.
_WRITTEN = f"""
SELECT JSON_ARRAY(TABLE_SCHEMA, TABLE_NAME, COALESCE(DATA_LENGTH, 0), UNIX_TIMESTAMP(UPDATE_TIME),
  COALESCE(UPDATE_TIME < NOW() - INTERVAL {_QUIET_SECONDS} SECOND, TRUE))
FROM information_schema.TABLES
WHERE TABLE_SCHEMA = {{schema}} AND TABLE_NAME = {{name}} AND TABLE_TYPE = 'BASE TABLE'
"""

Counts = Mapping[tuple[str, str], tuple[int, Any]]
"""Schema and name of a table -> its rows, and what differs once it was written to or emptied."""


def before(node: Mariadb) -> Counts:
    """Exact counts of tables of moderate size to which nothing is being written."""
    wanted, left = list[tuple[str, str, Any]](), ALL_COUNTED_BYTES
    for schema, name, size, written, quiet in sorted(_written(node), key=lambda row: row[2]):
        if quiet and size <= min(COUNTED_BYTES, left):
            left -= size
            wanted.append((schema, name, written))
    found = dict[tuple[str, str], tuple[int, Any]]()
    for some in _batches(wanted):
        query = " UNION ALL ".join(
            f"SELECT {number}, (SELECT COUNT(*) FROM {identifier(schema)}.{identifier(name)})"
            for number, (schema, name, _) in enumerate(some)
        )
        # What cannot be counted (locked, damaged, no time) is estimated, as large ones are.
        with suppress(FarsideError):
            for number, count in node.rows(
                f"SET STATEMENT max_statement_time={_SECONDS} FOR {query}"
            ):
                schema, name, written = some[int(number)]
                found[schema, name] = (int(count), written)
    return found


def exact(node: Mariadb, counted: Counts, tables: Sequence[Table]) -> tuple[Table, ...]:
    """The `tables` of a survey, with `exact` rows where nothing was written since the count."""
    now = {(schema, name): written for schema, name, _, written, _ in _written(node)}
    found = []
    for item in tables:
        place = item.schema, item.name
        count, written = counted.get(place, (None, None))
        same = count is not None and place in now and now[place] == written
        found.append(replace(item, exact=count) if same else item)
    return tuple(found)


def _written(node: Mariadb) -> list[Any]:
    """Schema, name, bytes, last change of each table that can be counted; whether it is over."""
    stored = [item for item in local(names(node)) if item.engine != "MEMORY"]
    had = ids(node)
    return [
        (schema, name, size, (written, had.get((schema, name))), quiet)
        for schema, name, size, written, quiet in of_each(node, _WRITTEN, stored)
    ]


def _batches(items: Sequence[tuple[str, str, Any]]) -> Iterator[Sequence[tuple[str, str, Any]]]:
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))
