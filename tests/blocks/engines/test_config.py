"""The configuration of a restored server carries behaviour over, and nothing of the old place."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from pydantic import ValidationError

from blocks.agent.redaction import redacted_value
from blocks.engines.galera import settings as mariadb
from blocks.engines.postgres import compare, config, mentions
from blocks.engines.postgres import settings as postgres
from blocks.engines.postgres.facts import PostgresFacts, read
from blocks.engines.postgres.plan import TargetServer
from blocks.engines.postgres.rows import Role, Setting
from blocks.ownership import Belongings
from tests.blocks.engines.test_pg_facts import FACTS as HONEST


def row(name: str, setting: str, category: str, source: str = "configuration file") -> Setting:
    return Setting(name=name, setting=setting, category=category, context="user", source=source)


LOCALE = "Client Connection Defaults / Locale and Formatting"
SETTINGS = [
    row("max_connections", "300", "Connections and Authentication / Connection Settings"),
    row("listen_addresses", "10.1.0.5", "Connections and Authentication / Connection Settings"),
    row("archive_command", "scp %p 10.1.0.9:/wal", "Write-Ahead Log / Archiving"),
    row("primary_conninfo", "host=10.1.0.6", "Replication / Standby Servers"),
    row("ssl_cert_file", "/etc/east/cert.pem", "Connections and Authentication / SSL"),
    row("statement_timeout", "5000", "Client Connection Defaults / Statement Behavior"),
    row("random_page_cost", "1.1", "Query Tuning / Planner Cost Constants"),
    row("cron.host", "10.1.0.5", "Customized Options"),
    row("app.tenant", "blue", "Customized Options"),
    row("search_path", "shop", "Client Connection Defaults / Statement Behavior", "user"),
]


FACTS = replace(
    read(PostgresFacts, HONEST | {"wal_segment_size": 64 * 2**20}), settings=tuple(SETTINGS)
)


def conf(facts: PostgresFacts, own: dict[str, str] | None = None) -> str:
    return config.postgresql_conf(
        facts,
        address="10.2.0.7",
        port=6543,
        data_dir="/d",
        socket_dir="/tmp/it's",
        memory_bytes=2**33,
        restore_command="cp '/w/%f' %p",
        libraries=["auto_explain"],
        own=own or {},
    )


def test_nothing_that_names_the_old_place_is_carried_over() -> None:
    text = conf(FACTS)
    assert "10.1.0" not in text
    assert "/etc/east" not in text
    assert "search_path" not in text, "a role's own setting is in the data already"


def test_behaviour_and_replay_limits_are_carried_over() -> None:
    lines = conf(FACTS).splitlines()
    assert "max_connections = '300'" in lines
    assert "statement_timeout = '5000'" in lines
    assert "random_page_cost = '1.1'" in lines
    assert "app.tenant = 'blue'" in lines


def test_it_is_isolated_and_quoted() -> None:
    lines = conf(FACTS).splitlines()
    assert "archive_mode = 'off'" in lines
    assert "primary_conninfo = ''" in lines
    assert "max_logical_replication_workers = '0'" in lines
    assert "unix_socket_directories = '/tmp/it''s'" in lines
    assert "restore_command = 'cp ''/w/%f'' %p'" in lines


def test_wal_limits_suit_the_segment_size() -> None:
    """A server with segments of 64 MB does not start with the default of 80 MB."""
    assert "min_wal_size = '128MB'" in conf(FACTS).splitlines()


def test_recoverys_signs_are_not_translated() -> None:
    lines = conf(replace(FACTS, settings=(row("lc_messages", "de_DE.UTF-8", LOCALE),))).splitlines()
    assert "lc_messages = 'C'" in lines


def test_old_password_hashes_still_let_roles_in() -> None:
    networks = [IPv4Network("10.2.0.0/16")]
    scram = config.pg_hba_conf([Role(name="x", password="scram-sha-256")], networks, 'a "b"')
    assert 'host all "a ""b""" 10.2.0.0/16 scram-sha-256' in scram
    assert " all all " not in scram.replace("local all all trust", ""), "no other role"
    mixed = config.pg_hba_conf([Role(name="x", password="md5")], networks, "shop")
    assert 'host all "shop" 10.2.0.0/16 md5' in mixed


