"""Administrative sessions: their own settings, no code of users' as an administrator."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.engines.postgres import survey
from blocks.engines.postgres.psql import CLUSTER, LoginRefused, Psql, SqlError, Unexplained
from blocks.engines.postgres.sessions import AS_OWNER, PATIENT_WITH_PRODUCTION, UNHURRIED
from blocks.errors import PermanentError, TransientError
from tests.blocks.engines.servers import Server, server

HOSTILE = {
    "temp_file_limit": "64kB",
    "search_path": "public, pg_catalog",
    "role": "mallory",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "default_transaction_read_only": "on",
    "client_encoding": "LATIN1",
    "client_min_messages": "debug1",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "standard_conforming_strings": "off",
    "row_security": "on",
    "quote_all_identifiers": "on",
}
TRAP = """
CREATE FUNCTION public.promote() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'none', false);
  EXECUTE 'ALTER ROLE mallory SUPERUSER';
EXCEPTION WHEN OTHERS THEN NULL;
END $$;
CREATE FUNCTION public.format(text, name, name, "char", "char", name, aclitem[], boolean)
  RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM public.promote(); RETURN ''trapped''; END';
CREATE FUNCTION public.md5(text) RETURNS text LANGUAGE plpgsql AS
  'BEGIN PERFORM public.promote(); RETURN ''trapped''; END';
CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE plpgsql AS
  'BEGIN PERFORM public.promote(); RETURN ''150000''; END';
CREATE FUNCTION public.less(real, integer) RETURNS boolean LANGUAGE plpgsql AS
  'BEGIN PERFORM public.promote(); RETURN false; END';
CREATE OPERATOR public.< (LEFTARG = real, RIGHTARG = integer, FUNCTION = public.less);
CREATE FUNCTION public.same(name, text) RETURNS boolean LANGUAGE plpgsql AS
  'BEGIN PERFORM public.promote(); RETURN false; END';
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.same);
CREATE OPERATOR public.<> (LEFTARG = name, RIGHTARG = text, FUNCTION = public.same);
CREATE TABLE public.pg_class (relname name);
CREATE TABLE public.victim (n int);
"""


@pytest.fixture(scope="module", params=[15, 18])
def made(request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(request.param) as made:
        made.run("CREATE ROLE mallory LOGIN; CREATE DATABASE shop OWNER mallory")
        made.run("GRANT CREATE ON SCHEMA public TO mallory")
        made.run("GRANT mallory TO postgres")
        for database in ("shop", "postgres"):
            made.run("GRANT CREATE ON SCHEMA public TO mallory", database)
            made.run(TRAP, database, role="mallory")
        yield made


@pytest.fixture
def hostile(made: Server) -> Iterator[Server]:
    """Settings of role and database that an administrator's session must not have."""
    timeout = {} if made.psql().value("postgres", _version) < "170000" else TIMEOUT  # type: ignore[operator]
    for name, value in {**HOSTILE, **timeout}.items():
        text = value if name == "search_path" else f"'{value}'"
        made.run(f"ALTER DATABASE shop SET {name} = {text}")
        made.run(f"ALTER ROLE postgres IN DATABASE shop SET {name} = {text}")
    yield made
    made.run("ALTER DATABASE shop RESET ALL; ALTER ROLE postgres IN DATABASE shop RESET ALL")


_version = "SELECT current_setting('server_version_num')"
TIMEOUT = {"transaction_timeout": "30ms"}


def superuser(made: Server) -> bool:
    return made.run("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") == "t"


