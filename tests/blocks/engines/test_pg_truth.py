"""PostgreSQL's checks fail on damage, are unknown where they could not look, and else pass."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.engines.checks import run_check
from blocks.engines.postgres import application as application_checks
from blocks.engines.postgres import (
    checks,
    compare,
    counts,
    digest,
    indexes,
    isolation,
    loading,
    references,
    replay,
    survey,
)
from blocks.engines.postgres.application import InTheWay
from blocks.engines.postgres.facts import Database, PostgresFacts, read
from blocks.engines.postgres.files import AtSource
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import NO_LOOK, LastLook, last_look
from blocks.engines.postgres.psql import Psql, SqlError
from blocks.engines.postgres.rows import Collation, Extension, Library, Role
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.engines.postgres.tally import Tally
from blocks.errors import FarsideError, TransientError
from blocks.evidence.record import Check, CheckStatus
from blocks.hosts.local import LocalHost
from blocks.ownership import Belongings
from tests import mechanisms
from tests.blocks.engines.servers import Server, bare, server
from tests.blocks.engines.test_pg_facts import FACTS, row
from tests.blocks.engines.worlds import LEAST, least_privileges

pytestmark = mechanisms.SERVERS

PASSED, FAILED, UNKNOWN = CheckStatus.PASSED, CheckStatus.FAILED, CheckStatus.UNKNOWN
NOWHERE = Belongings()


@pytest.fixture(scope="module")
def made() -> Iterator[Server]:
    with server(15) as one:
        yield one


@pytest.fixture
def shop(made: Server) -> Iterator[Psql]:
    """An administrator's sessions in a server with a database of its own."""
    made.run("CREATE DATABASE shop")
    made.run(
        "CREATE TABLE item (id int PRIMARY KEY, name text);"
        " INSERT INTO item SELECT i, i::text FROM generate_series(1, 1000) i; ANALYZE",
        "shop",
    )
    yield made.psql()
    made.run("DROP DATABASE shop WITH (FORCE)")


def of(psql: Psql) -> list[Database]:
    """What a survey says of the database."""
    return [item for item in survey.survey(psql).databases if item.name == "shop"]


def settle(made: Server) -> None:
    """Let the server's counters be seen."""
    made.run("SELECT pg_stat_force_next_flush()", "shop")


def zero(made: Server, relation: str) -> None:
    """Overwrite all pages of a relation's file."""
    file = made.data / made.run(f"SELECT pg_relation_filepath({relation})", "shop")
    made.ctl("stop", "-m", "fast")
    file.write_bytes(bytes(file.stat().st_size))
    made.ctl("start")


def rows(psql: Psql, there: list[Database], last: LastLook = NO_LOOK) -> Check:
    return run_check(counts.row_counts(psql, there, last))


class TestTally:
    def test_only_damage_is_damage(self) -> None:
        tally = Tally(seen=1)
        with tally.looking("a"):
            raise SqlError("cancelled", sqlstate="57014")
        with tally.looking("b"):
            raise TransientError("gone")
        assert tally.answer("z").status is UNKNOWN
        with tally.looking("c"):
            raise SqlError("bad page", sqlstate="XX001")
        check = tally.answer("z")
        assert (check.status, check.actual) == (FAILED, "c cannot be read: bad page")

    def test_nothing_seen_is_no_yes(self) -> None:
        assert Tally().answer("z").status is UNKNOWN


