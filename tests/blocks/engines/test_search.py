"""What is searched of a restored PostgreSQL server, on real ones: all of it, and as nobody."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.engines.checks import run_check
from blocks.engines.postgres import counts, references, survey
from blocks.engines.postgres.last_look import NO_LOOK
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.evidence.catalogue import Severity
from blocks.evidence.record import CheckStatus
from blocks.hosts.local import LocalHost
from blocks.ownership import Belongings
from tests.blocks.engines.servers import Server, database, server
from tests.blocks.engines.worlds import least_privileges

LEAST = least_privileges("secret")
EAST = Belongings(networks=("10.9.0.0/16",), suffixes=("old.example",), paths=("/mnt/old",))


@pytest.fixture(scope="module", params=[15, pytest.param(18, marks=pytest.mark.slow)])
def made(request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(request.param) as one:
        yield one


@pytest.fixture
def shop(made: Server) -> Iterator[Psql]:
    """An administrator's sessions in a server with a database of mallory's."""
    made.run("CREATE ROLE mallory LOGIN")
    made.run("CREATE DATABASE shop OWNER mallory")
    made.run("CREATE SCHEMA m AUTHORIZATION mallory", "shop")
    yield made.psql()
    made.run("DROP DATABASE shop WITH (FORCE)")
    made.run("DROP ROLE mallory")


EVIL = """
CREATE FUNCTION m.evil() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  ALTER ROLE mallory SUPERUSER;
EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;
"""


def subjects(found: references.Texts) -> set[str]:
    return {item.subject for item in found.findings(EAST)}


def test_no_code_of_a_tables_owner_runs_as_the_administrator(made: Server, shop: Psql) -> None:
    """Neither a cast, which may hide what is there, nor what the planner runs of an index."""
    made.run(
        EVIL + "CREATE TABLE m.own (at text); INSERT INTO m.own VALUES ('10.9.1.1');"
        "CREATE FUNCTION m.hide(m.own) RETURNS text LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM m.evil(); RETURN 'nothing'; END $$;"
        "CREATE CAST (m.own AS text) WITH FUNCTION m.hide(m.own);"
        "CREATE FUNCTION m.f(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN PERFORM m.evil(); RETURN true; END $$;"
        "CREATE TABLE m.planned (at text); INSERT INTO m.planned VALUES ('10.9.1.2');"
        "CREATE INDEX ON m.planned (at) WHERE m.f(1);"
        "CREATE TABLE m.counted (n int); INSERT INTO m.counted VALUES (1);"
        "CREATE STATISTICS m.s ON (n + m.f(2)::int), n FROM m.counted;",
        "shop",
        "mallory",
    )
    made.run("VACUUM ANALYZE", "shop")
    facts = survey.survey(shop)
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    check = run_check(counts.row_counts(shop, facts.databases, NO_LOOK))
    assert made.run("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") == "f"
    assert subjects(found) == {"shop: table m.own", "shop: table m.planned"}
    assert found.unread == []
    assert check.status is CheckStatus.PASSED, check


def test_a_count_in_production_runs_no_code_of_a_tables_owner(made: Server, shop: Psql) -> None:
    made.run(
        EVIL + "CREATE FUNCTION m.f(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN PERFORM m.evil(); RETURN true; END $$;"
        "CREATE DOMAIN m.d AS int CHECK (m.f(VALUE));"
        "CREATE TABLE m.a (n int); CREATE INDEX ON m.a (n) WHERE m.f(1);"
        "CREATE TABLE m.b (n int); CREATE STATISTICS m.s ON (n + m.f(2)::int), n FROM m.b;"
        "CREATE TABLE m.c (n int); CREATE INDEX ON m.c ((n + 1::m.d));"
        "CREATE TABLE m.plain (n int, t text); CREATE INDEX ON m.plain (lower(t)) WHERE n > 0;",
        "shop",
        "mallory",
    )

    def counted(psql: Psql) -> dict[str, int | None]:
        there = database(survey.survey(psql), "shop")
        return {table.name: table.count for table in there.tables or ()}

    assert counted(shop) == {"a": None, "b": None, "c": None, "plain": 0}
    assert made.run("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") == "f"
    made.run("CREATE TABLE m.stolen (n int)", "shop", "mallory")
    made.run(
        "CREATE OR REPLACE FUNCTION m.evil() RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO m.stolen VALUES (1); EXCEPTION WHEN OTHERS THEN NULL; END $$;"
        "GRANT ALL ON m.stolen TO PUBLIC; GRANT ALL ON SCHEMA m TO PUBLIC;",
        "shop",
        "mallory",
    )
    made.run(LEAST)
    try:
        least = made.psql("farside", PATIENT_WITH_PRODUCTION)
        assert counted(least) == {"a": 0, "b": 0, "c": 0, "plain": 0, "stolen": 0}
        assert made.run("SELECT count(*) FROM m.stolen", "shop") == "0"
    finally:
        made.run("DROP OWNED BY farside; DROP ROLE farside")


def test_rows_are_read_whatever_columns_are_called(made: Server, shop: Psql) -> None:
    made.run(
        "CREATE TABLE m.one (t int, q text, text text, r text);"
        "INSERT INTO m.one VALUES (1, NULL, 'x', 'at 10.9.1.1');"
        "ALTER TABLE m.one ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
        "CREATE TABLE m.none ();",
        "shop",
        "mallory",
    )
    made.run("COMMENT ON SCHEMA public IS 'of 10.9.1.2'", "shop")
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    assert subjects(found) == {"shop: table m.one", "shop: comment on public"}
    assert found.unread == []


def test_compressed_values_are_read_or_told_of(made: Server, shop: Psql) -> None:
    packed = gzip.compress(b'{"sso": "https://sso.old.example/cb"}').hex()
    made.run(
        "CREATE TABLE m.sessions (n int, body bytea);"
        f"INSERT INTO m.sessions VALUES (1, '\\x{packed}'), (2, '\\x00');"
        "CREATE TABLE m.archives (n int, body bytea);"
        "INSERT INTO m.archives VALUES (1, '\\x504b030400');"
        "CREATE TABLE m.logs (n int, body bytea);"
        f"INSERT INTO m.logs VALUES (1, '\\x{gzip.compress(b'quiet').hex()}');",
        "shop",
        "mallory",
    )
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    graver = {item.subject for item in found.findings(EAST) if item.severity is not Severity.INFO}
    assert graver == {"shop: table m.sessions"}
    (told,) = (item for item in found.findings(EAST) if item.severity is Severity.INFO)
    assert told.evidence.endswith("not looked at, in shop: table m.archives")
    assert found.unread == [], "documents make no verdict partial"


def test_a_setting_is_read_where_it_is_asked_for(made: Server, shop: Psql) -> None:
    made.run(
        "ALTER DATABASE shop SET m.site = 'old';"
        "CREATE FUNCTION m.tax() RETURNS text LANGUAGE sql AS"
        " $$ SELECT 'http://tax.' || current_setting('m.site', true) || '.example/' $$;"
        "CREATE VIEW m.stock AS"
        " SELECT format('https://%s.%s.example', 'stock', current_setting('m.site')) AS url;",
        "shop",
    )
    found = references.texts(shop, ["shop"], EAST)
    said = {item.subject: item.evidence for item in found.findings(EAST)}
    assert "tax.old.example" in said["shop: function m.tax()"]
    assert "stock.old.example" in said["shop: view m.stock"]


def test_rows_that_cannot_mention_the_source_use_no_limit_up(
    made: Server, shop: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "ROWS_MOST", 10)
    made.run(
        "CREATE TABLE m.users AS SELECT i, 'u' || i || '@new.example' AS mail,"
        " 'http://10.8.0.' || i AS url FROM generate_series(1, 100) i;"
        "INSERT INTO m.users VALUES (0, 'x@old.example', '');",
        "shop",
        "mallory",
    )
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    assert subjects(found) == {"shop: table m.users"}
    assert found.unread == []
    made.run("UPDATE m.users SET mail = 'old.example'", "shop")
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    assert subjects(found) == {"shop: table m.users"}
    assert found.unread == ["shop: table m.users: more than 10 rows may name the source"]


@pytest.mark.parametrize(
    "text",
    [
        r'{"conf": "listen 5432\n10.9.1.1 db"}',
        r'{"in": "{\"conf\": \"listen 5432\\n10.9.1.1 db\"}"}',
        "http%3A%2F%2F10.9.1.1",
        "[::ffff:10.9.1.1]:5432",
        "::ffff:0a09:0101",
        "%2Fmnt%2Fold%2Fx",
        r"\/mnt\/old",
        r"\ndb1.OLD.example",
        "eyJhcGkiOiAiaHR0cHM6Ly9kYjEub2xkLmV4YW1wbGUvIn0=",
    ],
)
def test_escaped_rows_are_read(made: Server, shop: Psql, text: str) -> None:
    quoted = text.replace("'", "''")
    made.run(f"CREATE TABLE m.one AS SELECT '{quoted}' AS v", "shop", "mallory")
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    assert subjects(found) == {"shop: table m.one"}
    assert found.unread == []


def test_binary_columns_and_large_objects_are_read(made: Server, shop: Psql) -> None:
    made.run(
        "CREATE TABLE m.files AS SELECT convert_to('server: https://10.9.1.1:6443', 'UTF8') AS v;"
        "SELECT lo_from_bytea(70001, convert_to(repeat('x', 5000) || ' /mnt/old/x ', 'UTF8'));"
        "SELECT lo_from_bytea(70002, '\\x000102ff');",
        "shop",
    )
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    assert subjects(found) == {"shop: table m.files", "shop: large object 70001"}
    assert found.unread == []
    assert subjects(references.texts(shop, ["shop"], EAST)) == set()


def test_nothing_is_passed_over_for_where_it_lies(made: Server, shop: Psql) -> None:
    """In an extension, in the system's schema, in a schema that is called as farside's own."""
    body = "RETURNS text LANGUAGE sql AS $$ SELECT 'http://10.9.1.{}' $$"
    made.run(
        f"CREATE FUNCTION m.inhouse() {body.format(1)};"
        "ALTER EXTENSION plpgsql ADD FUNCTION m.inhouse();"
        "CREATE TABLE m.conf AS SELECT 'http://10.9.1.2' AS v;"
        "ALTER EXTENSION plpgsql ADD TABLE m.conf;"
        f"CREATE FUNCTION pg_catalog.mine() {body.format(3)};"
        f"CREATE SCHEMA farside_site; CREATE FUNCTION farside_site.f() {body.format(4)};"
        "CREATE TABLE farside_site.t AS SELECT 'http://10.9.1.5' AS v;"
        "CREATE VIEW m.v AS SELECT 'http://10.9.1.6' AS v; ALTER EXTENSION plpgsql ADD VIEW m.v;",
        "shop",
    )
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    assert subjects(found) == {
        "shop: function m.inhouse()",
        "shop: table m.conf",
        "shop: function mine()",
        "shop: function farside_site.f()",
        "shop: table farside_site.t",
        "shop: view m.v",
    }
    there = database(survey.survey(shop), "shop")
    assert "farside_site" in {table.schema for table in there.tables or ()}


def test_what_the_source_could_not_read_either(made: Server, shop: Psql) -> None:
    made.run(
        "CREATE MATERIALIZED VIEW m.empty AS SELECT 'http://10.9.1.1' AS v WITH NO DATA",
        "shop",
        "mallory",
    )
    found = references.texts(shop, ["shop"], EAST, rows=60.0)
    assert subjects(found) == {"shop: materialized view m.empty"}
    assert found.unread == []


def test_what_is_locked_hides_nothing_else(
    made: Server, shop: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a transaction in doubt, which came along."""
    monkeypatch.setattr(references, "LOCK_SECONDS", 0.2)
    made.set(max_prepared_transactions="5")
    made.run(
        "CREATE TABLE m.locked (v text DEFAULT '10.9.1.1');"
        "CREATE TABLE m.free AS SELECT '10.9.1.2' AS v;"
        "CREATE VIEW m.w AS SELECT v FROM m.locked;"
        "CREATE FUNCTION m.f() RETURNS text LANGUAGE sql AS $$ SELECT '10.9.1.3'::text $$;",
        "shop",
        "mallory",
    )
    made.run("BEGIN; LOCK m.locked; PREPARE TRANSACTION 'doubt'", "shop")
    try:
        found = references.texts(shop, ["shop", "postgres"], EAST, rows=60.0)
    finally:
        made.run("ROLLBACK PREPARED 'doubt'", "shop")
    assert {"shop: table m.free", "shop: function m.f()"} <= subjects(found)
    assert found.unread
    assert all("lock timeout" in item for item in found.unread)