@pytest.mark.parametrize("options", [UNHURRIED, PATIENT_WITH_PRODUCTION])
def test_settings_of_roles_and_databases_are_without_force(hostile: Server, options: str) -> None:
    psql = hostile.psql(options=options)
    settings = {
        row["name"]: row["setting"]
        for row in psql.rows("shop", "SELECT name, setting FROM pg_settings, pg_sleep(0.1)")
    }
    assert settings["search_path"].replace(" ", "") == "pg_catalog,pg_temp"
    assert psql.value("shop", "SELECT current_user") == "postgres"
    for name, value in HOSTILE.items():
        if name not in ("role", "client_min_messages"):
            assert settings[name].lower() != value.lower(), name
    assert settings["client_encoding"] == "SQL_ASCII", "the database's own: UTF8, unconverted"
    assert settings.get("transaction_timeout", "0") == "0"
    assert settings["temp_file_limit"] == "-1"
    if options == UNHURRIED:
        assert (settings["statement_timeout"], settings["lock_timeout"]) == ("0", "60000")


def test_what_users_defined_is_not_called_by_a_survey(hostile: Server) -> None:
    facts = survey.survey(hostile.psql(options=PATIENT_WITH_PRODUCTION))
    assert {row.name for row in facts.databases} >= {"shop", "postgres"}
    assert not superuser(hostile)


def test_the_trap_works_where_a_session_is_not_guarded(hostile: Server) -> None:
    """Else the test above would show nothing."""
    unguarded = "SET ROLE NONE; SET search_path = public, pg_catalog;"
    hostile.run(f"{unguarded} SELECT md5('a')", "postgres")
    assert superuser(hostile)
    hostile.run("ALTER ROLE mallory NOSUPERUSER")


def test_code_of_an_owner_cannot_return_to_the_administrator(made: Server) -> None:
    call = "SELECT pg_temp.farside_as_owner('mallory', '{}');"
    script = f"BEGIN;\n{AS_OWNER}{call}\nROLLBACK;"
    asked = "SELECT to_jsonb(current_user::text)"
    assert json.loads(made.psql().script("shop", script.format(asked))) == "mallory"
    taking = "SELECT to_jsonb(public.promote()::text)"
    made.psql().script("shop", script.replace("ROLLBACK", "COMMIT").format(taking))
    assert not superuser(made)


def test_no_view_is_read_in_the_place_of_a_table(made: Server) -> None:
    made.run(
        "CREATE VIEW public.swapped AS SELECT 1 WHERE public.promote() IS NULL",
        "shop",
        role="mallory",
    )
    with suppress(SqlError):  # versions that know the setting refuse
        made.psql().value("shop", "SELECT count(*) FROM public.swapped")
    made.run("DROP VIEW public.swapped", "shop", role="mallory")
    version = made.psql().value("postgres", "SELECT current_setting('server_version')")
    assert not superuser(made), version


def test_the_settings_of_other_sessions_are_seen(made: Server) -> None:
    made.set(restart=False, search_path="audit", statement_timeout="7min")
    try:
        facts = survey.survey(made.psql(options=PATIENT_WITH_PRODUCTION))
        made.run("ALTER ROLE postgres SET role = 'mallory'")
        facts = survey.survey(made.psql(options=PATIENT_WITH_PRODUCTION))
        found = {row.name: row.setting for row in facts.settings}
        assert found["search_path"] == "audit"
        (limit,) = (row for row in facts.settings if row.name == "statement_timeout")
        assert limit.sourcefile  # which not everybody sees
        assert found["statement_timeout"] == "420000"
    finally:
        made.psql().script("postgres", "ALTER ROLE postgres RESET role")
        made.run("ALTER SYSTEM RESET ALL")
        made.run("SELECT pg_reload_conf()")


def test_errors_are_told_apart_by_code(made: Server) -> None:
    psql = made.psql()
    with pytest.raises(SqlError) as refused:
        psql.value("postgres", "SELECT 1/0")
    assert refused.value.sqlstate == "22012"
    with pytest.raises(SqlError, match="nowhere") as missing:
        psql.value("shop", "SELECT * FROM nowhere")
    assert missing.value.sqlstate == "42P01"
    with pytest.raises(TransientError):
        psql.script("shop", "DO $$ BEGIN RAISE 'later' USING ERRCODE = '55P03'; END $$")
    with pytest.raises(LoginRefused):
        made.psql(role="nobody here").value("postgres", "SELECT 1")
    with pytest.raises(PermanentError, match="does not exist"):
        psql.value("gone", "SELECT 1")


