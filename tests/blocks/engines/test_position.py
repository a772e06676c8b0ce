"""Where the log of a real server ends."""

from blocks.engines.pg.position import end_of_log, end_of_record
from tests.blocks.engines.servers import server

SEGMENT, PAGE = 2**24, 8192


def test_a_quiet_source_has_nothing_beyond_what_can_be_replayed() -> None:
    """The next record of a server that has begun a segment will be behind the segment's header."""
    with server() as made:
        for _ in range(3):  # the server may write something of its own at any moment
            made.run("SELECT pg_current_xact_id(); SELECT pg_switch_wal()")
            inserted = made.psql().value("postgres", "SELECT pg_current_wal_insert_lsn()")
            end = end_of_log(made.psql())
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
