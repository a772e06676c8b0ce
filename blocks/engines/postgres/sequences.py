"""Sequences, and how far each is: a few at a time.

To read one locks it until the end of the statement. A site may have more of them than its server's
table of locks holds, which is everybody's.
"""

from typing import Any

from blocks.engines.postgres.counting import USER_SCHEMAS
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.rows import Sequence, rows_of
from blocks.errors import PermanentError

AT_ONCE = 100
"""How many are locked at the same time."""

_SEQUENCES = f"""
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE WHEN c.relkind = 'S' THEN
  has_sequence_privilege(c.oid, 'SELECT, USAGE') END AS readable) AS may
WHERE c.relpersistence = 'p' AND {USER_SCHEMAS}
"""
LIST = f"""
SELECT n.nspname AS schema, c.relname AS name, s.seqincrement AS increment,
       s.seqcycle AS cycle, readable, pg_relation_filenode(c.oid) AS file
{_SEQUENCES} ORDER BY 1, 2
"""
"""Sequences; one that is restarted by its definition, or made again, has another file."""
VALUES = rf"""
SELECT format('SELECT jsonb_build_object(''part'', ''values'', ''rows'','
              ' coalesce(jsonb_agg(t), ''[]'')) FROM'
              ' (SELECT n.nspname AS schema, c.relname AS name,'
              ' pg_sequence_last_value(c.oid::regclass) AS value'
              ' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace'
              ' WHERE c.oid = ANY (%L::oid[])) AS t', array_agg(oid))
FROM (SELECT c.oid, row_number() OVER (ORDER BY c.oid) / {AT_ONCE} AS turn
      {_SEQUENCES} AND readable) AS q
GROUP BY turn
\gexec
"""
"""A script for `Psql.parts`: the values of those that may be read."""


def add_values(found: dict[str, list[Any]]) -> None:
    """Add to the sequences of `found` their values; one whose value did not come is unreadable."""
    values = {(row["schema"], row["name"]): row["value"] for row in found.pop("values", ())}
    for row in found.get("sequences", ()):
        key = (row["schema"], row["name"])
        row["readable"], row["value"] = key in values, values.get(key)


def restored(psql: Psql, database: str) -> dict[tuple[str, str], Sequence]:
    """The sequences of a restored database by schema and name, each with its value.

    Raises as Psql.parts, and PermanentError.
    """
    found, failed = psql.parts(database, {"sequences": LIST}, more=VALUES)
    add_values(found)
    hidden = [row["name"] for row in found.get("sequences", ()) if not row["readable"]]
    if failed or hidden:
        why = "; ".join((*failed.values(), *hidden[:5]))
        raise PermanentError(
            f"sequences could not be read: {why}", domain=psql.host.domain, host=psql.host.name
        )
    return {row.key: row for row in rows_of(Sequence, found["sequences"])}
