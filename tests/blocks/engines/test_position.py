"""Where the log of a real server ends."""

import time

import pytest

from blocks.engines.postgres import wal
from blocks.engines.postgres.position import end_of_log, end_of_record
from tests.blocks.engines.servers import server, standby, streams

SEGMENT, PAGE = 2**24, 8192


def test_a_quiet_source_has_nothing_beyond_what_can_be_replayed() -> None:
    """The next record of a server that has begun a segment will be behind the segment's header."""
    with server() as made:
        for _ in range(3):  # the server may write something of its own at any moment
            made.run("SELECT pg_current_xact_id(); SELECT pg_switch_wal()")
            inserted = made.psql().value("postgres", "SELECT pg_current_wal_insert_lsn()")
            end = end_of_log(made.psql(), owns_none)
            if str(inserted).endswith("000028"):
                break
    assert str(inserted).endswith("000028")
    assert end is not None
    assert end % SEGMENT == 0


def test_headers_are_no_records() -> None:
    assert end_of_record(3 * SEGMENT + 40, SEGMENT, PAGE) == 3 * SEGMENT
    assert end_of_record(3 * SEGMENT + 5 * PAGE + 24, SEGMENT, PAGE) == 3 * SEGMENT + 5 * PAGE
    for end in (3 * SEGMENT, 3 * SEGMENT + 24 + PAGE + 8, 3 * SEGMENT + 40 + PAGE, 48):
        assert end_of_record(end, SEGMENT, PAGE) == end


@pytest.mark.slow(10)
def test_of_standbys_the_primary_is_asked() -> None:
    """What a cascaded one hears of another that hears nothing is as old as that one's data."""
    with (
        server(15, "max_wal_senders = 3", "hot_standby = on") as primary,
        standby(primary) as near,
        standby(near) as far,
    ):
        assert streams(near)
        assert streams(far)
        for made in (near, far):
            primary.run("SELECT pg_current_xact_id(); SELECT pg_switch_wal()")
            assert end_of_log(made.psql(), owns_none) is None
            known = primary.psql().value("postgres", "SELECT pg_current_wal_flush_lsn()")
            end = end_of_log(made.psql(), "127.0.0.1".__eq__)
            assert end is not None
            assert end >= wal.parse_lsn(str(known)) - 2 * PAGE
        near.run("ALTER SYSTEM SET primary_conninfo = ''")
        near.run("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while end_of_log(near.psql(), "127.0.0.1".__eq__) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert streams(far)
        assert end_of_log(far.psql(), "127.0.0.1".__eq__) is None


def owns_none(host: str) -> bool:
    """Owns no host."""
    return not host