SAID = 'psql: error: connection to server at "127.0.0.1", port 1 failed: FATAL:  {}\n'


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("tut mir leid, schon zu viele Verbindungen", Unexplained),
        ("zu viele Verbindungen von Rolle »app«", Unexplained),
        ("Datenbank »shop« existiert nicht", Unexplained),
        ("sorry, too many clients already", TransientError),
        ('too many connections for role "app"', TransientError),
        ('password authentication failed for user "app"', LoginRefused),
        ("kein pg_hba.conf-Eintrag für Host »127.0.0.1«, Benutzer »app«", LoginRefused),
    ],
)
def test_a_site_that_begins_no_session_may_say_why_in_its_own_language(
    made: Server, text: str, kind: type[Exception]
) -> None:
    source = replace(made.psql(options=PATIENT_WITH_PRODUCTION), of_site=True)
    assert type(source._error("shop", 2, SAID.format(text))) is kind


def test_another_database_is_entered_whatever_the_language(
    made: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Psql._script

    def script(self: Psql, database: str, sql: str, timeout: float | None) -> str:
        if database == "postgres":
            raise Unexplained("Datenbank »postgres« existiert nicht")
        return ask(self, database, sql, timeout)

    monkeypatch.setattr(Psql, "_script", script)
    named = made.psql().entering("shop").value(CLUSTER, "SELECT current_database()::text")
    assert named == "shop"


@pytest.mark.parametrize("end", ["", "\\r"], ids=["lf", "crlf"])
def test_a_psql_that_prints_more_than_answers(made: Server, tmp_path: Path, end: str) -> None:
    """A wrapper, of a bastion, say: what it prints before is no answer, nor how its lines end."""
    for program in ("psql", "pg_isready"):
        path = tmp_path / program
        path.write_text(
            '#!/bin/sh\necho "Authorized use only"\n'
            f'{made.bin_dir}/{program} "$@" >{tmp_path}/said; code=$?\n'
            f"sed 's/$/{end}/' {tmp_path}/said\nexit $code\n"
        )
        path.chmod(0o755)
    psql = replace(made.psql(), bin_dir=str(tmp_path))
    assert psql.value("postgres", "SELECT 7") == "7"
    assert psql.parts("postgres", {"one": "SELECT 1 AS n"})[0] == {"one": [{"n": 1}]}


def test_a_line_ends_where_psql_ends_it(made: Server) -> None:
    """JSON escapes control characters, and not those that Unicode takes for ends of lines."""
    name = "odd\u2028table\x85of\u2029names"
    made.run(f'CREATE TABLE public."{name}" (n int)', "shop")
    query = "SELECT relname AS name FROM pg_class WHERE relname ~ '^odd'"
    try:
        found = made.psql().parts("shop", {"names": query})
    finally:
        made.run(f'DROP TABLE public."{name}"', "shop")
    assert found == ({"names": [{"name": name}]}, {})


def test_an_accounts_environment_leads_nowhere_else(
    made: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libpq takes from there what a connection string leaves open: even another server."""
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "standby")
    monkeypatch.setenv("PGCHANNELBINDING", "require")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=public")
    assert made.psql().value("postgres", "SELECT 1") == "1"


DEMANDS = {
    "PGSSLMODE": "verify-full",
    "PGREQUIRESSL": "1",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "/nowhere/root.crt",
    "PGSSLCERT": "/nowhere/client.crt",
    "PGSSLKEY": "/nowhere/client.key",
    "PGSSLCERTMODE": "require",
    "PGSSLMINPROTOCOLVERSION": "TLSv1.3",
    "PGGSSENCMODE": "require",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "nobody",
    "PGCHANNELBINDING": "require",
    "PGTARGETSESSIONATTRS": "standby",
    "PGLOADBALANCEHOSTS": "nonsense",
    "PGSERVICE": "nowhere",
    "PGSERVICEFILE": "/nowhere/service.conf",
    "PGMINPROTOCOLVERSION": "3.2",
    "PGCONNECT_TIMEOUT": "nonsense",
    "PGOPTIONS": "-c search_path=public",
    "PGDATESTYLE": "German",
    "PGTZ": "Asia/Tokyo",
}


@pytest.mark.parametrize("name", DEMANDS)
def test_what_an_account_demands_of_servers_is_not_for_a_restored_one(
    made: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """/etc/environment of a recovery host is for the site's own servers, not for one without TLS.

    An application's session, too, is as the server makes it.
    """
    ask = "SELECT concat_ws('|', current_setting('DateStyle'), current_setting('TimeZone'), 1)"
    application = made.psql(options="")
    before = application.value("postgres", ask)
    monkeypatch.setenv(name, DEMANDS[name])
    assert application.value("postgres", ask) == before
    assert made.psql().value("postgres", "SELECT 1") == "1"
    assert application._accepts("postgres")


def test_how_a_site_secures_its_own_server_is_for_the_site_to_say(
    made: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(made.psql(options=PATIENT_WITH_PRODUCTION), of_site=True)
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    ask = "SELECT current_setting('DateStyle') || current_setting('TimeZone')"
    assert str(source.value("postgres", ask)).startswith("ISO")
    monkeypatch.setenv("PGSSLMODE", "require")
    with pytest.raises(TransientError, match="SSL"):
        source.value("postgres", "SELECT 1")


def test_a_server_that_is_not_there_is_asked_again_later() -> None:
    with server() as made:
        made.ctl("stop", "-m", "fast")
        with pytest.raises(TransientError):
            made.psql().value("postgres", "SELECT 1")
        made.ctl("start")


@pytest.mark.parametrize("options", [UNHURRIED, PATIENT_WITH_PRODUCTION], ids=["copy", "source"])
def test_names_that_are_no_utf_8(made: Server, options: str) -> None:
    """A SQL_ASCII database takes any bytes for text; the whole server's catalogs then hold them."""
    made.run("CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    raw = "convert_from('\\x636166e9', 'SQL_ASCII')"
    as_stored = "SET client_encoding = 'SQL_ASCII'; DO $$ BEGIN EXECUTE"
    for make in ("CREATE ROLE ' || {} ", "CREATE TABLE ' || {} || '()'"):
        made.run(f"{as_stored} '{make.format(f'quote_ident({raw})')}; END $$", "bytes")
    made.run("COMMENT ON SCHEMA public IS 'é'", "bytes")
    try:
        session = replace(made.psql(), options=options)
        asked = "SELECT rolname AS name FROM pg_roles WHERE rolname ~ '^caf'"
        assert session.rows("bytes", asked) == [{"name": "caf\ufffd"}]
        assert len(session.rows("postgres", asked)) == 1
        names = [role.name for role in survey.survey(session).roles]
        assert "caf\ufffd" in names
        comment = "SELECT obj_description('public'::regnamespace, 'pg_namespace')"
        assert session.value("bytes", comment) == "é"
    finally:
        made.run(f"{as_stored} 'DROP ROLE ' || quote_ident({raw}); END $$", "bytes")
        made.run("DROP DATABASE bytes")


def test_the_sqlstate_of_a_session_that_is_asked_for_a_password(made: Server) -> None:
    """The prompt stands before it: the word ERROR, too, is five letters."""
    psql = replace(made.psql(), password=SecretStr("secret"))
    with pytest.raises(SqlError) as refused:
        psql.script("shop", "SELECT 1 / 0")
    assert refused.value.sqlstate == "22012"
    with pytest.raises(TransientError):
        psql.script("shop", "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
