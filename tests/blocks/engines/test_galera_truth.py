"""MariaDB's checks on damage and on what they cannot know; what a source says is data.

One server of Debian's without Galera, and shells: no lab.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.domain import FailureDomain
from blocks.engines.checks import CheckSpec, run_check
from blocks.engines.galera import (
    accounts,
    backup,
    compare,
    counting,
    counts,
    details,
    isolation,
    membership,
    objects,
    privileges,
    references,
    restore,
    sequences,
    settings,
    soundness,
    survey,
    unverified,
)
from blocks.engines.galera import runbook as by_hand
from blocks.engines.galera.facts import GaleraFacts, Plugin, Since, Table, read
from blocks.engines.galera.mariadb import LoginRefused, Mariadb, NotAllowed, SqlError, Untrusted
from blocks.engines.galera.plan import TargetCluster, TargetNode
from blocks.errors import PermanentError, TransientError
from blocks.evidence.record import Check, CheckStatus
from blocks.hosts.local import LocalHost
from blocks.ownership import Belongings
from blocks.remote import resolving
from blocks.repositories.farside.writer import READ_RATE
from tests.blocks.engines.test_runbooks import HOSTILE, manifest, sealed, store
from tests.blocks.engines.worlds import need_debian

SERVER = "/usr/sbin/mariadbd"
UNCHANGED = Since(
    definitions={},
    details={},
    demands={},
    accounts={},
    privileges={},
    sequences={},
    plugins={},
    tables={},
    deleted=0,
    statements=0,
)
"""What a last look finds at a source that has not changed."""
FACTS = GaleraFacts(
    version="10.11.6-MariaDB-0+deb12u1-log",
    state_uuid="",
    bytes=1,
    settings={"sql_mode": "STRICT_TRANS_TABLES,ANSI_QUOTES", "time_zone": "+00:00"},
    plugins=(),
    libraries=(),
    tables=(),
    definitions={},
    accounts=(),
    upstreams=(),
    elsewhere=(),
)
"""What every set says."""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A data directory, and the server's socket beside it."""
    need_debian("mariadb-server", SERVER)
    with tempfile.TemporaryDirectory(prefix="farside-my-", dir="/tmp") as folder:
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data"]
        install += ["--auth-root-authentication-method=socket", "--skip-test-db", "--user=root"]
        subprocess.run(install, check=True, capture_output=True)
        yield Path(folder)


def server(home: Path, *options: str, defaults: Path | None = None) -> "subprocess.Popen[bytes]":
    file = f"--defaults-file={defaults}" if defaults else "--no-defaults"
    running = subprocess.Popen(
        [SERVER, file, "--user=root", f"--datadir={home}/data", f"--socket={home}/s",
         "--skip-networking", f"--pid-file={home}/pid", *options],
        stdout=subprocess.DEVNULL,
        stderr=(home / "log").open("wb"),
    )  # fmt: skip
    give_up = time.monotonic() + 120
    while True:
        try:
            root(home).value("", "SELECT 1")
        except (TransientError, PermanentError):
            assert running.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.1)
        else:
            return running


def root(home: Path) -> Mariadb:
    host = LocalHost(name="here", work_dir=str(home / "work"), python=sys.executable)
    return Mariadb(host, "/usr/bin", "root", socket=f"{home}/s")


@pytest.fixture(scope="module")
def node(home: Path) -> Iterator[Mariadb]:
    """A server whose own settings are as unusual as a site's may be."""
    odd = "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,ONLY_FULL_GROUP_BY"
    odd_too = "--plugin-maturity=unknown"  # as a site has it that wrote a plugin
    running = server(
        home, odd, odd_too, "--autocommit=0", "--max-statement-time=0.5", "--sql-safe-updates"
    )
    mine = root(home)
    mine.script(
        "",
        "CREATE DATABASE shop; CREATE TABLE shop.t (id INT PRIMARY KEY, v TEXT);"
        "USE shop; INSERT INTO t SELECT seq, 'x' FROM seq_1_to_1000;"
        "CREATE TABLE shop.q (id INT PRIMARY KEY); CREATE VIEW shop.w AS SELECT id FROM shop.t;"
        "CREATE USER cert@'%' IDENTIFIED BY 'pw' REQUIRE X509;"
        "CREATE USER narrow@'localhost' IDENTIFIED BY 'pw';"
        "GRANT SELECT, PROCESS ON *.* TO narrow@'localhost';"
        "CREATE TRIGGER shop.bump BEFORE INSERT ON shop.q FOR EACH ROW SET @x = 1;"
        "CREATE EVENT shop.nightly ON SCHEDULE EVERY 1 DAY DO SET @x = 1;",
    )
    yield mine
    running.kill()
    running.wait()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MYSQL_HOST", "192.0.2.1"),
        ("MYSQL_PWD", "of another server"),
        ("MYSQL_TCP_PORT", "1"),
        ("MYSQL_UNIX_PORT", "/nowhere"),
        ("MYSQL_HOME", "/nowhere"),
        ("MYSQL_GROUP_SUFFIX", ".odd"),
        ("LIBMYSQL_PLUGINS", "nonsense"),
        ("MARIADB_PLUGIN_DIR", "/nowhere"),
        ("MARIADB_DEFAULT_METHODS", "nonsense"),
    ],
)
def test_an_accounts_environment_leads_nowhere_else(
    node: Mariadb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    """The client believes it even where it is to read no option file of the account's."""
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".my.cnf").write_text("[client]\nhost = 192.0.2.1\nno_such = 1\n")
    assert node.value("", "SELECT 1") == "1"


def facts_of(node: Mariadb) -> GaleraFacts:
    return replace(
        FACTS,
        settings={},
        plugins=survey.active_plugins(node),
        counters=survey.counters(node),
        tables=survey.tables(node),
        definitions=survey.definitions(node),
        hidden=survey.hidden(node),
        demands=survey.demands(node),
        accounts=survey.accounts(node),
        privileges=privileges.digests(node),
        details=details.digests(node),
        sequences=sequences.known(node),
        since=UNCHANGED,
    )


def _found(check: CheckSpec, status: CheckStatus, words: tuple[str, ...]) -> Check:
    found = run_check(check)
    assert found.status is status, found
    for word in words:
        assert word in str(found.actual), found
    return found


def failed(check: CheckSpec, *words: str) -> Check:
    return _found(check, CheckStatus.FAILED, words)


def unknown(check: CheckSpec, *words: str) -> Check:
    return _found(check, CheckStatus.UNKNOWN, words)


