"""A source that has too few places left for a rehearsal is left alone."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from blocks.engines.postgres import burden, places, survey
from blocks.engines.postgres.rows import Limit, rows_of
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.engines.registry import catalogue
from blocks.repositories.farside.writer import Load
from tests.blocks.engines.servers import Server, server

_LINES = ("max_wal_senders = 3", "max_replication_slots = 2", "max_slot_wal_keep_size = 1GB")


@pytest.fixture(scope="module", params=[15, pytest.param(18, marks=pytest.mark.slow)])
def site(request: pytest.FixtureRequest) -> Iterator[Server]:
    lines = ("reserved_connections = 2",) if request.param >= 16 else ()
    with server(request.param, *_LINES, "max_connections = 12", *lines) as made:
        made.run(
            "CREATE ROLE looks LOGIN REPLICATION IN ROLE pg_monitor; CREATE ROLE taker LOGIN"
            " REPLICATION"
        )
        yield made


def _found(site: Server, role: str = "looks", backup: str = "taker") -> dict[str, str]:
    source = site.psql(role, PATIENT_WITH_PRODUCTION)
    limits = rows_of(Limit, places.survey(source, backup))
    facts = replace(survey.survey(source), places=limits)
    found = list(places.findings(facts, "east/db1"))
    assert {item.id for item in found} <= {"source-at-limit"}
    return {item.subject.removeprefix("east/db1 "): item.evidence for item in found}


def _open(stack: ExitStack, site: Server, count: int, role: str = "postgres") -> None:
    where = f"host=127.0.0.1 port={site.port} user={role} dbname=postgres"
    for _ in range(count):
        stack.enter_context(psycopg.connect(where))


def test_it_stops_a_rehearsal() -> None:
    assert catalogue()["source-at-limit"].stops


def test_there_is_room(site: Server) -> None:
    assert _found(site) == {}


def test_slots(site: Server) -> None:
    site.run("SELECT pg_create_physical_replication_slot('s' || i) FROM generate_series(1, 2) i")
    try:
        found = _found(site)  # the readers of both come back, and need senders
        assert found == {
            "max_replication_slots": "max_replication_slots: 2 of 2 used, 1 more needed",
            "max_wal_senders": "max_wal_senders: 2 of 3 used, 2 more needed",
        }
    finally:
        site.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def test_senders(site: Server) -> None:
    with (
        psycopg.connect(
            f"host=127.0.0.1 port={site.port} user=postgres replication=true", autocommit=True
        ),
        psycopg.connect(
            f"host=127.0.0.1 port={site.port} user=postgres replication=true", autocommit=True
        ),
    ):
        assert list(_found(site)) == ["max_wal_senders"]


def test_senders_of_what_is_away_and_comes_back(site: Server) -> None:
    site.run("SELECT pg_create_physical_replication_slot('away')")
    try:
        assert _found(site) == {}
        site.set(restart=False, synchronous_standby_names='ANY 1 ("db2", db2)')
        text = "max_wal_senders: 1 of 3 used, 3 more needed"
        assert _found(site) == {"max_wal_senders": text}
        site.set(restart=False, synchronous_standby_names="*")
        assert _found(site) == {}
    finally:
        site.run("SELECT pg_drop_replication_slot('away')")
        site.set(restart=False, synchronous_standby_names="")


def test_commits_that_wait_for_a_standby_without_a_sender(
    site: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup has the last two, and the standby cannot come back."""
    monkeypatch.setattr(burden, "STUCK_COMMIT_SECONDS", 0)
    watch = burden.Watch(site.psql(), "farside_x", Load())
    where = f"host=127.0.0.1 port={site.port} user=postgres dbname=postgres"
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(psycopg.connect(f"{where} replication=true", autocommit=True))
        watch()
        site.set(restart=False, synchronous_standby_names="db2")
        waits = stack.enter_context(psycopg.connect(where, autocommit=True))
        asked = threading.Thread(target=_commit, args=(waits,))
        asked.start()
        try:
            sync = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            while site.run(sync) != "1":
                time.sleep(0.1)
            with pytest.raises(burden.Burden, match="no WAL sender left"):
                watch()
        finally:
            site.set(restart=False, synchronous_standby_names="")
            asked.join(60)


def _commit(session: "psycopg.Connection[Any]") -> None:
    session.execute("CREATE TABLE IF NOT EXISTS waits (n int)")


def test_sessions_but_those_reserved(site: Server) -> None:
    newer = "18" in site.bin_dir
    with ExitStack() as stack:
        _open(stack, site, 4 if newer else 6)
        assert _found(site, "postgres") == {}
        _open(stack, site, 2)
        name = "max_connections less those reserved"
        used, most = (6, 7) if newer else (8, 9)
        assert _found(site, "postgres") == {name: f"{name}: {used} of {most} used, 2 more needed"}


def test_limits_of_roles(site: Server) -> None:
    site.run("ALTER ROLE taker CONNECTION LIMIT 1")
    try:
        assert list(_found(site)) == ["CONNECTION LIMIT of role taker"]
        site.run("ALTER ROLE taker SUPERUSER")  # who meets none
        assert _found(site) == {}
    finally:
        site.run("ALTER ROLE taker NOSUPERUSER CONNECTION LIMIT -1")


def test_one_role_for_both(site: Server) -> None:
    site.run("ALTER ROLE looks CONNECTION LIMIT 3")
    try:
        assert _found(site) == {}
        name = "CONNECTION LIMIT of role looks"
        assert _found(site, backup="looks") == {name: f"{name}: 0 of 3 used, 4 more needed"}
    finally:
        site.run("ALTER ROLE looks CONNECTION LIMIT -1")


def test_limit_of_the_database(site: Server) -> None:
    site.run("ALTER DATABASE postgres CONNECTION LIMIT 2")
    try:
        assert _found(site) == {}
        with ExitStack() as stack:
            _open(stack, site, 1)
            assert list(_found(site)) == ["CONNECTION LIMIT of database postgres"]
            assert _found(site, "postgres") == {}
    finally:
        site.run("ALTER DATABASE postgres CONNECTION LIMIT -1")
