"""The survey of a site with many databases, and by a role that may do little else."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.engines.checks import run_check
from blocks.engines.postgres import burden, checks, compare, config, counts, survey
from blocks.engines.postgres.facts import PostgresFacts, read
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import last_look
from blocks.engines.postgres.privileges import Lacking
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.engines.postgres.settings import carried
from blocks.engines.postgres.unverified import unverified
from blocks.evidence.record import CheckStatus
from blocks.ownership import Belongings
from tests import mechanisms
from tests.blocks.engines.servers import Server, server
from tests.blocks.engines.servers import database as of
from tests.blocks.engines.worlds import LEAST, least_privileges

pytestmark = mechanisms.SERVERS


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    with server() as made:
        for number in range(20):
            made.run(f"CREATE DATABASE d{number} STRATEGY file_copy")
        made.run("CREATE TABLE t (n serial)", "d7")
        yield made


@pytest.mark.slow
def test_each_database_takes_one_session(source: Server, tmp_path: Path) -> None:
    count = tmp_path / "count"
    wrapped = tmp_path / "psql"
    wrapped.write_text(f'#!/bin/sh\necho >> {count}\nsleep 0.3\nexec {source.bin_dir}/psql "$@"\n')
    wrapped.chmod(0o755)
    psql = replace(source.psql(options=PATIENT_WITH_PRODUCTION), bin_dir=str(tmp_path))
    facts = survey.survey(psql)
    databases = {row.name: row for row in facts.databases}
    assert len(databases) == 22
    assert [row.name for row in databases["d7"].tables or ()] == ["t"]
    assert [row.name for row in databases["d7"].sequences or ()] == ["t_n_seq"]
    assert databases["d7"].schema_digest != databases["d8"].schema_digest
    assert len(count.read_text().splitlines()) < len(databases) + 15


@pytest.mark.parametrize("major", [15, 18])
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_database_that_is_dropped_while_it_is_looked_at(
    tmp_path: Path, when: str, major: int
) -> None:
    """Before its session begins, or while it is asked."""
    with server(major) as made:
        made.run("CREATE DATABASE fleeting")
        drop = f"{made.bin_dir}/psql -Xqw -h 127.0.0.1 -p {made.port} -U postgres -d postgres -c"
        drop += " 'DROP DATABASE fleeting WITH (FORCE)' >/dev/null 2>&1"
        program = f'{made.bin_dir}/psql "$@"'
        # It is asked nothing before the database is gone.
        do = (
            f"{drop}; exec {program}" if when == "before" else f"(sleep 1; {drop}; cat) | {program}"
        )
        wrapped = tmp_path / "psql"
        wrapped.write_text(
            f'#!/bin/sh\ncase "$*" in *"dbname=\'fleeting\'"*) {do}; exit;; esac\nexec {program}\n'
        )
        wrapped.chmod(0o755)
        (tmp_path / "pg_isready").symlink_to(f"{made.bin_dir}/pg_isready")
        psql = replace(made.psql(options=PATIENT_WITH_PRODUCTION), bin_dir=str(tmp_path))
        facts = survey.survey(psql)
    assert [row.name for row in facts.databases] == ["postgres", "template1"]
    assert all(row.unread == {} for row in facts.databases)


PASSED, UNKNOWN = CheckStatus.PASSED, CheckStatus.UNKNOWN


@pytest.fixture(scope="class", params=[15, 18])
def shop(request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(request.param, "own.thing = 'blue'") as made:
        made.run("CREATE DATABASE shop; CREATE DATABASE shut; CREATE DATABASE off")
        made.run("REVOKE CONNECT ON DATABASE shut FROM PUBLIC")
        made.run("ALTER DATABASE off ALLOW_CONNECTIONS false")
        made.run(
            "CREATE TABLE item (id serial); INSERT INTO item DEFAULT VALUES;"
            " SELECT lo_create(7); ANALYZE; SELECT pg_stat_force_next_flush()",
            "shop",
        )
        yield made


def not_verified(facts: PostgresFacts) -> list[str]:
    """What an engine says of a source's facts that it did not look at."""
    return unverified(facts, "shop", standbys=False)