def passed(check: CheckSpec) -> Check:
    return _found(check, CheckStatus.PASSED, ())


def test_sessions_are_neutral_whatever_the_server_says(node: Mariadb) -> None:
    """A name between double quotes is a text to farside, a backslash escapes, a write is one."""
    assert node.value("", 'SELECT "a\\\\b"') == "a\\b"
    asked = "SELECT CONCAT_WS(' ', @@sql_mode, @@autocommit = 1, @@max_statement_time = 0)"
    assert node.value("", asked) == " 1 1"
    app = replace(node, neutral=False)
    assert "ANSI_QUOTES" in app.value("", "SELECT @@sql_mode")


def test_rows_are_counted_where_nothing_was_written(node: Mariadb) -> None:
    time.sleep(3)  # a table that was written to a moment ago is not quiet
    before = counting.before(node)
    assert before["shop", "t"][0] == 1000
    node.script("", "INSERT INTO shop.q VALUES (1);")
    tables = {item.name: item for item in counting.exact(node, before, survey.tables(node))}
    assert tables["t"].exact == 1000
    assert tables["q"].exact is None, "it was written to since it was counted"
    assert "exact" not in tables["q"].to_json()
    facts = replace(FACTS, tables=tuple(tables.values()))
    passed(counts.row_counts(node, facts))
    node.script("", "DELETE FROM shop.t WHERE id = 7;")
    try:
        failed(counts.row_counts(node, facts), "shop.t has 999 rows, where the source had 1000")
    finally:
        node.script("", "INSERT INTO shop.t VALUES (7, 'x');")
    unknown(counts.row_counts(node, FACTS), "no table")
    nothing = (Table("shop", "t", "INNODB"),)
    unknown(counts.row_counts(node, replace(FACTS, tables=nothing)), "no estimate")


def test_a_plugin_with_work_of_its_own_is_seen(node: Mariadb) -> None:
    passed(isolation.isolation({"here": node}))
    node.script("", "INSTALL PLUGIN handlersocket SONAME 'handlersocket.so';")
    try:
        failed(isolation.isolation({"here": node}), "here: the plugin handlersocket (DAEMON) runs")
        (found,) = (item for item in survey.active_plugins(node) if item.may_act)
        assert found.installed
    finally:
        node.script("", "UNINSTALL PLUGIN handlersocket;")


def test_compressed_pages_can_be_read(tmp_path: Path) -> None:
    """What unpacks them is a plugin, which comes from the host, wherever the source had it."""
    need_debian("mariadb-backup", "/usr/bin/mariadb-backup")
    need_debian("mariadb-plugin-provider-lz4", "/usr/lib/mysql/plugin/provider_lz4.so")
    source, restored = tmp_path / "a", tmp_path / "b"
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={source}/data", "--user=root"]
    install += ["--auth-root-authentication-method=socket", "--skip-test-db"]
    for folder in (source, restored):
        folder.mkdir()
    subprocess.run(install, check=True, capture_output=True)
    options = ["--plugin-load-add=provider_lz4", "--innodb-compression-algorithm=lz4"]
    running = server(source, *options)
    try:
        node = root(source)
        node.script(
            "",
            "CREATE DATABASE shop; USE shop;"
            "CREATE TABLE t (id INT PRIMARY KEY, v TEXT) PAGE_COMPRESSED = 1;"
            "INSERT INTO t SELECT seq, REPEAT('abc', 100) FROM seq_1_to_20000;",
        )
        facts = facts_of(node)
        backup = ["mariadb-backup", "--no-defaults", "--backup", f"--socket={source}/s"]
        backup += ["--user=root", f"--datadir={source}/data", f"--target-dir={restored}/data"]
        subprocess.run(backup, check=True, capture_output=True)
    finally:
        running.kill()
        running.wait()
    assert [item for item in facts.plugins if item.may_act] == []
    # What a backup says of its plugins is the source's word.
    said = restored / "data" / "backup-my.cnf"
    said.write_text(said.read_text().replace("/usr/lib/mysql/plugin/", "/srv/source"))
    tool = tmp_path / "mariadb-backup"
    tool.write_text(f'#!/bin/sh\nexec /usr/bin/mariadb-backup "$@" 2>"{tmp_path}/log"\n')
    tool.chmod(0o755)
    using: Any = SimpleNamespace(
        host=lambda _: root(source).host,
        work=lambda _: str(tmp_path),
        facts=facts,
    )
    place = {"host": "ga1", "address": "10.2.0.1", "data_dir": f"{restored}/data"}
    target = TargetCluster.model_validate(
        {"bin_dir": str(tmp_path), "ca_file": "/ca",
         "nodes": [place | {"cert_file": "/c", "key_file": "/k"}]}
    )  # fmt: skip
    restore.NodeUnderRestore(using, target, target.nodes[0]).prepare()
    assert "/srv/source" not in (tmp_path / "log").read_text()
    written = restore.configuration(
        facts, target, target.nodes[0], cluster="c", socket="/s", work="/w", account="a", pool=1
    )
    assert "loose-" not in written
    loaded = re.findall(r'^plugin-load-add = "(.*)"$', written, re.MULTILINE)
    assert loaded == ["provider_lz4.so"]
    for lines in ([], loaded):
        running = server(restored, *(f"--plugin-load-add={line}" for line in lines))
        try:
            same = {"ga1": root(restored)}
            if lines:
                passed(isolation.plugins(same, facts))
                passed(isolation.isolation(same))
                passed(soundness.table_checks(same, facts))
            else:
                missing = isolation.plugins(same, facts)
                found = failed(missing, "ga1: the plugin provider_lz4 is not active")
                assert found.finding == "extension-missing"
        finally:
            running.kill()
            running.wait()