def test_databases_are_those_that_are_there(made: Server, shop: Psql) -> None:
    made.run("CREATE DATABASE closed")
    made.run("UPDATE pg_database SET datallowconn = false WHERE datname = 'closed'")
    try:
        assert references.databases(shop) == (["postgres", "shop", "template1"], ["closed"])
    finally:
        made.run("DROP DATABASE closed")


def test_a_short_name_is_a_hosts_where_its_column_says_so(made: Server, shop: Psql) -> None:
    made.run(
        "CREATE SCHEMA cron; CREATE TABLE cron.job (jobid int, command text, nodename text);"
        " INSERT INTO cron.job VALUES (1, 'SELECT 1', 'backup')",
        "shop",
    )
    found = references.texts(shop, ["shop"], EAST)
    assert found.hosts((), EAST) == {"backup": "shop: table cron.job"}


def test_files_of_foreign_data_that_a_host_lacks(tmp_path: Path) -> None:
    here = tmp_path / "rates.csv"
    here.touch()
    found = references.Texts(
        rows=[
            ("shop: foreign table rates", f"filename={here}\nformat=csv"),
            ("shop: foreign table gone", "filename=/srv/import/gone.csv"),
            ("shop: user mapping of app on crm", "passfile=/home/app/.pgpass"),
            ("shop: foreign table told", "filename=/mnt/old/x.csv"),
            ("shop: function f()", "filename=/srv/import/other.csv"),
        ]
    )
    told = list(found.files_missing(LocalHost(name="here"), EAST))
    assert [(item.id, item.subject, item.severity) for item in told] == [
        ("path-hard-coded", "shop: foreign table gone", Severity.MEDIUM),
        ("path-hard-coded", "shop: user mapping of app on crm", Severity.MEDIUM),
    ]