class TestCounts:
    def test_rows_that_are_missing(self, made: Server, shop: Psql) -> None:
        settle(made)
        there = of(shop)
        last = last_look(shop)
        check = rows(shop, there, last)
        assert check.status is PASSED
        assert "1 of them compared exactly" in str(check.actual)
        made.run("DELETE FROM item WHERE id = 7", "shop")
        assert rows(shop, there, last).status is FAILED, "nothing was written before the loss"
        assert rows(shop, there).status is PASSED, "an estimate: one row may have been deleted"
        made.run("DELETE FROM item WHERE id <= 300", "shop")
        assert rows(shop, there).status is FAILED
        made.run("DELETE FROM item WHERE id > 1", "shop")
        assert rows(shop, there).status is FAILED

    @pytest.mark.parametrize("body", ["helper(0) + $1", "($1::kind)::int"])
    def test_an_index_whose_expression_relies_on_the_search_path(
        self, made: Server, shop: Psql, body: str
    ) -> None:
        """Even to plan a count, the server runs the functions that the index is made with."""
        made.run("CREATE ROLE keeper; CREATE SCHEMA keeper AUTHORIZATION keeper", "shop")
        made.run("GRANT ALL ON SCHEMA public TO keeper; CREATE EXTENSION btree_gist", "shop")
        keeping = "SET ROLE keeper; SET search_path = keeper, public;"
        made.run(
            f"{keeping} CREATE DOMAIN kind AS int; CREATE FUNCTION helper(int) RETURNS int"
            " LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
            " IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN"
            " RAISE 'as a superuser'; END IF; RETURN $1; END $$;"
            " CREATE FUNCTION spot(int) RETURNS int LANGUAGE sql IMMUTABLE"
            f" AS 'SELECT {body}'; CREATE TABLE place (n int, body text);"
            " CREATE AGGREGATE count(boolean) (sfunc = boolne, stype = boolean);"
            " INSERT INTO place SELECT generate_series(1, 100);"
            " CREATE INDEX place_spot ON place USING gist (spot(n)); ANALYZE place",
            "shop",
        )
        there = of(shop)
        check = rows(shop, there)
        made.run(f"{keeping} DELETE FROM place WHERE n > 50", "shop")
        short = rows(shop, there)
        made.run("DROP OWNED BY keeper CASCADE; DROP ROLE keeper", "shop")
        assert check.status is PASSED, check
        assert "1100 rows in 2 tables" in str(check.actual), check
        assert short.status is FAILED, short

    def test_rows_that_were_deleted_meanwhile(self, made: Server, shop: Psql) -> None:
        there = of(shop)
        made.run("DELETE FROM item WHERE id <= 600; SELECT pg_stat_force_next_flush()", "shop")
        settle(made)
        last = last_look(shop)
        assert rows(shop, there, last).status is PASSED

    def test_what_has_neither_count_nor_estimate(self, shop: Psql) -> None:
        there = of(shop)
        tables = tuple(replace(item, count=None, rows=None) for item in there[0].tables or ())
        there = [replace(there[0], tables=tables)]
        assert rows(shop, there).status is UNKNOWN
        assert rows(shop, []).status is UNKNOWN

    def test_values_that_are_stored_apart(self, made: Server, shop: Psql) -> None:
        """A page of zeros is valid to checksums: a disk that lost a write leaves such."""
        made.run(
            "CREATE TABLE doc (t int, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;"
            " INSERT INTO doc SELECT i, repeat('x', 9000) FROM generate_series(1, 20) i; ANALYZE",
            "shop",
        )
        settle(made)
        there, last = of(shop), last_look(shop)
        assert rows(shop, there, last).status is PASSED
        zero(made, "(SELECT reltoastrelid FROM pg_class WHERE relname = 'doc')::regclass")
        check = rows(shop, there, last)
        assert check.status is FAILED
        assert "shop.public.doc cannot be read" in str(check.actual)

    def test_rows_are_read_where_they_are(self, made: Server, shop: Psql) -> None:
        """An index alone could tell their number, once a vacuum has seen every page."""
        made.run(
            "CREATE TABLE wide (n int PRIMARY KEY, a box, b box, c box, d box); INSERT INTO wide"
            " SELECT i, b, b, b, b FROM generate_series(1, 5000) i, box(point(1, 2)) b",
            "shop",
        )
        made.run("VACUUM (ANALYZE) wide", "shop")
        settle(made)
        there, last = of(shop), last_look(shop)
        assert rows(shop, there, last).status is PASSED
        zero(made, "'wide'::regclass")
        assert made.run("SELECT count(*) FROM wide", "shop") == "5000"
        check = rows(shop, there, last)
        assert check.status is FAILED
        assert "shop.public.wide has 0 of 5000" in str(check.actual)

    def test_materialized_views(self, made: Server, shop: Psql) -> None:
        made.run("CREATE MATERIALIZED VIEW report AS SELECT * FROM item", "shop")
        made.run("CREATE MATERIALIZED VIEW later AS SELECT * FROM item WITH NO DATA", "shop")
        settle(made)
        there, last = of(shop), last_look(shop)
        check = rows(shop, there, last)
        assert check.status is PASSED
        assert "2000 rows in 2 tables, 2 of them compared exactly" in str(check.actual)
        made.run("REFRESH MATERIALIZED VIEW report", "shop")
        settle(made)
        assert rows(shop, there, last_look(shop)).status is PASSED
        there, last = of(shop), last_look(shop)
        zero(made, "'report'::regclass")
        check = rows(shop, there, last)
        assert check.status is FAILED
        assert "shop.public.report has 0 of 1000" in str(check.actual)

    def test_contents_of_large_objects(self, made: Server, shop: Psql) -> None:
        made.run(
            "SELECT lo_from_bytea(0, repeat('x', 5000)::bytea) FROM generate_series(1, 5)", "shop"
        )
        made.run("SELECT lo_create(0)", "shop")
        made.run("VACUUM (ANALYZE) pg_largeobject", "shop")
        settle(made)
        there, last = of(shop), last_look(shop)
        assert there[0].object_pages == 15
        assert run_check(counts.large_objects(shop, there, last)).status is PASSED
        zero(made, "'pg_largeobject'::regclass")
        check = run_check(counts.large_objects(shop, there, last))
        assert check.status is FAILED
        assert "shop: pages of contents has 0 of 15" in str(check.actual)

    def test_one_page_of_a_large_object(self, made: Server, shop: Psql) -> None:
        made.run("SELECT lo_from_bytea(7, repeat('x', 5000)::bytea)", "shop")
        settle(made)
        there, last = of(shop), last_look(shop)
        made.run("DELETE FROM pg_largeobject WHERE loid = 7 AND pageno = 1", "shop")
        check = run_check(counts.large_objects(shop, there, last))
        assert check.status is FAILED
        assert "shop: pages of contents has 2 of 3" in str(check.actual)

    def test_large_objects(self, made: Server, shop: Psql) -> None:
        made.run("SELECT lo_create(0) FROM generate_series(1, 20)", "shop")
        settle(made)
        there = of(shop)
        last = last_look(shop)
        assert run_check(counts.large_objects(shop, there, last)).status is PASSED
        made.run("SELECT lo_unlink(min(oid)) FROM pg_largeobject_metadata", "shop")
        assert run_check(counts.large_objects(shop, there, last)).status is FAILED

    def test_a_small_table_that_comes_back_empty(self, made: Server, shop: Psql) -> None:
        made.run("CREATE TABLE few (n int); INSERT INTO few VALUES (1), (2), (3); ANALYZE", "shop")
        settle(made)
        there, before = of(shop), last_look(shop)
        assert rows(shop, there).status is PASSED
        made.run("DELETE FROM few", "shop")
        settle(made)
        assert rows(shop, there, before).status is FAILED
        assert rows(shop, there, last_look(shop)).status is PASSED, "the source deleted them"
        check = rows(shop, there)
        assert check.status is UNKNOWN
        assert "few has 0 of 3: lost, or deleted since the survey" in str(check.actual)

    def test_a_queue_that_is_empty_at_the_end(self, made: Server, shop: Psql) -> None:
        """It is written to at the last look: its counters do not tell what became of it."""
        import psycopg

        made.run("CREATE TABLE queue (n int); INSERT INTO queue VALUES (1); ANALYZE", "shop")
        settle(made)
        there = of(shop)
        place = f"host=127.0.0.1 port={made.port} user=postgres dbname=shop"
        with psycopg.connect(place) as holder:
            holder.execute("INSERT INTO queue VALUES (2)")
            last = last_look(shop)
            holder.rollback()
        made.run("DELETE FROM queue", "shop")
        assert rows(shop, there, last).status is PASSED
        made.run("TRUNCATE queue", "shop")
        assert rows(shop, there, last_look(shop)).status is PASSED

    def test_a_queue_of_a_retained_set(self, made: Server, shop: Psql) -> None:
        """The source was not asked again: what it deleted from before, it may have emptied."""
        made.run(
            "CREATE TABLE queue AS SELECT generate_series(1, 5) AS n; CREATE TABLE few AS TABLE"
            " queue; DELETE FROM queue WHERE n > 3; ANALYZE; SELECT pg_stat_force_next_flush()",
            "shop",
        )
        settle(made)
        there = of(shop)
        made.run("DELETE FROM queue", "shop")
        assert rows(shop, there).status is PASSED
        made.run("DELETE FROM few", "shop")
        check = rows(shop, there)
        assert check.status is UNKNOWN
        assert "queue" not in str(check.actual)

    def test_a_number_that_is_not_exact_says_so(self, made: Server, shop: Psql) -> None:
        settle(made)
        there, last = of(shop), last_look(shop)
        said = str(rows(shop, there, last).actual)
        assert said == "1000 rows in 1 tables, 1 of them compared exactly"
        said = str(rows(shop, there).actual)
        assert said.endswith("0 of them compared exactly, 1 only to about a tenth or 10 rows")

    def test_fewer_large_objects_without_a_last_look(self, made: Server, shop: Psql) -> None:
        made.run("SELECT lo_from_bytea(0, 'x') FROM generate_series(1, 20)", "shop")
        settle(made)
        there = of(shop)
        check = run_check(counts.large_objects(shop, there))
        assert check.status is PASSED
        assert check.actual == "20, compared exactly in 0 of 1 databases"
        nine = "SELECT oid FROM pg_largeobject_metadata ORDER BY oid LIMIT 9"
        made.run(f"SELECT lo_unlink(oid) FROM ({nine}) AS nine", "shop")
        check = run_check(counts.large_objects(shop, there))
        assert check.status is UNKNOWN, check
        assert "shop has 11 of 20" in str(check.actual)
        assert "pages of contents has 11 of 20" in str(check.actual)
        settle(made)
        assert run_check(counts.large_objects(shop, there, last_look(shop))).status is PASSED