def test_what_is_loaded_and_what_is_kept_off() -> None:
    """Names and types as MariaDB 10.11 has them."""
    said = [
        {"name": name, "type": kind, "library": f"{library}.so", "installed": installed}
        for name, kind, library, installed in (
            ("provider_lzo", "DAEMON", "provider_lzo", 0),
            ("provider_snappy", "DAEMON", "provider_snappy", "1"),
            ("handlersocket", "DAEMON", "handlersocket", 0),
            ("MYSQL_JSON", "DATA TYPE", "type_mysql_json", "0"),
            ("pam", "AUTHENTICATION", "auth_pam", 0),
            ("simple_password_check", "PASSWORD VALIDATION", "simple_password_check", 0),
            ("Mroonga", "STORAGE ENGINE", "ha_mroonga", 0),
            ("Mroonga_stats", "INFORMATION SCHEMA", "ha_mroonga", 0),
            ("BLACKHOLE", "STORAGE ENGINE", "ha_blackhole", 0),
            ("last_value", "FUNCTION", "ha_blackhole", 0),
            ("SQL_ERROR_LOG", "AUDIT", "sql_errlog", 0),
        )
    ]
    node = TargetNode(host="a", address="10.2.0.1", data_dir="/d", cert_file="/c", key_file="/k")
    facts = read(dict(FACTS.to_json()) | {"settings": {}, "plugins": said})
    text = restore.configuration(
        facts,
        TargetCluster(nodes=(node,), ca_file="/ca"),
        node,
        cluster="c",
        socket="/s",
        work="/w",
        account="a",
        pool=1,
    )
    assert re.findall(r'^plugin-load-add = "(.*)\.so"$', text, re.MULTILINE) == [
        *("provider_lzo", "type_mysql_json", "auth_pam", "simple_password_check"),
        *("ha_mroonga", "ha_blackhole"),
    ]
    assert re.findall("^loose-.*$", text, re.MULTILINE) == ["loose-handlersocket = OFF"]


def test_no_table_of_another_server_is_opened(tmp_path: Path) -> None:
    """Reading about one would call that server: from the source, and from what is isolated."""
    need_debian("mariadb-server", "/usr/lib/mysql/plugin/ha_federatedx.so")
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={tmp_path}/data", "--user=root"]
    install += ["--auth-root-authentication-method=socket", "--skip-test-db"]
    subprocess.run(install, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    federated, calls = "--plugin-load-add=ha_federatedx", list[object]()
    # To be made, such a table must reach what it is of: it is the server itself then.
    there = server(tmp_path, federated, "--skip-networking=0", f"--port={port}",
                   "--bind-address=127.0.0.1")  # fmt: skip
    try:
        url = f"mysql://u:pw@127.0.0.1:{port}/shop/t"
        root(tmp_path).script(
            "",
            "CREATE USER u IDENTIFIED BY 'pw'; GRANT ALL ON *.* TO u; CREATE DATABASE shop;"
            "CREATE TABLE shop.t (id INT PRIMARY KEY, v TEXT DEFAULT 'x', CHECK (id > 0));"
            f"CREATE TABLE shop.`aux` (id INT PRIMARY KEY, v TEXT) ENGINE = FEDERATED"
            f" CONNECTION = '{url}'; INSERT INTO shop.t (id) VALUES (1), (2);"
            f"CREATE TABLE shop.`a/b é` (id INT PRIMARY KEY) ENGINE = FEDERATED"
            f" CONNECTION = '{url}'; CREATE DATABASE app;"
            "CREATE VIEW app.w AS SELECT id FROM shop.`aux`; CREATE TABLE app.own (id INT);"
            # Later, by itself, it would be counted: perhaps after the server is killed.
            "ANALYZE TABLE shop.t;",
        )
    finally:
        there.kill()
        there.wait()
    with socket.create_server(("127.0.0.1", port)) as listening:

        def answer() -> None:
            while True:
                try:
                    calling, _ = listening.accept()
                except OSError:
                    return
                calls.append(calling.getpeername())
                calling.close()

        threading.Thread(target=answer, daemon=True).start()
        running = server(tmp_path, federated)
        try:
            node = root(tmp_path)
            facts = facts_of(node)
            assert [(item.name, item.rows) for item in facts.tables] == [
                *(("own", 0), ("a/b é", None), ("aux", None), ("t", 2)),
            ]
            before = counting.before(node)
            facts = replace(facts, tables=counting.exact(node, before, facts.tables))
            assert before.keys() == {("app", "own"), ("shop", "t")}
            both = {"ga1": node, "ga2": node}
            passed(counts.row_counts(node, facts))
            passed(objects.definitions({"here": node}, facts))
            passed(soundness.table_checks(both, facts))
            passed(membership.agree(both))
            texts = references.texts(node)
            found = references.in_cluster(node, texts, Belongings(networks=("127.0.0.0/8",)))
            assert {item.subject for item in found} == {"table shop.aux", "table shop.a/b é"}
            assert {"constraint shop.t.CONSTRAINT_1", "default of shop.t.v"} < dict(texts).keys()
            assert calls == []
            with pytest.raises((PermanentError, TransientError)):
                node.value("", "SELECT COUNT(*) FROM shop.`aux`")
            assert calls
        finally:
            running.kill()
            running.wait()
            listening.shutdown(socket.SHUT_RDWR)


def test_questions_of_all_tables_open_none(node: Mariadb) -> None:
    """As the server explains them; those that open a table name it."""
    whole = [*survey._DIGESTS.split(";"), *references._TEXTS.split(";"), survey._NAMES]
    whole += details.QUERIES.split(";")
    for query in filter(str.strip, whole):
        if "SELECT" in query:
            plan = " ".join(row[-1] for row in node.rows(f"EXPLAIN {query}"))
            assert "Open_full_table" not in plan, query
            assert "COLUMNS" not in query, "for those of a view, all that it is made of is opened"
    each = [survey._COLUMNS, survey._SIZES, counting._WRITTEN]
    for query in [*each, *references._OF_COLUMNS.split(";"), *references._OF_TABLES.split(";")]:
        select = query[query.index("SELECT") :].format(schema="'shop'", name="'t'")
        plan = " ".join(row[-1] for row in node.rows(f"EXPLAIN {select}"))
        assert "Scanned 0 databases" in plan, query


def test_names_that_look_alike_are_of_two_tables(node: Mariadb) -> None:
    """Which differ by case, or by accents, alone: information_schema's collation sees one."""
    node.script(
        "",
        "CREATE DATABASE `MySQL`; CREATE DATABASE alike; USE alike;"
        "CREATE TABLE Orders (id INT PRIMARY KEY); CREATE TABLE orders (v INT, PRIMARY KEY (v));"
        "CREATE TABLE `Café` (a INT PRIMARY KEY); CREATE TABLE cafe (b INT, c TEXT, KEY (b));"
        "CREATE TABLE `MySQL`.t (id INT); INSERT INTO cafe VALUES (1, 'x');",
    )
    try:
        facts = facts_of(node)
        names = ("alike.Orders", "alike.orders", "alike.Café", "alike.cafe", "MySQL.t")
        assert {f"table {name}" for name in names} < facts.definitions.keys()
        indexes = {"index alike.Orders.PRIMARY", "index alike.orders.PRIMARY", "index alike.cafe.b"}
        assert indexes < facts.definitions.keys()
        passed(objects.definitions({"here": node}, facts))
        passed(counts.row_counts(node, facts))
        node.script("alike", "DROP TABLE orders; ALTER TABLE cafe DROP COLUMN c;")
        found = objects.definitions({"here": node}, facts)
        failed(found, "table alike.orders is missing", "table alike.cafe differs")
        failed(counts.row_counts(node, facts), "alike.orders is missing")
    finally:
        node.script("", "DROP DATABASE alike; DROP DATABASE `MySQL`;")


MADE = (
    ("table made.c", "ALTER TABLE c DROP FOREIGN KEY to_p"),
    ("table made.p", "ALTER TABLE p DROP CONSTRAINT positive"),
    ("table made.p", "ALTER TABLE p ENGINE = Aria"),
    ("table made.p", "ALTER TABLE p DROP KEY w, ADD FULLTEXT KEY w (w)"),
    ("table made.parts", "ALTER TABLE parts REMOVE PARTITIONING"),
    ("function made.f", "CREATE OR REPLACE FUNCTION f(b INT) RETURNS INT DETERMINISTIC RETURN 1"),
    ("function made.f", "ALTER FUNCTION f SQL SECURITY INVOKER"),
    ("function made.f", "CREATE OR REPLACE FUNCTION f(a INT) RETURNS INT RETURN 1"),
    ("event made.e", "ALTER EVENT e ON SCHEDULE EVERY 2 DAY"),
    ("event made.e", "ALTER EVENT e DISABLE"),
    ("trigger made.g", "CREATE OR REPLACE TRIGGER g AFTER INSERT ON p FOR EACH ROW SET @x = 1"),
    ("trigger made.g", "CREATE OR REPLACE TRIGGER g BEFORE DELETE ON p FOR EACH ROW SET @x = 1"),
    ("view made.w", "ALTER SQL SECURITY INVOKER VIEW w AS SELECT id FROM p"),
    ("view made.w", "ALTER DEFINER = cert@'%' VIEW w AS SELECT id FROM p"),
)


@pytest.mark.parametrize(("name", "change"), MADE)
def test_how_an_object_is_made_is_compared(node: Mariadb, name: str, change: str) -> None:
    """Keys to other tables, options, parameters, schedules, definers."""
    node.script(
        "",
        "CREATE OR REPLACE DATABASE made; USE made;"
        "CREATE TABLE p (id INT PRIMARY KEY AUTO_INCREMENT, v INT, w TEXT, KEY w (w(9)),"
        " CONSTRAINT positive CHECK (v > 0)) COMMENT = 'x';"
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, KEY p (p));"
        "ALTER TABLE c ADD CONSTRAINT to_p FOREIGN KEY (p) REFERENCES p (id);"
        "CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3;"
        "CREATE FUNCTION f(a INT) RETURNS INT DETERMINISTIC RETURN 1;"
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SET @x = 1;"
        "CREATE TRIGGER g BEFORE INSERT ON p FOR EACH ROW SET @x = 1;"
        "CREATE VIEW w AS SELECT id FROM p;",
    )
    try:
        facts = facts_of(node)
        node.script("made", "SET GLOBAL time_zone = '+05:00'; INSERT INTO p (w) VALUES ('x');")
        passed(objects.definitions({"ga1": node}, facts))
        if "ENGINE" in change:
            node.script("made", "DROP TABLE c;")
        node.script("made", f"{change};")
        failed(objects.definitions({"ga1": node}, facts), f"ga1: {name} is not made as it was")
        facts = replace(facts, details=None)
        if "ENGINE" not in change and "KEY w" not in change:
            passed(objects.definitions({"ga1": node}, facts))
    finally:
        node.script("", "SET GLOBAL time_zone = 'SYSTEM'; DROP DATABASE made;")


