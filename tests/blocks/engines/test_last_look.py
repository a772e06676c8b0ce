"""What the source itself changes between its survey and its loss is no damage, and hides none.

Real servers: what one is after its last look stands for what was restored.
"""

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from blocks.engines.checks import run_check
from blocks.engines.common.tally import NOT_ASKED, Tally
from blocks.engines.postgres import checks, counts, loading, survey
from blocks.engines.postgres.facts import Database, PostgresFacts
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import NO_LOOK, LastLook, last_look
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.rows import Role
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.evidence.record import Check, CheckStatus
from blocks.hosts.local import LocalHost
from tests import mechanisms
from tests.blocks.engines.servers import Server, server, standby, streams

pytestmark = mechanisms.SERVERS

PASSED, FAILED, UNKNOWN = CheckStatus.PASSED, CheckStatus.FAILED, CheckStatus.UNKNOWN


@pytest.mark.parametrize(
    ("found", "first", "last", "status"),
    [
        ("a", "a", "a", PASSED),
        ("a", "a", "b", PASSED),  # restored to before the change
        ("b", "a", "b", PASSED),
        ("c", "a", "a", FAILED),
        ("c", "a", "b", UNKNOWN),
        ("a", "a", NOT_ASKED, PASSED),
        ("c", "a", NOT_ASKED, UNKNOWN),
    ],
)
def test_either_of_two_states_is_right(
    found: str, first: str, last: object, status: CheckStatus
) -> None:
    tally = Tally(seen=1)
    tally.compare("it", "it is wrong", found, first, last)
    check = tally.answer("z")
    assert check.status is status, check
    assert ("changed at the source since the survey: it" in str(check.actual)) is (
        last == "b" and found != "c"
    )