class TestSurvey:
    def test_a_locked_table_hides_nothing_else(self, made: Server, shop: Psql) -> None:
        import psycopg

        made.run("CREATE SEQUENCE locked; CREATE VIEW names AS SELECT name FROM item", "shop")
        place = f"host=127.0.0.1 port={made.port} user=postgres dbname=shop"
        with psycopg.connect(place) as holder:
            holder.execute("LOCK TABLE item IN ACCESS EXCLUSIVE MODE")
            holder.execute("ALTER SEQUENCE locked RESTART 5")
            (found,) = of(made.psql(options="-c lock_timeout=300ms -c search_path=pg_catalog"))
        assert found.schema_digest is None
        assert found.unread["schema_digest"] == "SQLSTATE 55P03"
        assert [(row.readable, row.value) for row in found.sequences or ()] == [(False, None)]
        assert [table.name for table in found.tables or ()] == ["item"]
        assert run_check(checks.schema(shop, [found])).status is UNKNOWN
        assert run_check(checks.sequences(shop, [found])).status is UNKNOWN

    def test_a_large_catalog_takes_no_locks_from_others(self, made: Server, shop: Psql) -> None:
        """More objects than the table of locks holds, which is the whole server's."""
        for first in range(0, 3000, 500):
            made.run(
                f"DO $$BEGIN FOR i IN {first} .. {first + 499} LOOP"
                " EXECUTE format('CREATE SEQUENCE s%s', i);"
                " EXECUTE format('CREATE VIEW v%s AS SELECT id FROM item', i);"
                " END LOOP; END$$",
                "shop",
            )
        ask = "SELECT count(*) FROM pg_locks WHERE pid <> pg_backend_pid()"
        most, over = list[int](), threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                most.append(int(made.run(ask)))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            (found,) = of(shop)
            assert run_check(checks.schema(shop, [found])).status is PASSED
            check = run_check(checks.sequences(shop, [found]))
        finally:
            over.set()
            watching.join()
        assert (check.status, check.actual) == (PASSED, "all 3000")
        assert max(most) < 500

    def test_a_digest_of_an_older_set_is_compared_as_it_was_made(self, shop: Psql) -> None:
        (found,) = of(shop)
        former = shop.rows("shop", digest.digest_like("0" * 32))[0]["digest"]
        assert former != found.schema_digest
        assert (
            run_check(checks.schema(shop, [replace(found, schema_digest=former)])).status is PASSED
        )

    def test_what_cannot_be_used_at_the_source(self, made: Server, shop: Psql) -> None:
        made.run(
            "CREATE MATERIALIZED VIEW empty AS SELECT 1 WITH NO DATA;"
            " CREATE INDEX broken ON item (name);"
            " UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass",
            "shop",
        )
        facts = survey.survey(shop)
        check = run_check(checks.indexes_valid(shop, facts.databases))
        assert check.status is PASSED
        assert "2 not usable, as at the source" in str(check.actual)
        found = list(compare.without_host(facts, {}, "west/db1", NOWHERE))
        assert {(item.id, item.severity.value) for item in found} == {
            ("usable-not-restored", "medium")
        }


class TestLogin:
    @pytest.mark.usefixtures("shop")
    def test_a_role_that_the_source_does_not_let_in_either(self, made: Server) -> None:
        made.run("CREATE ROLE retired NOLOGIN; CREATE ROLE late LOGIN VALID UNTIL '2020-01-01'")
        try:
            facts = survey.survey(made.psql())
            refused = compare.refuses(facts, "retired")
            assert refused == "retired has NOLOGIN there"
            application = made.psql("retired")
            assert run_check(application_checks.login(application, ["shop"])).status is FAILED
            check = run_check(
                application_checks.login(application, ["shop"], lambda: InTheWay(refused=refused))
            )
            assert (check.status, refused in str(check.actual)) == (UNKNOWN, True)
            assert compare.refuses(facts, "late") == "VALID UNTIL of late is over there"
            assert compare.refuses(facts, "postgres") == ""
            older = replace(facts, roles=(Role(name="late", password="none"),))
            assert compare.refuses(older, "late") == "", "an older set"
        finally:
            made.run("DROP ROLE retired; DROP ROLE late")


def had(*databases: str) -> LastLook:
    """A last look that saw these databases."""
    return LastLook({"databases": [{"name": name} for name in databases]}, {})


class TestDatabases:
    def check(self, made: Server, last: LastLook) -> Check:
        psql = made.psql()
        gone = replace(*bare("gone"), collate="C", ctype="C")
        facts = replace(survey.survey(psql), databases=(*of(psql), gone))
        installed = Installation(psql.host, made.bin_dir)
        return run_check(checks.Databases(psql, facts, last, installed).check())

    @pytest.mark.usefixtures("shop")
    def test_one_that_is_gone(self, made: Server) -> None:
        dropped = self.check(made, had("shop"))
        assert dropped.status is PASSED
        assert "dropped at the source since the survey: gone" in str(dropped.actual)
        assert self.check(made, had("shop", "gone")).status is FAILED
        assert self.check(made, NO_LOOK).status is UNKNOWN

    def test_one_that_the_source_lets_nobody_enter_either(self, made: Server) -> None:
        """Nobody knows: an encoding, say, that no client of today's reads."""
        made.run("CREATE DATABASE mule TEMPLATE template0 ENCODING 'MULE_INTERNAL' LOCALE 'C'")
        try:
            psql = made.psql()
            facts = survey.survey(psql)
            there = tuple(item for item in facts.databases if item.name == "mule")
            assert "contents" in there[0].unread
            facts = replace(facts, databases=there)
            installed = Installation(psql.host, made.bin_dir)
            check = run_check(checks.Databases(psql, facts, NO_LOOK, installed).check())
            assert check.status is UNKNOWN, check
            found = references.texts(psql, ["mule"], Belongings(networks=("10.0.0.0/8",)))
            assert len(found.unread) == 1
        finally:
            made.run("DROP DATABASE mule")


def test_a_collation_that_was_made_anew(made: Server, shop: Psql) -> None:
    """By another library: its version is another one, and that of its name at the last look."""
    create = "CREATE COLLATION mine (provider = {}, locale = '{}')"
    made.run(f"{create.format('libc', 'C.UTF-8')}; CREATE TABLE w (v text COLLATE mine)", "shop")
    (there,) = of(shop)
    there = replace(there, collations=(Collation(name="public.mine", actual_version="2.36"),))
    before = last_look(shop)
    made.run(f"DROP TABLE w; DROP COLLATION mine; {create.format('icu', 'de')}", "shop")
    made.run("CREATE TABLE w (v text COLLATE mine)", "shop")
    assert run_check(checks.collations(shop, [there], last_look(shop))).status is PASSED
    assert run_check(checks.collations(shop, [there], before)).status is FAILED
    there = replace(there, collations=())
    assert run_check(checks.collations(shop, [there])).status is PASSED, "as it was made"
    made.run("UPDATE pg_collation SET collversion = '1' WHERE collname = 'mine'", "shop")
    assert run_check(checks.collations(shop, [there])).status is UNKNOWN
    assert run_check(checks.collations(shop, [there], last_look(shop))).status is PASSED