def test_sets_with_columns_of_views_are_still_right(node: Mariadb) -> None:
    """Older ones have them."""
    facts = facts_of(node)
    assert "table shop.w" not in facts.definitions
    with_columns = dict(facts.definitions) | {"table shop.w": "0123456789ab"}
    facts = replace(facts, definitions=with_columns)
    passed(objects.definitions({"here": node}, facts))
    facts = replace(facts, definitions=with_columns | {"view shop.w": "another"})
    failed(objects.definitions({"here": node}, facts), "view shop.w differs")


def test_a_restored_node_behaves_as_the_source_did(tmp_path: Path) -> None:
    """Whatever decides what a query finds, what it may do, and who may ask comes along."""
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={tmp_path}/data", "--user=root"]
    install += ["--auth-root-authentication-method=socket", "--skip-test-db"]
    subprocess.run(install, check=True, capture_output=True)
    odd = {
        "autocommit": "OFF",
        "default_week_format": "3",
        "group_concat_max_len": "4096",
        "ft_min_word_len": "2",
        "idle_transaction_timeout": "77",
        "innodb_ft_min_token_size": "1",
        "innodb_rollback_on_timeout": "ON",
        "max_statement_time": "33.500000",
        "old_mode": "UTF8_IS_UTF8MB3,ZERO_DATE_TIME_CAST",
        "plugin_maturity": "unknown",
        "log_bin_trust_function_creators": "ON",
        "simple_password_check_minimal_length": "11",
        "sql_mode": "ANSI_QUOTES,NO_UNSIGNED_SUBTRACTION",
        "transaction_isolation": "READ-COMMITTED",
        "wsrep_sync_wait": "1",
    }
    loaded = "--plugin-load-add=simple_password_check"
    more = ["--slow-launch-time=9", "--binlog-cache-size=65536"]
    running = server(tmp_path, loaded, *more, *(f"--{name}={odd[name]}" for name in odd))
    try:
        mine = root(tmp_path)
        mine.script(
            "",
            "CREATE USER near@localhost IDENTIFIED BY '1234567890a#A';"
            "SET GLOBAL sql_select_limit = 7;",
        )
        assert len(mine.rows("SELECT seq FROM mysql.seq_1_to_20")) == 20, "a limit of the site's"
        found, changed = survey.settings_of(mine), survey.changed(mine)
        plugins = survey.active_plugins(mine)
        facts = replace(FACTS, settings=found, changed=changed, plugins=plugins)
    finally:
        running.kill()
        running.wait()
    assert read(facts.to_json()) == facts
    assert settings.dropped(changed) == [
        *("binlog_cache_size", "slow_launch_time", "sql_select_limit"),
    ]
    place = TargetNode(host="a", address="10.2.0.1", data_dir="/d", cert_file="/c", key_file="/k")
    target = TargetCluster(nodes=(place,), ca_file="/ca")
    text = restore.configuration(
        facts, target, place, cluster="c", socket="/s", work="/w", account="a", pool=1
    )
    file = tmp_path / "my.cnf"
    lines = [line for line in text.splitlines() if re.match("loose_|plugin-load|skip-name", line)]
    file.write_text("\n".join(["[mariadbd]", *lines, "bind-address = 127.0.0.1", ""]))
    # Farside's administrators are made under these settings, too.
    alone = [SERVER, f"--defaults-file={file}", "--user=root", f"--datadir={tmp_path}/data"]
    sql = restore.administrators(["nobody"]).encode()
    subprocess.run([*alone, "--bootstrap"], input=sql, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    running = server(tmp_path, "--skip-networking=0", f"--port={port}", defaults=file)
    try:
        mine = root(tmp_path)
        now = survey.settings_of(mine)
        assert {name: now.get(name) for name in settings.CARRIED} == {
            name: found.get(name) for name in settings.CARRIED
        }
        assert now["tx_isolation"] == "READ-COMMITTED"
        assert "unknown variable" not in (tmp_path / "log").read_text()
        assert mine.rows("SHOW GRANTS FOR nobody@localhost")
        # This account is let in by the name of its client.
        near = replace(
            mine,
            user="near",
            socket="",
            address="127.0.0.1",
            port=port,
            password=SecretStr("1234567890a#A"),
        )
        assert near.value("", "SELECT CURRENT_USER()") == "near@localhost"
    finally:
        running.kill()
        running.wait()


def test_accounts_by_name_are_told() -> None:
    """Whom they let in, the recovery site's DNS decides."""
    target: Any = type("T", (), {"nodes": ()})
    names = [f"user {name}" for name in ("a@%", "b@10.1.%", "c@localhost", "d@%.corp.example")]
    names += ["role r", "user e@fd00::1", "user f@db1", "user g@10.1.0.0/255.255.0.0"]
    facts = replace(FACTS, accounts=tuple(names), settings={"skip_name_resolve": "ON"})
    assert not list(compare.without_host(facts, target, Belongings()))
    facts = replace(facts, settings={"skip_name_resolve": "OFF"})
    (found,) = compare.without_host(facts, target, Belongings())
    assert found.id == "access-from-source-only"
    assert found.evidence.endswith(": user d@%.corp.example; user f@db1")


def test_names_in_definitions_are_resolved_where_they_are_used(node: Mariadb) -> None:
    """A name says nothing of whose it is: what it leads to on the recovery host does."""
    node.script(
        "",
        "CREATE PROCEDURE shop.call_home() SELECT 'http://localhost/report';"
        "CREATE SERVER far FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'localhost', DATABASE 'x');"
        "CREATE TABLE shop.g (v TEXT, w TEXT AS (CONCAT(v, '@192.0.2.7')));",
    )
    foreign = Belongings(networks=("127.0.0.0/8", "192.0.2.0/24"))
    try:
        texts = references.texts(node)
        named = resolving.used_by(texts, foreign)
        (found,) = resolving.leading_to(node.host, "r0", named, foreign, [])
        (plain,) = references.in_cluster(node, texts, foreign)
    finally:
        node.script("", "DROP PROCEDURE shop.call_home; DROP SERVER far; DROP TABLE shop.g;")
    assert dict(texts)["server far"].rstrip() == "host localhost"
    assert (found.id, found.subject) == ("name-resolves-to-source", "localhost")
    assert plain.subject == "generated column shop.g.w"


def test_a_definition_that_was_not_shown_is_not_the_same(node: Mariadb) -> None:
    """A user without SHOW VIEW, TRIGGER and EVENT sees less than what is there."""
    host = node.host
    narrow = replace(node, user="narrow", neutral=True)
    options = ["mariadb", "--no-defaults", f"--socket={node.socket}", "-unarrow", "-ppw", "-N"]
    seen = host.run([*options, "-e", "SELECT VIEW_DEFINITION FROM information_schema.VIEWS"
                     " WHERE TABLE_NAME = 'w'"]).text  # fmt: skip
    assert seen.strip() == ""
    assert narrow.user == "narrow"
    whole = facts_of(node)
    assert whole.hidden == {}
    passed(objects.definitions({"here": node}, whole))
    part = dict(whole.definitions)
    part["view shop.w"] = "unseen"
    del part["trigger shop.bump"]
    lacking = {"view": "SHOW VIEW", "trigger": "TRIGGER"}
    less = replace(whole, definitions=part, hidden=lacking)
    unknown(objects.definitions({"here": node}, less), "view shop.w", "trigger shop.bump")
    failed(
        objects.definitions({"here": node}, replace(less, hidden={})),
        "trigger shop.bump was not in the",
    )
    less = replace(less, definitions=part | {"table shop.t": "other"})
    failed(objects.definitions({"here": node}, less), "table shop.t differs")
    kinds = ("table", "index", "view", "trigger", "event")
    nothing = replace(whole, definitions={}, hidden=dict.fromkeys(kinds, "SELECT"))
    unknown(objects.definitions({"here": node}, nothing))


def test_what_a_user_may_not_see_is_known(node: Mariadb, tmp_path: Path) -> None:
    """Asked as a user with SELECT alone."""
    tool = tmp_path / "mariadb"
    tool.write_text(
        '#!/bin/sh\n[ "$1" = --no-defaults ] && shift\n'
        'exec /usr/bin/mariadb --no-defaults --password=pw "$@"\n'
    )
    tool.chmod(0o755)
    narrow = replace(node, user="narrow", bin_dir=str(tmp_path))
    assert survey.hidden(narrow) == {"view": "SHOW VIEW", "trigger": "TRIGGER", "event": "EVENT"}
    assert survey.definitions(narrow)["view shop.w"] == "unseen"
    facts = facts_of(narrow)
    unknown(objects.definitions({"here": node}, facts), "view shop.w")
    target: Any = type("T", (), {"nodes": ()})
    found = [item.id for item in compare.without_host(facts, target, Belongings())]
    assert found == ["credential-refused"]


def test_an_account_that_is_let_in_by_less_fails(node: Mariadb) -> None:
    facts = facts_of(node)
    same = {"ga1": node}
    passed(accounts.access(same, facts))
    node.script("", "ALTER USER cert@'%' REQUIRE NONE; CREATE USER new@'%';")
    try:
        found = failed(
            accounts.access(same, facts), "cert@% is let in by", "new@% is let in by", "it is new"
        )
        assert found.finding == "service-more-open"
    finally:
        node.script("", "ALTER USER cert@'%' REQUIRE X509; DROP USER new@'%';")
    passed(accounts.access(same, facts))
    unknown(accounts.access(same, FACTS))
    asked = replace(facts, settings={"require_secure_transport": "ON"})
    failed(accounts.access(same, asked), "without TLS")


GRANTS = (
    ("GRANT SUPER ON *.* TO teller@'%'", "REVOKE SUPER ON *.* FROM teller@'%'"),
    ("GRANT DELETE ON shop.* TO teller@'%'", "REVOKE DELETE ON shop.* FROM teller@'%'"),
    ("GRANT UPDATE ON shop.t TO teller@'%'", "REVOKE UPDATE ON shop.t FROM teller@'%'"),
    ("GRANT INSERT (v) ON shop.t TO teller@'%'", "REVOKE INSERT (v) ON shop.t FROM teller@'%'"),
    ("GRANT EXECUTE ON FUNCTION shop.one TO teller@'%'",
     "REVOKE EXECUTE ON FUNCTION shop.one FROM teller@'%'"),
    ("GRANT boss TO teller@'%'", "REVOKE boss FROM teller@'%'"),
    ("GRANT PROXY ON cert@'%' TO teller@'%'", "REVOKE PROXY ON cert@'%' FROM teller@'%'"),
    ("SET DEFAULT ROLE clerk FOR teller@'%'", "SET DEFAULT ROLE NONE FOR teller@'%'"),
)  # fmt: skip


def test_what_was_granted_is_compared(node: Mariadb) -> None:
    """More, and less, of every kind; a password is none of it."""
    node.script(
        "",
        "CREATE FUNCTION shop.one() RETURNS INT RETURN 1; CREATE ROLE boss; CREATE ROLE clerk;"
        "CREATE USER teller@'%' IDENTIFIED BY 'pw'; GRANT clerk TO teller@'%';",
    )
    same = {"ga1": node}
    try:
        facts = facts_of(node)
        passed(accounts.privileges(same, facts))
        node.script("", "ALTER USER teller@'%' IDENTIFIED BY 'other';")
        passed(accounts.privileges(same, facts))
        for grant, revoke in GRANTS:
            node.script("", f"{grant};")
            differs = "ga1: the privileges of teller@% differ"
            failed(accounts.privileges(same, facts), differs)
            more = facts_of(node)
            node.script("", f"{revoke};")
            failed(accounts.privileges(same, more), differs)
        node.script("", "GRANT DELETE ON shop.t TO boss; CREATE USER thief;")
        failed(accounts.privileges(same, facts), "of role boss differ", "of thief@% are new")
        unknown(accounts.privileges(same, replace(facts, privileges=None)), "did not show")
        node.script("", "DROP USER thief;")
    finally:
        node.script("", "DROP FUNCTION shop.one; DROP ROLE boss, clerk; DROP USER teller@'%';")


def test_what_may_not_be_read_is_unknown(node: Mariadb, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise NotAllowed("no")

    monkeypatch.setattr(Mariadb, "rows", refused)
    assert privileges.digests(node) is None


def test_tables_of_the_server_itself_are_checked(node: Mariadb, home: Path) -> None:
    """A node by itself may have lost who may do what."""
    facts, path = facts_of(node), home / "data" / "mysql" / "procs_priv.MAD"
    node.script("", "CREATE FUNCTION shop.one() RETURNS INT RETURN 1;")
    node.script("", "GRANT EXECUTE ON FUNCTION shop.one TO cert@'%'; FLUSH TABLES mysql.procs_priv")
    kept = path.read_bytes()
    path.write_bytes(kept[:8192] + b"\xff" * 4096 + kept[12288:])
    try:
        failed(soundness.table_checks({"ga1": node}, facts), "ga1: mysql.procs_priv: ")
    finally:
        path.write_bytes(kept)
        node.script("", "FLUSH TABLES mysql.procs_priv; REPAIR TABLE mysql.procs_priv;")
        node.script("", "DROP FUNCTION shop.one;")


def test_full_text_indexes_are_counted(node: Mariadb) -> None:
    """Of InnoDB alone: those of other engines are in their own files, which CHECK TABLE reads."""
    assert survey.fulltext(node) == 0
    node.script(
        "shop",
        "CREATE TABLE words (id INT PRIMARY KEY, v TEXT, w TEXT, FULLTEXT (v), FULLTEXT (v, w));"
        "CREATE TABLE other (id INT PRIMARY KEY, v TEXT, FULLTEXT (v)) ENGINE = Aria;",
    )
    try:
        target: Any = SimpleNamespace(nodes="123")
        said = unverified.phrases(target, replace(FACTS, fulltext=survey.fulltext(node)))
        assert "2 full-text indexes: CHECK TABLE reads nothing of them" in said
        assert "full-text" not in str(unverified.phrases(target, FACTS))
    finally:
        node.script("shop", "DROP TABLE words, other;")


def test_nothing_to_compare_is_no_pass(node: Mariadb) -> None:
    unknown(membership.agree({"ga1": node}), "one node")
    passed(membership.agree({"ga1": node, "ga2": node}))
    passed(soundness.table_checks({"ga1": node}, facts_of(node)))


def test_no_table_is_no_pass(node: Mariadb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "names", lambda *_: [])
    unknown(membership.agree({"ga1": node, "ga2": node}), "no table")
    unknown(soundness.table_checks({"ga1": node}, FACTS), "no table")


def test_a_password_is_in_memory_alone(tmp_path: Path) -> None:
    """In no argument and no variable of the client, and on no disk, whatever the host's shell."""
    client = tmp_path / "mariadb"
    client.write_text(
        "#!/bin/sh\nfile=${1#--defaults-file=}\n"
        'readlink "$file"; ls -lL "$file" | cut -c1-10; cat "$file"; echo "input $(cat)"\n'
        "tr '\\0' '\\n' < /proc/$$/cmdline | grep -c pw; env | grep -c pw; true\n"
    )
    client.chmod(0o755)
    host = LocalHost(name="here", python=sys.executable)
    mariadb = Mariadb(host, str(tmp_path), "app", address="10.1.1.1", password=SecretStr('pw"\\'))
    linked, mode, *said = mariadb.script("shop", "SELECT 1;\nSELECT 2").splitlines()
    assert linked.startswith("/memfd:")
    assert mode == "-rw-------"
    assert said[:2] == ["[client]", r'password="pw\"\\"']
    assert said[2].startswith("input SELECT ")
    assert said[3:] == ["SELECT 1;", "SELECT 2", "0", "0"]
    nowhere = replace(mariadb, bin_dir=str(tmp_path / "none"))
    with pytest.raises(PermanentError, match="none/mariadb: No such file"):
        nowhere.value("", "SELECT 1")


ERROR = "ERROR {} (HY000){}: Zugriff verweigert: certificate, ERROR 2002 (HY000) Can't connect\n"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1045, LoginRefused),
        (1142, NotAllowed),
        (2026, Untrusted),
        (2003, TransientError),
        (1213, TransientError),
        (1146, SqlError),
        (1644, SqlError),
    ],
)
@pytest.mark.parametrize("where", ["", " at line 1"])
def test_errors_are_told_apart_by_their_numbers(number: int, kind: type, where: str) -> None:
    """Whatever the server's language, and whatever a statement's own message says."""
    mine = Mariadb(LocalHost(name="here"), "/usr/bin", "root", socket="/s")
    assert type(mine._error(ERROR.format(number, where))) is kind


