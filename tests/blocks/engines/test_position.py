"""Where the log of a real server ends."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from blocks.engines.pg.position import end_of_log, end_of_record
from deployments.lab.accounts import service_account
from tests.blocks.engines.servers import Server, server

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
    assert (end.position % SEGMENT, end.age) == (0, 0)


def test_headers_are_no_records() -> None:
    assert end_of_record(3 * SEGMENT + 40, SEGMENT, PAGE) == 3 * SEGMENT
    assert end_of_record(3 * SEGMENT + 5 * PAGE + 24, SEGMENT, PAGE) == 3 * SEGMENT + 5 * PAGE
    for end in (3 * SEGMENT, 3 * SEGMENT + 24 + PAGE + 8, 3 * SEGMENT + 40 + PAGE, 48):
        assert end_of_record(end, SEGMENT, PAGE) == end


def test_a_standby_tells_what_it_hears_of_its_primary() -> None:
    """One that hears nothing does not know what has been acknowledged since."""
    with server(15, "max_wal_senders = 3", "hot_standby = on") as primary, standby(primary) as made:
        end = None
        for _ in range(100):
            if (end := end_of_log(made.psql())) is not None:
                break
            time.sleep(0.1)
        assert end is not None
        assert end.age < 60
        made.run("ALTER SYSTEM SET primary_conninfo = ''; ")
        made.run("SELECT pg_reload_conf()")
        primary.run("CREATE TABLE later (n int)")
        for _ in range(100):
            if (end := end_of_log(made.psql())) is None:
                break
            time.sleep(0.1)
        assert end is None


@contextmanager
def standby(primary: Server) -> Iterator[Server]:
    """A standby of a server, on the next port that is free."""
    with server() as made:
        made.ctl("stop", "-m", "immediate")
        shutil.rmtree(made.data)
        argv = [f"{made.bin_dir}/pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port)]
        argv += ["-U", "postgres", "-D", str(made.data), "-R", "-c", "fast", "-X", "stream"]
        subprocess.run(argv, check=True, cwd="/", timeout=120, **service_account().identity)
        with (made.data / "postgresql.auto.conf").open("a") as file:
            file.write(f"port = {made.port}\n")
        made.ctl("start")
        yield made