class TestIndexes:
    def test_amcheck_in_another_schema(self, made: Server, shop: Psql) -> None:
        made.run("CREATE SCHEMA ext; CREATE EXTENSION amcheck SCHEMA ext", "shop")
        check = run_check(indexes.btrees(shop, bare("shop")))
        assert check.status is PASSED, check
        assert "by amcheck" in str(check.actual)

    def test_scans_of_a_table_whose_owner_may_not_use_its_schema(
        self, made: Server, shop: Psql, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(indexes, "_SCHEMA", "SELECT NULL")
        made.run(
            "CREATE ROLE keeper; CREATE SCHEMA closed; CREATE TABLE closed.own (n int PRIMARY KEY);"
            " INSERT INTO closed.own SELECT generate_series(1, 9);"
            " ALTER TABLE closed.own OWNER TO keeper",
            "shop",
        )
        check = run_check(indexes.btrees(shop, bare("shop")))
        usable = made.run("SELECT has_schema_privilege('keeper', 'closed', 'USAGE')", "shop")
        made.run("DROP OWNED BY keeper CASCADE; DROP ROLE keeper", "shop")
        assert check.status is PASSED, check
        assert usable == "f"

    def test_scans_run_what_users_wrote_as_its_owner(
        self, made: Server, shop: Psql, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(indexes, "_SCHEMA", "SELECT NULL")
        made.run("CREATE ROLE keeper; GRANT ALL ON SCHEMA public TO keeper", "shop")
        made.run(
            "SET ROLE keeper; CREATE TABLE own (n int); INSERT INTO own VALUES (1), (2);"
            " CREATE FUNCTION twice(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
            " IF current_user <> 'keeper' THEN RAISE 'as %', current_user; END IF;"
            " RETURN 2 * n; END $$; CREATE INDEX own_twice ON own (twice(n))",
            "shop",
        )
        check = run_check(indexes.btrees(shop, bare("postgres", "shop")))
        made.run(
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'own_twice'::regclass;"
            " INSERT INTO own VALUES (3);"
            " UPDATE pg_index SET indisready = true WHERE indexrelid = 'own_twice'::regclass",
            "shop",
        )
        broken = run_check(indexes.btrees(shop, bare("shop")))
        made.run("DROP OWNED BY keeper CASCADE; DROP ROLE keeper", "shop")
        assert check.status is PASSED, check
        assert (broken.status, "own_twice" in str(broken.actual)) == (FAILED, True), broken

    def test_an_expression_that_relies_on_the_search_path(self, made: Server, shop: Psql) -> None:
        made.run(
            "CREATE FUNCTION public.helper(text) RETURNS text LANGUAGE sql IMMUTABLE"
            " AS 'SELECT lower($1)'; CREATE SCHEMA app;"
            "CREATE FUNCTION app.norm(text) RETURNS text LANGUAGE plpgsql IMMUTABLE"
            " AS $$BEGIN RETURN helper($1); END$$; CREATE TABLE named AS SELECT 'A' AS name;"
            "CREATE INDEX named_norm ON named (app.norm(name))",
            "shop",
        )
        check = run_check(indexes.btrees(shop, bare("shop")))
        made.run("DROP TABLE named; DROP SCHEMA app CASCADE; DROP FUNCTION public.helper", "shop")
        assert check.status is PASSED, check
        assert "in 1 of them, parent pages were not compared" in str(check.actual), check

    def test_scans_see_rows_that_are_hidden_from_their_owner(
        self, made: Server, shop: Psql, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(indexes, "_SCHEMA", "SELECT NULL")
        made.run("CREATE ROLE keeper; GRANT ALL ON SCHEMA public TO keeper", "shop")
        made.run(
            "SET ROLE keeper; CREATE TABLE own (n int);"
            " ALTER TABLE own ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
            " CREATE POLICY few ON own USING (n < 2) WITH CHECK (true);"
            " INSERT INTO own VALUES (1), (2);"
            " CREATE FUNCTION whose(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
            " IF current_user <> 'keeper' THEN RAISE 'as %', current_user; END IF;"
            " RETURN n; END $$; CREATE INDEX own_whose ON own (whose(n))",
            "shop",
        )
        check = run_check(indexes.btrees(shop, bare("shop")))
        made.run(
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'own_whose'::regclass;"
            " INSERT INTO own VALUES (3);"
            " UPDATE pg_index SET indisready = true WHERE indexrelid = 'own_whose'::regclass",
            "shop",
        )
        broken = run_check(indexes.btrees(shop, bare("shop")))
        forced = made.run("SELECT relforcerowsecurity FROM pg_class WHERE relname = 'own'", "shop")
        made.run("DROP OWNED BY keeper CASCADE; DROP ROLE keeper", "shop")
        assert check.status is PASSED, check
        assert (broken.status, "own_whose" in str(broken.actual)) == (FAILED, True), broken
        assert forced == "t"

    def test_a_database_that_is_read_only(self, made: Server, shop: Psql) -> None:
        made.run("ALTER DATABASE shop SET default_transaction_read_only = on")
        assert run_check(indexes.btrees(shop, bare("shop"))).status is PASSED

    @pytest.mark.usefixtures("shop")
    def test_what_amcheck_may_not_look_at(self, made: Server) -> None:
        made.run("CREATE ROLE guest LOGIN")
        try:
            check = run_check(
                indexes.btrees(made.psql("guest", "-c search_path=pg_catalog"), bare("shop"))
            )
        finally:
            made.run("DROP ROLE guest")
        assert check.status is UNKNOWN, check


class TestSessions:
    def test_a_library_that_is_not_there(self, made: Server, shop: Psql) -> None:
        made.run("CREATE ROLE app LOGIN")
        made.run("ALTER DATABASE shop SET session_preload_libraries = 'only_here'")
        try:
            facts = survey.survey(made.psql(options="-c session_preload_libraries="))
            there = compare.installation(facts, shop.host, made.bin_dir)
            lacking = compare.of_sessions(facts, there, "app", ["shop"])
            check = run_check(
                application_checks.login(
                    made.psql("app", ""), ["postgres", "shop"], lambda: InTheWay(lacking)
                )
            )
            assert (check.status, check.finding) == (FAILED, "library-preloaded")
            assert check.subjects == ("only_here",)
            found = list(compare.on_host(facts, shop.host, made.bin_dir, "west/db1"))
            assert [(item.id, item.subject, item.severity.value) for item in found] == [
                ("library-preloaded", "only_here", "critical")
            ]
        finally:
            made.run("ALTER DATABASE shop RESET session_preload_libraries; DROP ROLE app")


class TestReadOnly:
    """An application's write where default_transaction_read_only is on."""

    WRITE = "INSERT INTO item VALUES (0, 'after')"
    SETTING = "SET default_transaction_read_only"

    @pytest.fixture(autouse=True)
    def app(self, made: Server, shop: Psql) -> Iterator[Psql]:
        made.run("CREATE ROLE app LOGIN; GRANT ALL ON item TO app", "shop")
        yield made.psql("app", "")
        shop.script("shop", "ALTER ROLE ALL RESET ALL; DROP OWNED BY app; DROP ROLE app")

    @pytest.mark.parametrize(
        ("whose", "place"),
        [
            ("DATABASE shop", "database shop"),
            ("ROLE app", "role app"),
            ("ROLE app IN DATABASE shop", "role app in database shop"),
            ("ROLE ALL", "all roles"),
        ],
    )
    def test_so_it_is_at_the_source(self, made: Server, app: Psql, whose: str, place: str) -> None:
        made.run(f"ALTER {whose} {self.SETTING} = yes")
        facts = survey.survey(made.psql(options=PATIENT_WITH_PRODUCTION))
        refused = compare.read_only(facts, "app", "shop")
        check = run_check(application_checks.application_write(app, "shop", self.WRITE, refused))
        assert check.status is UNKNOWN, check
        assert f"the source refuses it as well (default_transaction_read_only of {place})" in str(
            check.actual
        )
        later = last_look(made.psql(options=PATIENT_WITH_PRODUCTION))
        assert compare.read_only(replace(facts, sessions=()), "app", "shop", later) == refused, (
            "set since the survey"
        )

    def test_what_the_source_lets_write(self, made: Server, app: Psql) -> None:
        """A setting of the role goes before one of the database."""
        made.run(f"ALTER DATABASE shop {self.SETTING} = on; ALTER ROLE app {self.SETTING} = off")
        made.run(f"ALTER ROLE app IN DATABASE postgres {self.SETTING} = on")
        facts = survey.survey(made.psql(options=PATIENT_WITH_PRODUCTION))
        source = compare.read_only(facts, "app", "shop")
        assert source is None
        assert compare.read_only(facts, "other", "shop") is not None
        assert (
            run_check(application_checks.application_write(app, "shop", self.WRITE, source)).status
            is PASSED
        )
        made.run(f"ALTER ROLE app {self.SETTING} = on")
        check = run_check(application_checks.application_write(app, "shop", self.WRITE, source))
        assert (check.status, check.finding) == (FAILED, "usable-not-restored")


@pytest.mark.parametrize(
    ("setting", "place", "named"),
    [
        ("session_preload_libraries", "", "corp_one"),
        ("local_preload_libraries", "plugins/", "$libdir/plugins/corp_two"),
        ("archive_library", "", "corp_three"),
    ],
)
def test_libraries_that_the_server_has_all_sessions_load(
    newest: Server, setting: str, place: str, named: str
) -> None:
    """Only the source has them; a restored server, whose settings are its own, works without."""
    program = next(Path(newest.bin_dir).parent.rglob("plpgsql.so"))
    name = named.rpartition("/")[2]
    library = program.parent / f"{place}{name}.so"
    host = LocalHost(name="here", python=sys.executable)
    try:
        library.parent.mkdir(exist_ok=True)
        library.write_bytes(program.read_bytes())
        newest.run("CREATE ROLE clerk")
        newest.run("ALTER ROLE clerk SET session_preload_libraries = '/opt/corp/other'")
        newest.set(restart=False, **{setting: name})
        time.sleep(0.3)  # until the server has read it
        facts = survey.survey(newest.psql(options=PATIENT_WITH_PRODUCTION))
        assert list(compare.on_host(facts, host, newest.bin_dir, "west/db1")) == []
    finally:
        newest.run("ALTER SYSTEM RESET ALL")
        newest.run("SELECT pg_reload_conf()")
        newest.run("DROP ROLE clerk")
        library.unlink(missing_ok=True)
    found = list(compare.on_host(facts, host, newest.bin_dir, "west/db1"))
    assert [(item.id, item.subject) for item in found] == [("library-preloaded", named)]
    assert f"the source's {setting} loads {named}" in found[0].evidence
    assert compare.loaded_by_all(facts) == {setting: [named]}
    found = list(compare.without_host(facts, {}, "west/db1", NOWHERE))
    assert [(item.id, item.subject) for item in found] == [("library-preloaded", "/opt/corp/other")]


@pytest.mark.parametrize("amcheck", [True, False])
@pytest.mark.parametrize("fires", ["ENABLE", "ENABLE ALWAYS", "ENABLE REPLICA"])
def test_an_event_trigger_that_forbids_ddl_is_no_defect(
    made: Server, shop: Psql, fires: str, amcheck: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not amcheck:
        monkeypatch.setattr(indexes, "_SCHEMA", "SELECT NULL")
    made.run(
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql"
        " AS $$BEGIN RAISE 'no DDL in production'; END$$;"
        " CREATE EVENT TRIGGER forbid ON ddl_command_start EXECUTE FUNCTION forbid();"
        f" ALTER EVENT TRIGGER forbid {fires}"
    )
    try:
        if fires != "ENABLE REPLICA":
            with pytest.raises(SqlError, match="no DDL"):
                made.run("CREATE TABLE one (i int)")
        assert (
            run_check(application_checks.committed_write(shop, "r20260701-120000-1a2b3c")).status
            is PASSED
        )
        assert run_check(indexes.btrees(shop, bare("postgres"))).status is PASSED
    finally:
        shop.script("postgres", "DROP EVENT TRIGGER forbid; DROP FUNCTION public.forbid()")


def test_a_transaction_in_doubt_holds_no_check_up(made: Server, shop: Psql) -> None:
    """It came along prepared, and keeps its lock on a table for ever."""
    made.set(max_prepared_transactions="5")
    made.run("CREATE TABLE doubt (i int PRIMARY KEY)", "shop")
    made.run("BEGIN; INSERT INTO doubt VALUES (1); PREPARE TRANSACTION 'x'", "shop")
    try:
        found = run_check(indexes.btrees(shop, bare("shop")))
        assert found.status is PASSED, found.actual
        assert "amcheck" in str(found.actual)
    finally:
        made.run("ROLLBACK PREPARED 'x'; DROP TABLE doubt", "shop")
        made.set(max_prepared_transactions="0")


@pytest.mark.parametrize("whose", ["ROLE ALL", "ROLE postgres", "DATABASE postgres"])
def test_what_sessions_are_made_to_load_is_no_job(made: Server, shop: Psql, whose: str) -> None:
    """Their own settings are in the data; what the server has for all is farside's to set."""
    setting, loaded = "session_preload_libraries", "session_preload_libraries = 'auto_explain'"
    made.run(f"ALTER {whose} SET {loaded}")
    try:
        assert loaded not in str(run_check(isolation.isolation(shop, list)).actual)
        made.set(restart=False, **{setting: "auto_explain"})
        time.sleep(0.2)  # until the server has read it
        assert loaded in str(run_check(isolation.isolation(shop, list)).actual)
    finally:
        made.run(f"ALTER {whose} RESET {setting}; ALTER SYSTEM RESET {setting}")
        made.run("SELECT pg_reload_conf()")


def test_no_damaged_page_is_passed_over(made: Server, shop: Psql) -> None:
    """Whatever the source has its administrators' sessions do."""
    now = "SELECT pg_catalog.current_setting"
    made.run("ALTER ROLE postgres SET zero_damaged_pages = on")
    made.run("ALTER ROLE postgres SET ignore_checksum_failure = on")
    try:
        assert shop.value("shop", f"{now}('zero_damaged_pages')") == "off"
        assert shop.value("shop", f"{now}('ignore_checksum_failure')") == "off"
    finally:
        made.run("ALTER ROLE postgres RESET ALL")


def test_locales_and_zones_that_are_not_there(made: Server, shop: Psql) -> None:
    facts = survey.survey(shop)
    first, *others = facts.databases
    facts = replace(
        facts,
        databases=(replace(first, collate="xx_XX.UTF-8"), *others),
        settings=(*facts.settings, row("lc_monetary", "yy_YY"), row("TimeZone", "Mars/Base")),
    )
    name = first.name
    found = list(compare.on_host(facts, shop.host, made.bin_dir, "west/db1"))
    assert {(item.id, item.subject) for item in found} == {
        ("locale-missing", f"database {name}"),
        ("locale-missing", "setting lc_monetary"),
        ("locale-missing", "setting TimeZone"),
    }


@pytest.mark.parametrize("whose", ["SYSTEM", "DATABASE shop", "ROLE clerk"])
def test_zones_and_abbreviations_of_the_site(newest: Server, whose: str) -> None:
    """Which only the source has; without those of the server itself, none starts."""
    share = Path(newest.bin_dir).parent / "share"
    source = next(share.rglob("timezonesets"))
    zones = source.parent / "timezone"
    # Other workers of pytest may have the same installation.
    corp = f"Corp{whose.split()[0].title()}"
    own = [zones / corp, source / corp]
    host = LocalHost(name="here", python=sys.executable)
    newest.run("CREATE DATABASE shop")
    newest.run("CREATE ROLE clerk")
    try:
        own[0].write_bytes((zones / "UTC").read_bytes())
        own[1].write_text("@INCLUDE Default\n@OVERRIDE\nCORP 3600\n")
        for name in ("TimeZone", "timezone_abbreviations"):
            newest.run(f"ALTER {whose} SET {name} = '{corp}'")
        newest.run("SELECT pg_reload_conf()")
        time.sleep(0.3)  # until the server has read it
        facts = survey.survey(newest.psql(options=PATIENT_WITH_PRODUCTION))
        assert list(compare.on_host(facts, host, newest.bin_dir, "west/db1")) == []
        own[0].unlink()
        own[1].write_text("@INCLUDE Gone\n")
        part = list(compare.on_host(facts, host, newest.bin_dir, "west/db1"))
        own[1].unlink()
        found = list(compare.on_host(facts, host, newest.bin_dir, "west/db1"))
    finally:
        for file in own:
            file.unlink(missing_ok=True)
        newest.run("ALTER SYSTEM RESET ALL")
        newest.run("SELECT pg_reload_conf()")
        newest.run("DROP DATABASE shop")
        newest.run("DROP ROLE clerk")
    of_whom = "" if whose == "SYSTEM" else f" of {whose.lower()}"
    subjects = {f"setting {name}{of_whom}" for name in ("TimeZone", "timezone_abbreviations")}
    assert {(item.id, item.subject) for item in found} == {
        ("locale-missing", subject) for subject in subjects
    }
    assert {item.subject for item in part} == subjects
    assert "includes Gone, which is missing" in part[-1].evidence


@pytest.mark.parametrize(
    ("zone", "is_file"),
    [
        *(("EST5EDT", False), ("<+03>-3", False), ("EST5EDT,M3.2.0/2,M11.1.0/2", False)),
        *(("-3.5", False), ("GMT", False), ("interval '-08:00' hour to minute", False)),
        *(("W-SU", True), ("Etc/GMT+5", True), ("UTC", True), ("CorpTime", True)),
        (":Europe/Berlin", True),
    ],
)
def test_which_time_zones_are_files(zone: str, is_file: bool) -> None:
    facts = replace(read(PostgresFacts, FACTS), settings=(row("TimeZone", zone),))
    named = [item for _, item in compare._zones(facts)]
    assert named == ([zone.removeprefix(":")] if is_file else [])


def test_collations_that_no_column_sorts_by(made: Server, shop: Psql) -> None:
    """Of a domain, and of an expression."""
    made.run(
        "CREATE COLLATION one (provider = libc, locale = 'C.UTF-8');"
        " CREATE COLLATION two (provider = libc, locale = 'C.UTF-8');"
        " CREATE COLLATION idle (provider = libc, locale = 'C.UTF-8');"
        " CREATE DOMAIN code AS text COLLATE one;"
        " ALTER TABLE item ADD CHECK (name COLLATE two > '')",
        "shop",
    )
    (there,) = of(shop)
    assert [row.name for row in there.locales] == ["public.one", "public.two"]


def test_an_installation_without_pg_config(made: Server, tmp_path: Path) -> None:
    """Its directories are those that the server's own program names."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "postgres").write_bytes(Path(made.bin_dir, "postgres").read_bytes())
    host = LocalHost(python=sys.executable)
    there = Installation(
        host,
        str(tmp_path / "bin"),
        libraries=("$libdir/plpgsql", "nowhere"),
        extensions=("plpgsql", "nothing"),
    )
    assert there.lacking("libraries") == {"nowhere": "missing"}
    assert there.lacking("extensions") == {"nothing": "missing"}
    (tmp_path / "bin" / "postgres").write_bytes(b"no server")
    blind = Installation(host, str(tmp_path / "bin"), libraries=("plpgsql",))
    assert blind.lacking("libraries") == {}
    assert blind.unseen("libraries") == ["plpgsql"]


def test_a_build_that_cannot_compress_as_the_source_does(made: Server, tmp_path: Path) -> None:
    host = LocalHost(name="here", python=sys.executable)
    made.run("ALTER SYSTEM SET wal_compression = 'lz4'")
    made.set(restart=False, default_toast_compression="lz4")
    try:
        facts = survey.survey(made.psql())
    finally:
        made.run("ALTER SYSTEM RESET wal_compression")
        made.run("ALTER SYSTEM RESET default_toast_compression")
        made.run("SELECT pg_reload_conf()")
    assert list(compare.on_host(facts, host, made.bin_dir, "west/db1")) == []
    # A server that takes no lz4, as one built without it.
    program = tmp_path / "postgres"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *lz4*) exit 1 ;; esac\nexec {made.bin_dir}/postgres "$@"\n'
    )
    program.chmod(0o755)
    (tmp_path / "pg_config").symlink_to(f"{made.bin_dir}/pg_config")
    found = list(compare.on_host(facts, host, str(tmp_path), "west/db1"))
    assert [item.id for item in found] == ["engine-version"] * 2
    assert "default_toast_compression=lz4" in found[0].evidence
    blind = Installation(host, str(tmp_path / "none"), settings=("wal_compression=lz4",))
    assert blind.lacking("settings") == {}


def test_a_library_that_only_a_start_loads_is_looked_for() -> None:
    """As pg_cron: kept asleep, it refuses to be loaded by a session, and is there."""
    with server(
        15, "shared_preload_libraries = 'pg_cron'", "cron.use_background_workers = on"
    ) as it:
        if not Path("/usr/lib/postgresql/15/lib/pg_cron.so").exists():
            pytest.skip("Debian's postgresql-15-cron is missing")
        it.run("CREATE EXTENSION pg_cron")
        psql = it.psql()
        facts = survey.survey(psql)
        assert compare.asleep(facts) == ["pg_cron"]
        assert compare.libraries(facts) == []
        check = run_check(isolation.isolation(psql, lambda: ["pg_cron"]))
        assert check.status is FAILED
        assert "pg_cron" in str(check.actual)
        it.set(shared_preload_libraries="auto_explain")
        for asleep in (["pg_cron"], []):
            check = run_check(loading.loadable(psql, facts.databases, it.bin_dir, asleep))
            assert check.status is PASSED, check
            assert "not loaded" in str(check.actual)


@pytest.fixture(scope="module")
def newest() -> Iterator[Server]:
    with server(18) as one:
        yield one


@pytest.mark.slow(15)
def test_a_limit_on_transactions_ends_no_check(newest: Server) -> None:
    """Set for the server, the role and the database; each check of an index takes longer."""
    newest.run("CREATE DATABASE shop")
    newest.run(
        "CREATE FUNCTION slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " 'BEGIN PERFORM pg_sleep(0.8); RETURN n; END';"
        " CREATE TABLE item (n int); INSERT INTO item VALUES (1), (2), (3);"
        " CREATE INDEX item_slow ON item (slow(n)); ANALYZE",
        "shop",
    )
    limit = "SET transaction_timeout = '2s'"
    newest.run(f"ALTER ROLE postgres {limit}; ALTER DATABASE shop {limit}")
    newest.set(restart=False, transaction_timeout="2s")
    try:
        with pytest.raises(FarsideError):
            newest.run("SELECT pg_sleep(3)", "shop")
        psql = newest.psql(options=PATIENT_WITH_PRODUCTION)
        assert psql.value("shop", "SELECT count(*) FROM pg_sleep(3)") == "1"
        (there,) = of(psql)
        assert there.unread == {}
        control = newest.psql()
        started = time.monotonic()
        check = run_check(indexes.btrees(control, bare("shop")))
        assert check.status is PASSED, check
        assert time.monotonic() > started + 2, "else the limit was never reached"
        assert run_check(counts.row_counts(control, [there])).status is PASSED
    finally:
        newest.run(
            "ALTER SYSTEM RESET ALL; ALTER ROLE postgres RESET ALL; ALTER DATABASE shop RESET ALL"
        )
        newest.run("SELECT pg_reload_conf()")
        newest.run("DROP DATABASE shop")


@pytest.mark.slow
def test_an_old_version_of_an_extension_that_the_source_does_not_offer_either(
    newest: Server,
) -> None:
    folder = next(Path(newest.bin_dir).parent.rglob("plpgsql.control")).parent
    control, old, new = (folder / f"demo{end}" for end in (".control", "--1.0.sql", "--1.1.sql"))
    host = LocalHost(name="here", python=sys.executable)
    try:
        control.write_text("default_version = '1.0'\n")
        old.write_text("CREATE TABLE demo (n int);\n")
        newest.run("CREATE EXTENSION demo")
        offered = survey.survey(newest.psql())
        control.write_text("default_version = '1.1'\n")
        old.unlink()
        new.write_text("CREATE TABLE demo (n int);\n")
        facts = survey.survey(newest.psql())
        assert list(compare.on_host(facts, host, newest.bin_dir, "west/db1")) == []
        check = run_check(loading.loadable(newest.psql(), facts.databases, newest.bin_dir))
        assert check.status is PASSED, check
        lost = run_check(loading.loadable(newest.psql(), offered.databases, newest.bin_dir))
        assert (lost.status, lost.finding, lost.subjects) == (
            *(FAILED, "extension-missing"),
            ("demo",),
        ), "the source could still install it"
    finally:
        for file in (control, old, new):
            file.unlink(missing_ok=True)


@pytest.mark.slow
def test_a_library_may_be_there_without_the_control_file() -> None:
    """They come in packages of their own: a role that may not look knows of neither."""
    lost = Extension(name="postgis", version="3.5", offered=False, control=False)
    source = AtSource(replace(*bare("shop"), extensions=(lost,)))
    assert source.has("library", "$libdir/postgis-3", "postgis") is None
    there = AtSource(replace(source.database, extensions=(replace(lost, control=True),)))
    assert there.has("library", "$libdir/postgis-3", "postgis") is True


class TestFilesThatTheSourceHasLost:
    """What is restored from it is faithful without them."""

    LIBRARY = "farside_demo"
    FUNCTION = (
        "CREATE FUNCTION conv(int, int, cstring, internal, int, bool) RETURNS int"
        f" AS '$libdir/{LIBRARY}', 'koi8r_to_mic' LANGUAGE c"
    )
    DICTIONARY = "CREATE TEXT SEARCH DICTIONARY corp (TEMPLATE = simple, STOPWORDS = farside_demo)"

    @pytest.fixture
    def files(self, newest: Server) -> Iterator[list[Path]]:
        """A library, stop words and an extension that names the library; and a database."""
        top = Path(newest.bin_dir).parent
        program = next(top.rglob("cyrillic_and_mic.so"))
        share = next(top.rglob("plpgsql.control")).parent
        made = [
            program.with_name(f"{self.LIBRARY}.so"),
            next(top.rglob("tsearch_data")) / "farside_demo.stop",
            share / "farside_demo.control",
            share / "farside_demo--1.0.sql",
        ]
        made[0].write_bytes(program.read_bytes())
        made[1].write_text("the\n")
        made[2].write_text(f"default_version = '1.0'\nmodule_pathname = '$libdir/{self.LIBRARY}'\n")
        made[3].write_text(f"{self.FUNCTION};\n")
        newest.run("CREATE DATABASE shop")
        newest.run(least_privileges("secret"))
        yield made
        newest.run("DROP DATABASE shop WITH (FORCE)")
        newest.run(f"DROP OWNED BY {LEAST}; DROP ROLE {LEAST}")
        for file in made:
            file.unlink(missing_ok=True)

    def surveys(self, made: Server) -> list[PostgresFacts]:
        """By a superuser, and by the documented role."""
        roles = ("postgres", LEAST)
        return [survey.survey(made.psql(role, PATIENT_WITH_PRODUCTION)) for role in roles]

    def loadable(self, made: Server, facts: PostgresFacts) -> Check:
        there = [item for item in facts.databases if item.name == "shop"]
        return run_check(loading.loadable(made.psql(), there, made.bin_dir))

    @pytest.mark.parametrize(
        ("number", "make"), [(0, FUNCTION), (1, DICTIONARY)], ids=["library", "stop words"]
    )
    def test_one_that_no_extension_has(
        self, newest: Server, files: list[Path], number: int, make: str
    ) -> None:
        newest.run(make, "shop")
        before = self.surveys(newest)
        assert [self.loadable(newest, facts).status for facts in before] == [PASSED] * 2
        files[number].unlink()
        here, least = (self.loadable(newest, facts) for facts in before)
        assert (here.status, here.finding) == (FAILED, "extension-missing"), here
        assert least.status is (UNKNOWN if number == 0 else FAILED), least
        assert ("pg_stat_file" in str(least.actual)) is (number == 0)
        here, least = (self.loadable(newest, facts) for facts in self.surveys(newest))
        assert here.status is PASSED, here
        assert "1 that the source has lost as well" in str(here.actual)
        assert least.status is (UNKNOWN if number == 0 else PASSED), least

    def test_a_library_that_the_path_leads_to(self, newest: Server, files: list[Path]) -> None:
        """From 18 on, $libdir/NAME may be a site's library in a directory of its own."""
        newest.run(self.FUNCTION, "shop")
        own = newest.data / "own"
        own.mkdir(0o755)
        shutil.move(files[0], own)
        newest.set(restart=False, dynamic_library_path=f"{own}:$libdir")
        try:
            (row,) = of(newest.psql())[0].libraries or ()
            assert row == Library(name=f"$libdir/{self.LIBRARY}", there=True)
            (own / files[0].name).unlink()
            (row,) = of(newest.psql())[0].libraries or ()
            assert not row.there
        finally:
            newest.set(restart=False, dynamic_library_path="$libdir")
            shutil.rmtree(own)

    def test_a_library_of_an_extension(self, newest: Server, files: list[Path]) -> None:
        host = LocalHost(name="here", python=sys.executable)
        newest.run("CREATE EXTENSION farside_demo", "shop")

        def found(facts: PostgresFacts) -> list[tuple[str, str]]:
            there = compare.on_host(facts, host, newest.bin_dir, "west/db1")
            return [(item.id, item.subject) for item in there]

        before = self.surveys(newest)
        assert [found(facts) for facts in before] == [[], []]
        files[0].unlink()
        for facts in before:
            check = self.loadable(newest, facts)
            assert (check.status, check.subjects) == (FAILED, ("farside_demo",)), check
            assert found(facts) == [("extension-missing", "farside_demo")]
        after = self.surveys(newest)[0]
        assert self.loadable(newest, after).status is PASSED
        assert found(after) == []

    def test_a_whole_extension(self, newest: Server, files: list[Path]) -> None:
        host = LocalHost(name="here", python=sys.executable)
        newest.run("CREATE EXTENSION farside_demo", "shop")
        before = self.surveys(newest)
        for file in files:
            file.unlink()
        after = self.surveys(newest)
        for facts in (*before, *after):
            found = list(compare.on_host(facts, host, newest.bin_dir, "west/db1"))
            assert len(found) == (facts in before), found
        assert {self.loadable(newest, facts).status for facts in before} == {FAILED}
        # A role that may not look for files sees that the control file is gone, and no more.
        assert [self.loadable(newest, facts).status for facts in after] == [PASSED, UNKNOWN]


def test_a_survey_loads_no_library_of_a_dictionary(made: Server, shop: Psql) -> None:
    """Neither that of an extension's template, nor by a thesaurus, which may use any other."""
    made.run("CREATE TEXT SEARCH DICTIONARY plain (TEMPLATE = simple)", "shop")
    made.run("CREATE EXTENSION unaccent", "shop")
    made.run(
        "CREATE TEXT SEARCH DICTIONARY thesaurus"
        " (TEMPLATE = thesaurus, DICTFILE = thesaurus_sample, DICTIONARY = english_stem)",
        "shop",
    )
    (there,) = of(shop)
    assert [(row.name, row.library, row.usable) for row in there.dictionaries or ()] == [
        ("public.plain", None, True),
        ("public.unaccent", "$libdir/unaccent", None),
        ("public.thesaurus", None, None),
    ]
    assert there.libraries == (Library(name="$libdir/unaccent", there=True),)


class TestReplay:
    """What lies behind the place where replay ended."""

    SIZE, END = 2**20, 2**20 + 100 * 8

    def left(self, folder: Path, *segments: bytes) -> Check:
        names = [f"0000000100000000{number:08X}" for number in range(1, len(segments) + 1)]
        for name, data in zip(names, segments, strict=True):
            (folder / name).write_bytes(data)
        host = LocalHost(python=sys.executable)
        return run_check(replay.check(host, str(folder), names, self.SIZE, self.END))

    def segment(self, record: bytes) -> bytes:
        start = self.END % self.SIZE
        whole = bytearray(b"\1" * start + record)
        return bytes(whole + bytes(self.SIZE - len(whole)))

    def test_where_the_log_ends(self, tmp_path: Path) -> None:
        assert self.left(tmp_path, self.segment(b"")).status is PASSED

    def test_a_record_that_has_not_come_whole(self, tmp_path: Path) -> None:
        record = (200).to_bytes(4, "little") + b"\2" * 100
        assert self.left(tmp_path, self.segment(record)).status is PASSED

    def test_a_whole_record_that_was_left_out(self, tmp_path: Path) -> None:
        record = (200).to_bytes(4, "little") + b"\2" * 300
        check = self.left(tmp_path, self.segment(record))
        assert (check.status, check.finding) == (FAILED, "log-replay-short")

    def test_a_length_that_was_damaged(self, tmp_path: Path) -> None:
        """It would reach into the segments that follow, which do not continue it."""
        record = (2**24).to_bytes(4, "little") + b"\2" * 300
        more = b"\3" * self.SIZE
        assert self.left(tmp_path, self.segment(record) + b"", more).status is FAILED

    def test_a_server_that_does_not_say(self, tmp_path: Path) -> None:
        host = LocalHost(python=sys.executable)
        assert run_check(replay.check(host, str(tmp_path), [], self.SIZE, None)).status is UNKNOWN


def test_parts_of_a_survey_are_json_lines(shop: Psql) -> None:
    found, failed = shop.parts("shop", {"one": "SELECT 1 AS n", "two": "SELECT 1 / 0"})
    assert (found, failed) == ({"one": [{"n": 1}]}, {"two": "SQLSTATE 22012"})
    assert json.dumps(found)