# -- what a source says is data ------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"sql_mode": "X\nplugin-dir=/srv\nplugin-load-add=evil"}},
        {"settings": {"innodb_data_file_path": "../../x:12M:autoextend"}},
        {"settings": {"innodb_data_file_path": "/dev/sda:12M"}},
        {"settings": {"character_set_server": "$(touch x)"}},
        {"settings": {"time_zone": "../../etc"}},
        {"settings": {"max_connections": "1 "}},
        {"plugins": [{"name": "x", "library": "../evil.so", "type": "STORAGE ENGINE",
                      "installed": False}]},
        {"plugins": [{"name": "x", "library": "a.so;b.so", "type": "AUDIT", "installed": True}]},
        {"libraries": ["/tmp/evil.so"]},
        {"version": "10.11.6-MariaDB\nrm -rf /"},
        {"bytes": "1"},
        {"bytes": None},
        {"tables": [{"schema": "shop"}]},
        {"tables": "none"},
        {"settings": {"max_connections": 1}},
        {"plugins": [{"name": "x", "library": "a.so", "type": "AUDIT", "installed": None}]},
        {"plugins": [{"name": "x", "library": "a.so", "type": "AUDIT", "installed": "no"}]},
        {"definitions": {"table shop.t": 7}},
        {"sequences": {"shop.up": {"value": 7}}},
        {"since": {"tables": {"shop.t": True}}},
        {"state_uuid": 7},
    ],
)  # fmt: skip
def test_what_no_server_says_is_refused(change: dict[str, Any]) -> None:
    assert read(FACTS.to_json()) == FACTS
    with pytest.raises(PermanentError, match="not a MariaDB server's"):
        read(dict(FACTS.to_json()) | change)
    for name in change:
        left = {part: value for part, value in FACTS.to_json().items() if part != name}
        if name in FACTS.to_json():
            with pytest.raises(PermanentError, match="not a MariaDB server's"):
                read(left)


