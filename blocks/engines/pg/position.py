"""Where a log ends: in the source at a moment, and in the restored server once it has replayed."""

from blocks.engines.base import LogEnd
from blocks.engines.pg import wal
from blocks.engines.pg.psql import CLUSTER, Psql

SECONDS = 10.0
"""How long the source may take for the answer: the declaration waits for it."""
# What a standby has replayed says nothing of what its primary has acknowledged since: that is
# known as of the last message, while there are messages.
_END = """
SELECT ends.lsn::text AS position, ends.age,
  (SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size') AS segment,
  (SELECT setting::int FROM pg_settings WHERE name = 'wal_block_size') AS page
FROM (
  SELECT pg_current_wal_insert_lsn() AS lsn, 0 AS age WHERE NOT pg_is_in_recovery()
  UNION ALL
  SELECT latest_end_lsn, extract(epoch FROM clock_timestamp() - last_msg_receipt_time)
  FROM pg_stat_wal_receiver WHERE pg_is_in_recovery() AND status = 'streaming'
) AS ends
WHERE ends.lsn IS NOT NULL AND ends.age IS NOT NULL
"""
_SEGMENT_HEADER, _PAGE_HEADER = 40, 24
"""Bytes of XLogLongPageHeaderData and XLogPageHeaderData."""


def end_of_log(source: Psql) -> LogEnd | None:
    """Up to where the source's log is written; of a standby, its primary's, as it was last told.

    None of a standby that does not hear of its primary. Raises as `rows`.
    """
    for row in source.rows(CLUSTER, _END, timeout=SECONDS):
        position = end_of_record(wal.parse_lsn(row["position"]), row["segment"], row["page"])
        return LogEnd(position, max(0.0, float(row["age"])))
    return None


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