@pytest.mark.slow(30)
class TestLeastPrivilege:
    """A role that is no superuser sees enough; what it does not see is named, and not wrong."""

    @pytest.fixture
    def least(self, shop: Server) -> Iterator[Psql]:
        shop.run(least_privileges("secret"))
        yield shop.psql(LEAST, PATIENT_WITH_PRODUCTION)
        shop.run(f"DROP OWNED BY {LEAST}; DROP ROLE {LEAST}")

    def test_the_documented_role_sees_what_a_superuser_sees(
        self, shop: Server, least: Psql
    ) -> None:
        facts = survey.survey(least)
        everything = survey.survey(shop.psql(options=PATIENT_WITH_PRODUCTION))
        assert read(PostgresFacts, facts.to_json()) == facts
        assert facts.superuser == everything.superuser == "postgres"
        for part in (
            "settings",
            "logins",
            "access",
            "tablespaces",
            "sessions",
            "system_identifier",
        ):
            assert getattr(facts, part) == getattr(everything, part), part
        assert "own.thing" in {row.name for row in facts.settings}
        mine, all_of = (of(found, "shop") for found in (facts, everything))
        for part in ("schema_digest", "sequences", "tables", "large_objects", "collations"):
            assert getattr(mine, part) == getattr(all_of, part) is not None, part
        assert facts.roles == everything.roles
        assert facts.unread == {}
        last = last_look(least)
        rows = run_check(counts.row_counts(shop.psql(), [mine], last))
        assert (rows.status, "1 of them compared exactly" in str(rows.actual)) == (PASSED, True)
        assert run_check(checks.sequences(shop.psql(), [mine])).status is PASSED

    def test_a_database_that_it_may_not_enter(self, shop: Server, least: Psql) -> None:
        facts = survey.survey(least)
        shut = of(facts, "shut")
        assert shut.tables is None
        assert run_check(counts.row_counts(shop.psql(), facts.databases)).status is UNKNOWN
        assert list(compare.without_host(facts, {}, "west/db1", Belongings())) == []
        said = not_verified(facts)
        (line,) = [item for item in said if "database shut" in item]
        assert f'GRANT CONNECT ON DATABASE "shut" TO "{LEAST}"' in line
        assert "database off: it takes no connections" in said

    def test_without_what_is_optional(self, shop: Server, least: Psql) -> None:
        shop.run(f"REVOKE pg_read_all_data FROM {LEAST}; DROP OWNED BY {LEAST}")
        facts = survey.survey(least)
        assert read(PostgresFacts, facts.to_json()) == facts
        assert (facts.access, facts.logins) == (None, None)
        assert {row.password for row in facts.roles} == {"unknown"}
        assert config.login_method(facts.roles) == "md5"
        assert list(compare.without_host(facts, {}, "west/db1", Belongings())) == []
        database = of(facts, "shop")
        assert run_check(counts.row_counts(shop.psql(), [database])).status is PASSED
        sequences = run_check(checks.sequences(shop.psql(), [database]))
        assert sequences.status is UNKNOWN
        assert "pg_read_all_data" in str(sequences.actual)
        said = "\n".join(not_verified(facts))
        for grant in ("ON FUNCTION pg_hba_file_rules()", "pg_file_settings", "pg_read_all_data"):
            assert grant in said

    @pytest.mark.parametrize("right", ["REVOKE pg_monitor FROM {}", "ALTER ROLE {} NOREPLICATION"])
    def test_without_what_it_must_have(self, shop: Server, least: Psql, right: str) -> None:
        shop.run(right.format(LEAST))
        with pytest.raises(Lacking) as refused:
            survey.survey(least)
        undone = {"pg_monitor": "GRANT pg_monitor TO farside", "REPL": "farside REPLICATION"}
        (wanted,) = [text for part, text in undone.items() if part in right]
        assert wanted in str(refused.value.hint)

    def test_what_following_costs(self, least: Psql) -> None:
        assert burden.survey(least).queue_is_seen
        assert not burden.survey(least).may_switch


WORDS = {
    "primary_conninfo": "host=10.1.1.1 user=replica password='hunter2 x' application_name=db2",
    "archive_command": "AWS_SECRET_ACCESS_KEY=hunter2 aws s3 cp %p s3://wal.east.example/%f",
    "restore_command": "curl -u backup:hunter2 -o %p https://10.1.1.2/%f",
    "app.jwt_secret": "hunter2",
    "app.upstream": "https://app:hunter2@10.1.1.3/api",
    "app.colour": "blue",
    "ssl_passphrase_command": "echo hunter2",
}