OLD: dict[str, Any] = {
    "version": "10.11.6-MariaDB-log",
    "cluster": "shop",
    "state_uuid": "u",
    "bytes": 12,
    "settings": {"sql_mode": "ANSI"},
    "plugins": [{"name": "x", "type": "AUDIT", "library": "x.so", "installed": "0"}],
    "libraries": [],
    "tables": [{"schema": "shop", "name": "t", "engine": "INNODB", "rows": 9}],
    "definitions": {"table shop.t": "0123456789ab"},
    "accounts": ["user shop@%"],
    "upstreams": [],
    "elsewhere": [["shop/big", "/mnt/big.ibd"]],
    "of a later version": [{}],
}
"""A set that says no more than the first ones did, and something of a later farside."""


def test_what_an_older_set_does_not_say_is_not_known(node: Mariadb) -> None:
    facts, same = read(OLD), {"ga1": node}
    assert facts.plugins == (Plugin("x", "AUDIT", "x.so", installed=False),)
    assert facts.tables == (Table("shop", "t", "INNODB", 9),)
    assert (facts.source_nodes(), facts.details, facts.since) == (None, None, None)
    unknown(accounts.access(same, facts), "did not show")
    unknown(accounts.privileges(same, facts), "did not show")
    unknown(counts.sequences(same, facts), "was not asked")
    assert "full-text" not in str(unverified.phrases(SimpleNamespace(nodes=(1,)), facts))  # type: ignore[arg-type]


