"""What a source says is data: no word of it becomes a command, a path or a line of its own."""

import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.engines.postgres import compare, config, settings
from blocks.engines.postgres.facts import FactsRefused, PostgresFacts, SetFacts, read
from blocks.engines.postgres.rows import Setting
from blocks.ownership import Belongings

LINE = re.compile(r"([A-Za-z_.0-9]+) = '((?:[^'\\\n]|''|\\\\)*)'")

FACTS: dict[str, Any] = {
    "version": "15.20 (Debian 15.20-0+deb12u1)",
    "version_num": 150020,
    "system_identifier": "7431890123456789012",
    "timeline": 1,
    "wal_segment_size": 16 * 2**20,
    "superuser": "postgres",
    "data_directory": "/var/lib/postgresql/15/main",
    "shared_preload_libraries": "pg_stat_statements, auto_explain",
    "settings": [],
    "tablespaces": [{"oid": "16400", "name": "fast", "location": "/fast", "bytes": 8}],
    "roles": [{"name": "shop\nkeeper", "password": "scram-sha-256"}],
    "databases": [
        {"name": "it's a $(shop)\n", "bytes": 1, "extensions": [{"name": "x", "version": "1"}]}
    ],
    "start_lsn": "0/2000028",
    "stop_lsn": "0/3000000",
    "start_segment": "000000010000000000000002",
    "stop_segment": "000000010000000000000002",
}


def row(name: str, setting: str, category: str = "Query Tuning") -> Setting:
    return Setting(
        name=name,
        setting=setting,
        category=category,
        context="user",
        source="configuration file",
    )


def conf(*rows: Setting) -> str:
    return config.postgresql_conf(
        replace(read(PostgresFacts, FACTS), settings=rows),
        address="10.2.0.7",
        port=6543,
        data_dir="/d",
        socket_dir="/s",
        memory_bytes=2**33,
        restore_command="cp /w/%f %p",
        libraries=[],
        own={},
    )


@pytest.mark.parametrize(
    "name",
    [
        "recovery_end_command",
        "archive_cleanup_command",
        "restore_command",
        "ssl_passphrase_command",
        "jit_provider",
        "shared_preload_libraries",
        "dynamic_library_path",
        "extension_control_path",
        "archive_library",
        "event_source",
        "external_pid_file",
        "log_directory",
        "unix_socket_directories",
        "krb_server_keyfile",
        "include_dir",
        "work_mem\nshared_preload_libraries",
        "plperl.on_init",
        "PLTCL.start_proc",
        "plpython3.x",
    ],
)
def test_a_setting_that_is_not_listed_is_not_carried(name: str) -> None:
    for category in ("Query Tuning", "Customized Options", "Autovacuum"):
        assert settings.carried([row(name, "evil", category)]) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_connections", "100\nlogging_collector = on"),
        ("max_connections", "1e9999"),
        ("max_connections", "１００"),
        ("random_page_cost", "1.1'"),
        ("jit", "on\n"),
        ("TimeZone", "../../../srv/evil"),
        ("timezone_abbreviations", "../../evil"),
        ("search_path", "shop\nrestore_command = 'evil'"),
        ("search_path", "a\x00b"),
        ("lc_messages", "/srv/evil"),
        ("app.tenant", "10.1.0.5"),
        ("app.tenant", "x'\n"),
    ],
)
def test_a_value_of_another_form_is_not_carried(name: str, value: str) -> None:
    assert settings.carried([row(name, value, "Customized Options")]) == {}


def test_what_sites_set_is_carried() -> None:
    honest = {
        "TimeZone": "America/Argentina/Buenos_Aires",
        "DateStyle": "ISO, DMY",
        "search_path": '"$user", public, ext',
        "default_text_search_config": "pg_catalog.german",
        "lc_monetary": "de_DE.UTF-8@euro",
        "jit_above_cost": "100000",
        "seq_page_cost": "0.25",
        "default_transaction_isolation": "repeatable read",
        "app.tenant": "blue",
        "plpgsql.variable_conflict": "error",
    }
    rows = [row(name, value, "Customized Options") for name, value in honest.items()]
    assert settings.carried(rows) == honest


@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.text(max_size=40), st.sampled_from([*settings.CARRIED, "app.tenant"])),
            st.one_of(st.text(max_size=60), st.from_regex(r"[0-9]{1,3}\n?[a-z= ']*")),
            st.sampled_from(["Query Tuning", "Autovacuum", "Customized Options"]),
        ),
        max_size=8,
    )
)
def test_no_setting_adds_a_line(rows: list[tuple[str, str, str]]) -> None:
    """Every line is a name of the list, or an option's, and one quoted value.

    What ends a line to PostgreSQL is not all that ends one to Python: U+0085 does not.
    """
    own = {line.partition(" = ")[0] for line in conf().splitlines()[1:]}
    for line in re.split(r"[\r\n]+", conf(*(row(*item) for item in rows)).rstrip("\n"))[1:]:
        match = LINE.fullmatch(line)
        assert match, line
        assert match[1] in own or match[1] in settings.CARRIED or "." in match[1]


