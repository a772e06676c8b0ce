"""Where a log ends: in the source at a moment, and in the restored server once it has replayed."""

from blocks.engines.pg import wal
from blocks.engines.pg.psql import CLUSTER, Psql

SECONDS = 10.0
"""How long the source may take for the answer: the declaration waits for it."""
_END = (
    "SELECT pg_catalog.concat_ws(' ', CASE WHEN pg_catalog.pg_is_in_recovery()"
    " THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,"
    " (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),"
    " (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_block_size'))"
)
_SEGMENT_HEADER, _PAGE_HEADER = 40, 24
"""Bytes of XLogLongPageHeaderData and XLogPageHeaderData."""


def end_of_log(source: Psql) -> int | None:
    """Up to where the source's log is written, or replayed by a standby. Raises as `value`."""
    position, *sizes = (source.value(CLUSTER, _END, timeout=SECONDS) or "").split()
    if len(sizes) < 2:
        return None  # a standby that has replayed nothing
    return end_of_record(wal.parse_lsn(position), *map(int, sizes))


def end_of_record(position: int, segment: int, page: int) -> int:
    """The end of the last record, as replay tells it, if the next is to be written at `position`.

    That is behind the header of a page on which nothing is yet. `segment` and `page` in bytes.
    """
    if position % segment == _SEGMENT_HEADER:
        return position - _SEGMENT_HEADER
    return position - _PAGE_HEADER if position % page == _PAGE_HEADER else position


def end_of_replay(restored: Psql) -> int | None:
    """Up to where a promoted server has replayed; None once it was started without recovery.

    Raises as `value`.
    """
    sql = "SELECT pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text"
    text = restored.value(CLUSTER, sql)
    return wal.parse_lsn(text) if text else None
