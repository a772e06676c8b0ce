"""Where a log ends: in the source at a moment, and in the restored server once it has replayed."""

from blocks.engines.pg import wal
from blocks.engines.pg.psql import CLUSTER, Psql

SECONDS = 10.0
"""How long the source may take for the answer: the declaration waits for it."""
_END = (
    "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
    " ELSE pg_catalog.pg_current_wal_insert_lsn() END)::pg_catalog.text"
)


def end_of_log(source: Psql) -> int | None:
    """Up to where the source's log is written, or replayed by a standby. Raises as `value`."""
    text = source.value(CLUSTER, _END, timeout=SECONDS)
    return wal.parse_lsn(text) if text else None


def end_of_replay(restored: Psql) -> int | None:
    """Up to where a promoted server has replayed; None once it was started without recovery.

    Raises as `value`.
    """
    sql = "SELECT pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text"
    text = restored.value(CLUSTER, sql)
    return wal.parse_lsn(text) if text else None