def test_facts_are_written_as_they_were_always_written() -> None:
    """Field by field: sets of today are read by older versions, and theirs by this one."""
    said = OLD | {
        "nodes": [{"name": "n1", "role": "node", "address": "10.1.1.1", "port": 3306}],
        "changed": ["sql_mode"],
        "plugins": [{"name": "x", "type": "AUDIT", "library": "x.so", "installed": True}],
        "counters": {"node": "ga1 3306", "started": 5, "deleted": 6, "statements": 7},
        "tables": [
            {"schema": "s", "name": "t", "engine": "INNODB", "rows": 9, "made": "1 5",
             "written": 5, "exact": 9},
            {"schema": "s", "name": "far", "engine": "FEDERATED", "rows": None, "made": "",
             "written": None},
            {"schema": "s", "name": "lost", "engine": "MYISAM", "rows": None, "made": "",
             "written": 5.5, "broken": 1017},
        ],
        "hidden": {"view": "SHOW VIEW"},
        "demands": {"shop@%": "x"},
        "privileges": None,
        "fulltext": 0,
        "details": {"table s.t": "unseen"},
        "sequences": {
            "s.up": {"value": 1, "increment": 1, "cycle": 0, "least": 1, "most": 2**63 - 2},
            "s.lost": {"broken": 1017},
        },
        "backup": {"node": "ga1", "state_uuid": "u", "seqno": 7},
        "since": {
            "definitions": {"table s.t": None, "view s.v": "0123456789ab"},
            "accounts": {"user new@%": True, "user old@%": None},
            "sequences": {"s.up": {"broken": 1}, "s.gone": None},
            "plugins": {},
            "tables": {
                "s.t": {"dropped": True},
                "s.u": {"fewer": 3, "remade": False, "written": True},
            },
            "deleted": 3,
        },
    }  # fmt: skip
    del said["of a later version"]
    assert json.loads(json.dumps(read(said).to_json())) == said
    assert json.loads(json.dumps(read(said | {"since": {}}).to_json())) == said | {"since": {}}