def test_honest_facts_are_taken_whatever_people_call_their_objects() -> None:
    read(PostgresFacts, FACTS | {"start_lsn": None, "something new": 1})
    read(SetFacts, FACTS)


def test_a_table_that_was_dropped_while_the_source_was_asked_refuses_no_set() -> None:
    """Of such a one, older versions have stored that nothing is known of its privileges."""
    gone = {"schema": "public", "name": "staging", "readable": None}
    database = {"name": "shop", "bytes": 1, "extensions": [], "tables": [gone]}
    (found,) = read(SetFacts, FACTS | {"databases": [database]}).databases[0].tables or ()
    assert not found.readable


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"tablespaces": [{"oid": "../../home/postgres/.ssh", "bytes": 1}]}, "tablespaces.0.oid"),
        ({"tablespaces": [{"oid": "1\n", "bytes": 1}]}, "tablespaces.0.oid"),
        ({"tablespaces": [{"oid": "$(id)", "bytes": 1}]}, "tablespaces.0.oid"),
        ({"tablespaces": [{"oid": "1", "bytes": -1}]}, "tablespaces.0.bytes"),
        ({"wal_segment_size": 0}, "wal_segment_size"),
        ({"wal_segment_size": 2**20 + 1}, "wal_segment_size"),
        ({"wal_segment_size": "16777216"}, "wal_segment_size"),
        ({"wal_segment_size": 2**40}, "wal_segment_size"),
        ({"timeline": 2**40}, "timeline"),
        ({"superuser": "post\ngres"}, "superuser"),
        ({"superuser": ""}, "superuser"),
        ({"version": "15\n$(id)"}, "version"),
        ({"data_directory": "x"}, "data_directory"),
        ({"roles": [{"name": "x", "password": "trust"}]}, "roles.0.password"),
        ({"start_segment": "../x"}, "start_segment"),
        ({"stop_segment": "F" * 25}, "stop_segment"),
        ({"stop_lsn": "1/2; x"}, "stop_lsn"),
        ({"databases": None}, "databases"),
        (
            {"databases": [{"name": "x", "bytes": 1, "extensions": [{"name": "../x"}]}]},
            "databases.0.extensions.0.name",
        ),
    ],
)
def test_hostile_facts_are_refused_by_name(wrong: dict[str, Any], place: str) -> None:
    with pytest.raises(FactsRefused, match=f"^facts of the source: .*{re.escape(place)}"):
        read(SetFacts, FACTS | wrong)


@given(st.text(), st.text())
def test_what_passes_as_an_oid_or_a_segment_is_harmless_in_a_path(oid: str, segment: str) -> None:
    facts = FACTS | {"tablespaces": [{"oid": oid, "bytes": 1}], "start_segment": segment}
    try:
        read(SetFacts, facts)
    except FactsRefused:
        return
    assert re.fullmatch(r"[0-9]+", oid, re.ASCII)
    assert re.fullmatch(r"[0-9A-F]{24}", segment)


def test_a_library_is_an_installations_own_or_is_not_loaded() -> None:
    preload = "auto_explain, $libdir/pg_stat_statements, /srv/data/evil, ../evil, $libdir/../evil"
    facts = read(SetFacts, FACTS | {"shared_preload_libraries": preload, "databases": []})
    assert compare.libraries(facts) == [
        "auto_explain",
        "$libdir/pg_stat_statements",
    ]
    found = compare.without_host(facts, {}, "west/db1", Belongings())
    assert [(item.id, item.subject) for item in found] == [
        ("library-preloaded", "/srv/data/evil"),
        ("library-preloaded", "../evil"),
        ("library-preloaded", "$libdir/../evil"),
    ]


NAMES = [
    "$(touch PWNED)",
    "`touch PWNED`",
    "'; touch PWNED; '",
    '"; touch PWNED; "',
    "a\ntouch PWNED",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_quoted_value_of_the_configuration_is_one_value(name: str, tmp_path: Path) -> None:
    """As the runbook writes limits: through a shell, into a file."""
    text = f"x = {config.quoted(name)}\n"
    command = f"printf %s {shlex.quote(text)} > conf"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "conf").read_text() == text
    assert not (tmp_path / "PWNED").exists()