@pytest.mark.slow
def test_no_secret_of_the_source_is_in_its_facts() -> None:
    with server(15, *(f"{name} = {config.quoted(value)}" for name, value in WORDS.items())) as made:
        rules = made.data / "pg_hba.conf"
        rules.write_text(
            f"{rules.read_text()}host all app 10.2.0.0/16 ldap ldapserver=10.1.1.4"
            ' ldapbinddn="cn=a" ldapbindpasswd="hunter2 x"\n'
            'host all app 10.3.0.0/16 radius radiusservers=10.1.1.5 radiussecrets="hunter2"\n'
        )
        made.run("SELECT pg_reload_conf()")
        made.run("ALTER ROLE postgres SET app.token = 'hunter2'")
        facts = survey.survey(made.psql(options=PATIENT_WITH_PRODUCTION))
    assert read(PostgresFacts, facts.to_json()) == facts
    assert "hunter2" not in json.dumps(facts.to_json())
    values = {row.name: row.setting for row in facts.settings}
    assert values["primary_conninfo"] == (
        "host=10.1.1.1 user=replica password=*** application_name=db2"
    )
    lost = Belongings(networks=("10.1.0.0/16",), suffixes=("east.example",))
    found = compare.without_host(facts, {}, "west/db1", lost)
    subjects = [*("primary_conninfo", "archive_command", "restore_command", "app.upstream")]
    assert {item.subject for item in found} == {
        *(f"setting {name}" for name in subjects),
        *(f"pg_hba.conf:{row.line}" for row in facts.logins or ()),
    }
    kept = carried(facts.settings)
    assert kept["app.colour"] == "blue"
    assert "app.jwt_secret" not in kept
    (line,) = [text for text in not_verified(facts) if "app.jwt_secret" in text]
    assert "named like a secret" in line


def rename(site: Server, database: str, encoding: str, old: str, new: str) -> None:
    """Rename a database from another one, in that one's own bytes."""
    argv = [f"{site.bin_dir}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]
    subprocess.run(
        [*argv, "-p", str(site.port), "-U", "postgres", "-d", database],
        input=f'ALTER DATABASE {old} RENAME TO "{new}"'.encode("latin-1"),
        env={"PGCLIENTENCODING": encoding},
        check=True,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "shown"), [("LATIN1", "caf\xe9"), ("SQL_ASCII", "caf\N{REPLACEMENT CHARACTER}")]
)
def test_a_database_whose_name_is_not_in_utf_8(encoding: str, shown: str) -> None:
    """No session can name it: neither is it dropped, nor does the survey of others end."""
    with server(15, encoding=encoding) as made:
        made.run("CREATE DATABASE shop; CREATE DATABASE cafe")
        rename(made, "postgres", encoding, "cafe", "caf\xe9")
        psql = made.psql(options=PATIENT_WITH_PRODUCTION)
        facts = survey.survey(psql)
        last, installed = last_look(psql), Installation(psql.host, made.bin_dir)
        check = run_check(checks.Databases(made.psql(), facts, last, installed).check())
    assert {row.name for row in facts.databases} == {"postgres", "shop", "template1", shown}
    assert of(facts, "shop").unread == {}
    assert "not in UTF-8" in of(facts, shown).unread["contents"]
    (line,) = [item for item in not_verified(facts) if "caf" in item]
    assert f"contents of database {shown}" in line
    assert check.status is UNKNOWN, check
    assert f"{shown}: " in str(check.actual)


@pytest.mark.slow
@pytest.mark.parametrize("major", [15, 18])
def test_a_name_from_a_database_of_another_encoding_is_not_cut(major: int) -> None:
    """psql leaves out what is no UTF-8: it would be the name of another database."""
    with server(major) as made:
        made.run("CREATE DATABASE caf; CREATE DATABASE cafe")
        made.run("CREATE DATABASE old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        rename(made, "old", "LATIN1", "cafe", "caf\xe9")
        facts = survey.survey(made.psql(options=PATIENT_WITH_PRODUCTION))
    names = [row.name for row in facts.databases if row.name.startswith("caf")]
    assert sorted(names) == ["caf", "caf\N{REPLACEMENT CHARACTER}"]
    assert of(facts, "caf").unread == {}
    assert "not in UTF-8" in of(facts, "caf\N{REPLACEMENT CHARACTER}").unread["contents"]