@pytest.fixture(scope="module", params=[15, pytest.param(18, marks=pytest.mark.slow)])
def made(request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(request.param) as one:
        yield one


@dataclass
class Source:
    """A server with a database, surveyed."""

    server: Server
    facts: PostgresFacts

    @property
    def control(self) -> Psql:
        return self.server.psql()

    @property
    def there(self) -> list[Database]:
        return [item for item in self.facts.databases if item.name == "shop"]

    def run(self, sql: str) -> None:
        self.server.run(sql, "shop")

    def look(self) -> LastLook:
        """As just before the loss, with all counters told."""
        self.run("SELECT pg_stat_force_next_flush()")
        return last_look(self.server.psql(options=PATIENT_WITH_PRODUCTION))

    def found(self, last: LastLook) -> dict[str, Check]:
        """What each check says of the server as it is now."""
        control, there = self.control, self.there
        made = (
            run_check(checks.roles(control, self.facts, last)),
            run_check(checks.schema(control, there, last)),
            run_check(checks.sequences(control, there, last)),
            run_check(counts.row_counts(control, there, last)),
            run_check(counts.large_objects(control, there, last)),
            run_check(loading.loadable(control, there, self.server.bin_dir, (), last)),
            run_check(checks.indexes_valid(control, there, last)),
            run_check(checks.collations(control, there, last)),
        )
        return {check.name: check for check in made}

    def statuses(self, last: LastLook) -> dict[str, CheckStatus]:
        """Of those that did not pass."""
        found = self.found(last)
        return {name: c.status for name, c in found.items() if c.status is not PASSED}


@pytest.fixture
def source(made: Server) -> Iterator[Source]:
    made.run("CREATE ROLE lodger; CREATE DATABASE shop")
    made.run(
        "CREATE TABLE item (id int PRIMARY KEY, name text);"
        " INSERT INTO item SELECT i, i::text FROM generate_series(1, 1000) i;"
        " CREATE TABLE staging (n int); INSERT INTO staging SELECT generate_series(1, 500);"
        " CREATE TABLE old (id serial); INSERT INTO old SELECT FROM generate_series(1, 50);"
        " CREATE SEQUENCE round MAXVALUE 40 CYCLE; CREATE SEQUENCE ticket;"
        " SELECT nextval('round'), nextval('ticket') FROM generate_series(1, 30);"
        " SELECT lo_create(0) FROM generate_series(1, 20); ANALYZE;"
        " SELECT pg_stat_force_next_flush()",
        "shop",
    )
    made.run("SELECT pg_stat_force_next_flush()", "shop")
    yield Source(made, survey.survey(made.psql(options=PATIENT_WITH_PRODUCTION)))
    made.run("DROP DATABASE shop WITH (FORCE)")
    made.run("DROP ROLE IF EXISTS lodger; DROP ROLE IF EXISTS newcomer")


def test_nothing_moved(source: Source) -> None:
    assert source.statuses(source.look()) == {}
    assert source.statuses(NO_LOOK) == {}


CHANGES = {
    "roles": "DROP ROLE lodger; CREATE ROLE newcomer",
    "row-counts": "DROP TABLE old; ALTER TABLE item RENAME TO article; TRUNCATE staging",
    "sequences": "DROP SEQUENCE ticket; TRUNCATE old RESTART IDENTITY;"
    " SELECT nextval('round') FROM generate_series(1, 15)",
    "schema-digest": "CREATE TABLE part_20260101 (n int)",
    "large-objects": "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    "indexes-valid": "CREATE MATERIALIZED VIEW later AS SELECT 1 WITH NO DATA",
}
UNSURE = {"roles", "row-counts", "sequences", "schema-digest", "indexes-valid"}
"""What nobody knows of such a change where the source was not asked again."""


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_source_changed_itself(source: Source, name: str) -> None:
    source.run(CHANGES[name])
    assert source.statuses(source.look()) == {}
    alone = source.statuses(NO_LOOK)
    assert (alone.get(name) is UNKNOWN) is (name in UNSURE), alone
    if name in UNSURE:
        assert FAILED not in alone.values()


def test_what_is_named_as_changed(source: Source) -> None:
    source.run(";".join(CHANGES[name] for name in ("roles", "sequences", "schema-digest")))
    found = source.found(source.look())
    assert (
        str(found["roles"].actual) == "all 1 roles; dropped at the source since the survey: lodger"
    )
    said = str(found["sequences"].actual)
    assert "dropped at the source since the survey: shop.public.ticket" in said
    assert "changed at the source since the survey: shop.public.old_id_seq" in said
    assert "changed at the source since the survey: shop" in str(found["schema-digest"].actual)


def test_an_index_that_is_being_made(source: Source) -> None:
    """CREATE INDEX CONCURRENTLY waits for writers, and its index is not valid meanwhile."""
    place = f"host=127.0.0.1 port={source.server.port} user=postgres dbname=shop"
    make = threading.Thread(
        target=source.run, args=("CREATE INDEX CONCURRENTLY slow ON item (name)",)
    )
    ask = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    with psycopg.connect(place) as holder:
        holder.execute("DELETE FROM item WHERE id = 1")
        before = source.look()
        make.start()
        while source.server.run(ask, "shop") == "0":
            pass
        assert source.statuses(source.look()) == {}
        begun_after = source.found(before)["indexes-valid"]
        assert begun_after.status is UNKNOWN, begun_after
        assert source.found(NO_LOOK)["indexes-valid"].status is UNKNOWN
        holder.rollback()
    make.join()


SPOIL = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'byname'::regclass"
AGAIN = "DROP INDEX byname; CREATE INDEX byname ON item (name)"


def test_an_index_that_is_made_again(source: Source) -> None:
    """Under its old name it is another one, which CREATE INDEX CONCURRENTLY may not have done."""
    source.run("CREATE INDEX byname ON item (name)")
    before = source.look()
    source.run(f"{AGAIN};{SPOIL}")
    made_later = source.found(before)["indexes-valid"]
    assert made_later.status is UNKNOWN, made_later
    assert source.found(source.look())["indexes-valid"].status is PASSED


@pytest.mark.parametrize("older", [False, True])
def test_another_index_than_one_that_the_source_could_not_use(source: Source, older: bool) -> None:
    source.run(f"CREATE INDEX byname ON item (name);{SPOIL}")
    source.facts = survey.survey(source.control)
    if older:
        source.facts = replace(
            source.facts,
            databases=tuple(
                replace(item, unusable=tuple(replace(row, oid=None) for row in item.unusable or ()))
                for item in source.facts.databases
            ),
        )
    assert source.found(NO_LOOK)["indexes-valid"].status is PASSED
    source.run(AGAIN)
    last = source.look()
    source.run(SPOIL)
    check = source.found(last)["indexes-valid"]
    assert check.status is (PASSED if older else FAILED), check


DAMAGE = {
    "roles": "DROP ROLE lodger",
    "row-counts": "DROP TABLE old",
    "sequences": "DROP SEQUENCE ticket",
    "schema-digest": "ALTER TABLE item DROP CONSTRAINT item_pkey",
    "large-objects": "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    "indexes-valid": "UPDATE pg_index SET indisvalid = false"
    " WHERE indexrelid = 'item_pkey'::regclass",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_the_source_had_to_the_end_is_damage(source: Source, name: str) -> None:
    """Whatever else it changed."""
    source.run("CREATE TABLE other (n int); CREATE ROLE newcomer; DROP TABLE staging")
    if name == "schema-digest":  # one digest tells nothing of two changes
        source.facts = survey.survey(source.control)
    last = source.look()
    source.run(DAMAGE[name])
    check = source.found(last)[name]
    assert check.status is FAILED, check


IN_TURN = {
    "roles": ("DROP ROLE lodger", "CREATE ROLE lodger"),
    "row-counts": (
        "DROP TABLE old",
        "CREATE TABLE old (id serial); INSERT INTO old SELECT FROM generate_series(1, 50)",
    ),
    "sequences": ("DROP SEQUENCE ticket", "CREATE SEQUENCE ticket"),
    "schema-digest": (
        "ALTER TABLE item DROP CONSTRAINT item_pkey",
        "ALTER TABLE item ADD PRIMARY KEY (id)",
    ),
}


@pytest.mark.parametrize("name", IN_TURN)
def test_what_comes_and_goes_may_be_gone_at_the_end(source: Source, name: str) -> None:
    """At both looks it was there: another one, and none between."""
    gone, made = IN_TURN[name]
    source.run(gone)
    source.run(made)
    last = source.look()
    source.run(gone)
    check = source.found(last)[name]
    assert check.status is UNKNOWN, check


def test_a_database_that_comes_and_goes_may_be_gone_at_the_end(source: Source) -> None:
    source.server.run("CREATE DATABASE other")
    facts = survey.survey(source.control)
    source.server.run("DROP DATABASE other")
    here = Installation(LocalHost(name="here"), source.server.bin_dir)

    def status(last: LastLook) -> CheckStatus:
        return run_check(checks.Databases(source.control, facts, last, here).check()).status

    assert status(source.look()) is PASSED
    source.server.run("CREATE DATABASE other")
    last = source.look()
    source.server.run("DROP DATABASE other")
    assert status(last) is UNKNOWN


def test_a_sequence_that_is_restarted_in_turns(source: Source) -> None:
    """A table that is emptied and filled each time: its definition restarts it."""
    last = source.look()
    source.run("TRUNCATE old RESTART IDENTITY")
    check = source.found(last)["sequences"]
    assert check.status is UNKNOWN, check


@pytest.mark.parametrize(
    ("name", "change", "more"),
    [
        ("schema-digest", "CREATE TABLE one (n int)", "CREATE TABLE two (n int)"),
        (
            "sequences",
            "ALTER SEQUENCE ticket RESTART; SELECT nextval('ticket') FROM generate_series(1, 9)",
            "ALTER SEQUENCE ticket RESTART",
        ),
        (
            "sequences",  # set back after the last look
            "SELECT nextval('ticket') FROM generate_series(1, 9)",
            "SELECT setval('ticket', 20)",
        ),
        (
            "row-counts",
            "TRUNCATE staging; INSERT INTO staging SELECT generate_series(1, 400)",
            "TRUNCATE staging",
        ),
    ],
)
def test_what_lies_between_the_two_looks_is_unknown(
    source: Source, name: str, change: str, more: str
) -> None:
    source.run(change)
    last = source.look()
    source.run(more)
    check = source.found(last)[name]
    assert check.status is UNKNOWN, check
    assert "since the survey" in str(check.actual) or "since, and was at" in str(check.actual)


def test_a_sequence_that_the_source_left_alone(source: Source) -> None:
    last = source.look()
    source.run("SELECT nextval('ticket') FROM generate_series(1, 32)")
    assert source.found(last)["sequences"].status is PASSED, "as far as its log is ahead"
    source.run("SELECT setval('ticket', 20)")
    check = source.found(last)["sequences"]
    assert check.status is FAILED, check
    assert "shop.public.ticket is at 20, was at 30" in str(check.actual)


def test_rows_that_nobody_wrote_are_not_passed_over(source: Source) -> None:
    """Deleted ones are back where the log of commits is damaged, say."""
    last = source.look()
    source.run("INSERT INTO item SELECT i, 'x' FROM generate_series(2001, 2050) i")
    assert source.found(last)["row-counts"].status is PASSED, "a few may come at the end"
    source.run("INSERT INTO item SELECT i, 'x' FROM generate_series(3001, 3500) i")
    check = source.found(last)["row-counts"]
    assert check.status is UNKNOWN, check
    assert "shop.public.item has 1550, had 1000" in str(check.actual)


def test_a_busy_table_is_held_against_the_estimates(source: Source) -> None:
    """While somebody writes to it, its counters say nothing."""
    source.run("DELETE FROM item WHERE id <= 600; ANALYZE item; SELECT pg_stat_force_next_flush()")
    place = f"host=127.0.0.1 port={source.server.port} user=postgres dbname=shop"
    with psycopg.connect(place) as holder:
        holder.execute("INSERT INTO item VALUES (0, 'x')")
        last = source.look()
        assert source.found(last)["row-counts"].status is PASSED
        holder.rollback()
    source.run("DELETE FROM item WHERE id <= 800")
    assert source.found(last)["row-counts"].status is FAILED


def test_a_database_that_takes_no_connections_any_more(source: Source) -> None:
    def check(last: LastLook) -> CheckStatus:
        lacking: Any = None
        return run_check(
            checks.Databases(source.control, source.facts, last, lacking).check()
        ).status

    open_still = source.look()
    source.server.run("ALTER DATABASE shop ALLOW_CONNECTIONS false")
    assert check(last_look(source.control)) is PASSED
    assert check(NO_LOOK) is UNKNOWN
    assert check(open_still) is FAILED
    source.server.run("ALTER DATABASE shop ALLOW_CONNECTIONS true")


def test_an_extension_that_nobody_knows(source: Source) -> None:
    """Made after the survey: whether the source could offer it, only a last look tells."""
    databases = tuple(replace(item, extensions=()) for item in source.facts.databases)
    source.facts = replace(source.facts, databases=databases)
    last = source.look()
    source.run("UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'plpgsql'")
    assert source.found(NO_LOOK)["loadable"].status is UNKNOWN
    assert source.found(last)["loadable"].status is FAILED
    assert source.found(source.look())["loadable"].status is PASSED, "it has no such file either"


def test_a_part_that_takes_too_long_hides_no_other(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = "blocks.engines.postgres.last_look"
    monkeypatch.setitem(sys.modules[inside]._OF_DATABASE, "tables", "SELECT pg_sleep(9)")
    monkeypatch.setattr(f"{inside}._STATEMENT", "SET statement_timeout = '300ms';\n")
    last = source.look()
    assert last.rows("shop", "tables") is None
    assert last.rows("shop", "counters")
    assert last.has("roles", Role(name="lodger", password="none")) is True


@pytest.mark.slow(25)
def test_a_standby_that_is_behind_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is restored has all of the log that it has received, and is newer than it."""
    monkeypatch.setattr("blocks.engines.postgres.last_look._CATCH_UP_SECONDS", 0.5)
    with server(15, "max_wal_senders = 3") as primary, standby(primary) as near:
        primary.run("CREATE ROLE lodger; CREATE DATABASE shop")
        primary.run(
            "CREATE TABLE item (id int); INSERT INTO item SELECT generate_series(1, 20000);"
            " CREATE SEQUENCE ticket; SELECT nextval('ticket') FROM generate_series(1, 50);"
            " ANALYZE",
            "shop",
        )
        assert streams(near)
        received(near, primary)
        source = Source(primary, survey.survey(near.psql(options=PATIENT_WITH_PRODUCTION)))
        near.run("SELECT pg_wal_replay_pause()")
        primary.run("DROP ROLE lodger")
        primary.run(
            "DELETE FROM item WHERE id % 2 = 0; ALTER SEQUENCE ticket RESTART;"
            " CREATE TABLE late (id int)",
            "shop",
        )
        received(near, primary, replayed=False)
        assert last_look(near.psql(options=PATIENT_WITH_PRODUCTION)) == NO_LOOK
        assert set(source.statuses(NO_LOOK).values()) == {UNKNOWN}
        near.run("SELECT pg_wal_replay_resume()")
        last = last_look(near.psql(options=PATIENT_WITH_PRODUCTION))
        assert last.standby
        # It has no counters, and its estimates are those of an ANALYZE long ago.
        assert source.statuses(last) == {"row-counts": UNKNOWN}


def received(near: Server, primary: Server, *, replayed: bool = True) -> None:
    """Wait until a standby has all of its primary's log."""
    end = primary.run("SELECT pg_current_wal_flush_lsn()")
    position = "pg_last_wal_replay_lsn()" if replayed else "pg_last_wal_receive_lsn()"
    for _ in range(100):
        if near.run(f"SELECT {position} >= '{end}'") == "t":
            return
        time.sleep(0.1)
    raise AssertionError("it does not come")