def test_tablespace_map_escapes_as_postgresql_reads() -> None:
    text = config.tablespace_map({"17": "/b", "16": "/a\nb\\c"})
    assert text == "16 /a\\\nb\\\\c\n17 /b\n"


def test_the_sites_own_settings_go_before_the_sources() -> None:
    text = conf(FACTS, {"random_page_cost": "2", "shared_buffers": "1GB"})
    assert "random_page_cost = '2'" in text
    assert "shared_buffers = '1GB'" in text
    limits = [row("max_connections", "100", "Connections"), row("work_mem", "4", "Resource")]
    assert config.too_low(limits, {}) == {}
    assert config.too_low(limits, {"max_connections": "100", "work_mem": "1"}) == {}
    assert config.too_low(limits, {"max_connections": "99"}) == {"max_connections": "100"}


def at(file: str, setting: Setting, line: int = 1) -> Setting:
    return replace(setting, sourcefile=file, sourceline=line)


def test_settings_that_need_the_old_place() -> None:
    foreign = Belongings(networks=("10.1.0.0/16",), paths=("/mnt/old",))
    facts = replace(
        FACTS,
        data_directory="/mnt/old/pg",
        settings=(
            at("/d/c", row("cron.host", "10.1.0.5", "Customized Options"), 3),
            row("app.files", "/mnt/old/x", "Customized Options"),
            row("listen_addresses", "10.1.0.5", "Connections"),
            row("archive_command", "cp %p /mnt/old/%f", "Archiving"),
            row("ssl_key_file", "/etc/key.pem", "SSL"),
            row("ssl_cert_file", "server.crt", "SSL"),
            at("/mnt/old/more.conf", row("work_mem", "9MB", "Resource")),
            at("/mnt/old/pg/own.conf", row("jit", "off", "Query")),
            at("/etc/site.conf", row("geqo", "off", "Query")),
        ),
    )
    found = [(i.id, i.subject, i.evidence) for i in mentions.in_settings(facts, foreign)]
    assert found == [
        ("address-hard-coded", "setting cron.host", "/d/c:3: cron.host names 10.1.0.5"),
        (
            "path-hard-coded",
            "setting app.files",
            "configuration file: app.files names /mnt/old",
        ),
        (
            "path-hard-coded",
            "setting archive_command",
            "configuration file: archive_command names /mnt/old",
        ),
        (
            "path-hard-coded",
            "/mnt/old/more.conf",
            "work_mem is set there; the file is no part of a backup",
        ),
    ]
    assert mentions.files_in_settings(facts) == {
        "app.files": "/mnt/old/x",
        "ssl_key_file": "/etc/key.pem",
    }
    assert list(mentions.files_in_commands(facts)) == [("archive_command", "/mnt/old")]
    assert compare.outside(facts) == ["/d/c", "/etc/site.conf", "/mnt/old/more.conf"]
    assert not compare.takes_tls(facts)


def test_programs_that_commands_name() -> None:
    text = "test ! -f /a/%f && /opt/bin/put --to s3://x/y b@h:/z 'ssh -i /k/id' %p"
    commands = row("archive_command", text, "Archiving"), row("jit", "/a/b", "Query")
    facts = replace(FACTS, settings=commands)
    paths = [path for _, path in mentions.files_in_commands(facts)]
    assert paths == ["/a", "/opt/bin/put", "/k/id"]


@pytest.mark.parametrize("carried", [mariadb.CARRIED, postgres.CARRIED], ids=["my", "pg"])
def test_no_setting_that_comes_along_is_taken_for_a_secret(carried: Mapping[str, object]) -> None:
    """Its value would be hidden in the facts, and a restore refuse them."""
    assert [name for name in carried if redacted_value(name, "8") != "8"] == []


def test_names_of_settings_are_read_as_the_server_reads_them() -> None:
    near = {"host": "h", "address": "127.0.0.1", "port": 1, "bin_dir": "/b", "data_dir": "/d"}
    target = TargetServer(**near, settings={"MAX_CONNECTIONS": "20", "Foo.Bar": "1"})
    assert target.settings == {"max_connections": "20", "foo.bar": "1"}
    for settings, says in (
        ({"Archive_Command": "cp"}, "archive_command"),
        ({"MAX_CONNECTIONS": "many"}, "max_connections is a number"),
        ({"jit": "on", "JIT": "off"}, "differ in case only"),
    ):
        with pytest.raises(ValidationError, match=says):
            TargetServer(**near, settings=settings)
