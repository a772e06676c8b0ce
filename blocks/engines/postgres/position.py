"""Where a log ends: in the source at a moment, and in the restored server once it has replayed."""

from collections.abc import Callable
from dataclasses import replace

from blocks.engines.postgres import wal
from blocks.engines.postgres.psql import CLUSTER, Psql

SECONDS = 10.0
"""How long each server may take for its answer: the declaration waits for it."""
_CASCADED = 3
"""So many standbys may lie between the source and its primary."""
_END = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END AS position,
  (SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size') AS segment,
  (SELECT setting::int FROM pg_settings WHERE name = 'wal_block_size') AS page,
  (SELECT system_identifier::text FROM pg_control_system()) AS cluster,
  sender_host AS host, sender_port AS port
FROM (VALUES (1)) AS one
LEFT JOIN pg_stat_wal_receiver ON pg_is_in_recovery() AND status = 'streaming'
"""
_SEGMENT_HEADER, _PAGE_HEADER = 40, 24
"""Bytes of XLogLongPageHeaderData and XLogPageHeaderData."""


def end_of_log(source: Psql, owns: Callable[[str], bool]) -> int | None:
    """Up to where the source's log is written; of a standby, what its primary says of its own.

    What a standby has replayed, or was told by another standby, says nothing of what the primary
    has acknowledged since. So the servers that it streams from are asked in turn, if the source
    `owns` their addresses. None where that leads to no primary of the same cluster. Raises as
    `rows`.
    """
    clusters = set[str]()
    for _ in range(_CASCADED + 2):
        (row,) = source.rows(CLUSTER, _END, timeout=SECONDS)
        clusters.add(row["cluster"])
        if len(clusters) > 1:
            return None
        if row["position"] is not None:
            return end_of_record(wal.parse_lsn(row["position"]), row["segment"], row["page"])
        if row["host"] is None or not owns(row["host"]):
            return None
        source = replace(source, server=row["host"], port=row["port"], chosen=[])
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