@pytest.mark.parametrize(
    "path", ["ibdata1:12M:autoextend", "ibdata1:12M;ibdata2:8M:autoextend:max:10G"]
)
def test_what_servers_say_comes_along(path: str) -> None:
    facts = replace(FACTS, settings=dict(FACTS.settings) | {"innodb_data_file_path": path})
    assert read(facts.to_json()) == facts
    assert settings.carried(facts.settings)["innodb_data_file_path"] == path


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["sh", "bash"])
def test_the_runbook_runs_no_text_of_a_source(tmp_path: Path, text: str, kind: str) -> None:
    """And its configuration is what farside would have written, with this shell's own places."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("curl", "age", "zstd", "mbstream", "mariadb-backup", "mariadbd", "openssl"):
        (tools / name).write_text("#!/bin/sh\nexit 0\n")
        (tools / name).chmod(0o755)
    (tools / "mariadb").write_text("#!/bin/sh\necho Synced\n")
    (tools / "mariadb").chmod(0o755)
    (tools / "mariadbd").write_text(f'#!/bin/sh\ncat > "{tmp_path}/sql"\n')
    recovery = FailureDomain(name="west", hosts=[LocalHost(name="ga1")], store=store())
    path = "/" + text.replace("\n", " ")
    place = {"host": "ga1", "address": "10.2.0.1", "data_dir": path}
    target = TargetCluster.model_validate(
        {"bin_dir": path, "server": path, "provider": "/p", "ca_file": "/ca",
         "nodes": [place | {"cert_file": "/$HOME/c", "key_file": "/`id`/k"}]}
    )  # fmt: skip
    hostile = {"sql_mode": text, "time_zone": text}
    facts = replace(FACTS, settings=hostile, version=text)
    made = manifest(dict(facts.to_json()), sealed("backup.xb.zst.age", text), set_id="r1")
    steps = by_hand.commands(made, facts, recovery, target)
    data = tmp_path / "da ta"
    # As it is written; the fetching before it is not this test's.
    lines = [line for step in steps[2:3] for line in step.commands]
    start = [line for line in steps[0].commands if not line.startswith(("fetch", "unseal"))][:5]
    script = "\n".join([*start, *lines])
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "BIN": str(tools),
        "SERVER": str(tools / "mariadbd"),
        "DATA": str(data),
        "ADDRESS": "fd00::2",
    }
    done = subprocess.run(
        [kind, "-c", script], cwd=tmp_path, env=environment, capture_output=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*PWNED*"))
    written = Path(f"{data}.cnf").read_text()
    assert f'datadir = "{data}"' in written
    assert 'bind-address = "fd00::2"' in written
    assert 'ssl-cert = "/$HOME/c"' in written
    assert 'ssl-key = "/`id`/k"' in written
    assert "sql_mode" not in written
    account = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    assert f"VALUES ('localhost', '{account}'" in (tmp_path / "sql").read_text()


def test_an_administrator_is_made_where_a_server_was_created(tmp_path: Path) -> None:
    """FLUSH PRIVILEGES crashes such a server under --bootstrap; what was said then is shown."""
    need_debian("mariadb-server", SERVER)
    data = tmp_path / "data"
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db"]
    subprocess.run([*install, "--user=root"], check=True, capture_output=True)
    alone = [SERVER, "--no-defaults", "--user=root", f"--datadir={data}", "--bootstrap"]
    far = b"INSERT INTO mysql.servers VALUES ('far','10.9.0.7','x','u','p',1,'','mysql','');\n"
    subprocess.run(alone, input=far, check=True, capture_output=True)
    sql = restore.administrators(["nobody", "o'dd"]).encode()
    subprocess.run(alone, input=sql, check=True, capture_output=True)
    work = tmp_path / "work"
    work.mkdir()
    crash = ["sh", "-c", restore._ALONE, "sh", str(work), *alone]
    done = subprocess.run(crash, input=b"FLUSH PRIVILEGES;\n", capture_output=True)
    if done.returncode != 0:  # so it is with 10.11; what is shown tells why
        log = ["sh", "-c", restore._TOLD, "sh", f"{work}/bootstrap.log"]
        said = subprocess.run(log, capture_output=True, text=True).stdout
        assert "FLUSH PRIVILEGES" in said
        assert "got signal" in said
    running = server_of(data, tmp_path)
    try:
        mine = replace(root(tmp_path), user="root")
        grants = mine.rows("SHOW GRANTS FOR nobody@localhost")
        assert "GRANT ALL PRIVILEGES ON *.*" in grants[0][0]
        assert "unix_socket" in grants[0][0]
        assert "WITH GRANT OPTION" in grants[0][0]
        assert mine.rows("SHOW GRANTS FOR `o'dd`@localhost")
    finally:
        running.kill()
        running.wait()


def server_of(data: Path, folder: Path) -> "subprocess.Popen[bytes]":
    assert data == folder / "data"
    return server(folder)


def test_a_password_is_no_file(tmp_path: Path) -> None:
    """It is read twice, as mariadb-backup reads it, and has no name anywhere."""
    reads = tmp_path / "reads"
    reads.write_text(
        f'#!/bin/sh\nf=${{1#--defaults-file=}}\ncat "$f" "$f" >"{tmp_path}/out"\n'
        "echo failed: why >&2\nexit 3\n"
    )
    reads.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        backup.command(sys.executable, str(work), [str(reads), "--backup"], rate=READ_RATE),
        input=b'password="pw"\n',
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (3, b"failed: why\n")
    told = (tmp_path / "out").read_text()
    assert told == '[client]\npassword="pw"\n[mariadb-backup]\npassword="pw"\n' * 2
    assert os.listdir(work) == ["backup.log"]  # noqa: PTH208 (names)
    assert "pw" not in (work / "backup.log").read_text()


def test_a_member_of_a_stream_cannot_leave_its_directory(tmp_path: Path) -> None:
    """What mbstream itself refuses: if this ever fails, farside has to look at the names."""
    need_debian("mariadb-backup", "/usr/bin/mbstream")
    there, inner = tmp_path / "there", tmp_path / "in" / "deep"
    for folder in (there, inner):
        folder.mkdir(parents=True)
    (inner.parent / "evil").write_text("x")
    absolute = tmp_path / "absolute"
    absolute.write_text("x")
    for name in ("../evil", str(absolute)):
        stream = subprocess.run(["mbstream", "-c", name], cwd=inner, capture_output=True).stdout
        absolute.unlink(missing_ok=True)
        subprocess.run(["mbstream", "-x", "-C", str(there)], input=stream, capture_output=True)
        assert not absolute.exists()
        assert not (tmp_path / "evil").exists()
        assert not re.search("evil", " ".join(os.listdir(there)))  # noqa: PTH208 (names)
