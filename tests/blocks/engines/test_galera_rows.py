"""What names the source in rows of MariaDB is found, and what was not looked at is said."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.engines.galera import references, rows
from blocks.engines.galera.facts import TableName
from blocks.engines.galera.mariadb import Mariadb
from blocks.ownership import Belongings
from tests.blocks.engines.test_galera_truth import home, root, server

__all__ = ["home"]
EAST = Belongings(networks=("10.9.0.0/16",), suffixes=("east.example",), paths=("/mnt/east",))
MORE = Belongings(networks=("192.0.2.0/24",))


@pytest.fixture(scope="module")
def node(home: Path) -> Iterator[Mariadb]:
    """A server with rows of all kinds."""
    running = server(home, "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES")
    mine = root(home)
    mine.script(
        "",
        r"""CREATE DATABASE shop; USE shop;
        CREATE TABLE plain (id INT PRIMARY KEY, v VARCHAR(99), w INT);
        INSERT INTO plain VALUES (1, 'see http://10.9.3.4/x', 5), (2, 'none', 6), (3, NULL, 7);
        CREATE TABLE `o'dd ``x` (`c"1` TEXT CHARACTER SET utf16, j JSON, k JSON);
        INSERT INTO `o'dd ``x` VALUES
          ('é DB1.East.Example',
           '{"p":"\\/mnt\\/east\\/f"}', '{"a": "x%2Fb.east.example%2Fy"}');
        CREATE TABLE addresses (a INET4, b INET6, c ENUM('x.east.example', 'y'));
        INSERT INTO addresses VALUES ('10.9.0.1', '::1', 'x.east.example');
        CREATE TABLE hidden (id INT, b BLOB, c VARBINARY(9));
        INSERT INTO hidden VALUES (1, 'x', 'y');
        """,
    )
    yield mine
    running.kill()
    running.wait()


def test_rows_that_name_the_source_are_found(node: Mariadb) -> None:
    unread = list[str]()
    found = rows.texts(node, EAST, 60, unread)
    told = {item.subject: item.evidence for item in references.in_cluster(node, found, EAST)}
    assert told.keys() == {
        "column shop.plain.v",
        "column shop.o'dd `x.c\"1",
        "column shop.o'dd `x.j",
        "column shop.o'dd `x.k",
        "column shop.addresses.a",
        "column shop.addresses.c",
    }
    assert told["column shop.plain.v"] == "its line 1 names 10.9.3.4"
    assert unread == ["table shop.hidden: binary columns b; c"]


def test_the_reader_may_read_and_is_gone(node: Mariadb, monkeypatch: pytest.MonkeyPatch) -> None:
    grants = list[str]()
    ask = rows._of_table

    def spied(reader: Mariadb, *rest: object) -> object:
        grants.extend(row[0] for row in reader.rows("SHOW GRANTS"))
        return ask(reader, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "_of_table", spied)
    rows.texts(node, EAST, 60, [])
    assert all(grant.startswith("GRANT SELECT ON *.* TO `farside_reader_") for grant in grants)
    accounts = node.rows("SELECT User FROM mysql.user WHERE User LIKE 'farside%'")
    assert (bool(grants), accounts) == (True, [])
    with pytest.raises(ZeroDivisionError), rows._reader(node):
        _ = 1 / 0
    assert node.rows("SELECT User FROM mysql.user WHERE User LIKE 'farside%'") == []


def test_limits_are_said(node: Mariadb, monkeypatch: pytest.MonkeyPatch) -> None:
    unread = list[str]()
    assert rows.texts(node, EAST, 0.5, unread) == []
    (late,) = (text for text in unread if "search_rows_limit" in text)
    assert late.startswith("rows of 3 tables, ")
    node.script(
        "shop",
        "CREATE TABLE many (v TEXT); INSERT INTO many SELECT '192.0.2.1' FROM seq_1_to_9;"
        "CREATE TABLE long_one (v LONGTEXT); INSERT INTO long_one VALUES"
        " (CONCAT('192.0.2.1 ', REPEAT('x', 200)));",
    )
    monkeypatch.setattr(rows, "ROWS_MOST", 5)
    monkeypatch.setattr(rows, "CHARACTERS_MOST", 100)
    unread.clear()
    try:
        found = rows.texts(node, MORE, 60, unread)
    finally:
        node.script("shop", "DROP TABLE many, long_one;")
    assert [name for name, _ in found].count("column shop.many.v") == 5
    assert "table shop.many: more than 5 rows may name the source" in unread
    assert "column shop.long_one.v: beyond 100 characters of a value" in unread


def test_a_table_that_cannot_be_read_hides_no_other(node: Mariadb, home: Path) -> None:
    node.script("shop", "CREATE TABLE gone (v TEXT) ENGINE = MyISAM; FLUSH TABLES gone;")
    file = home / "data" / "shop" / "gone.MYD"
    file.rename(home / "kept")
    unread = list[str]()
    try:
        found = rows.texts(node, EAST, 60, unread)
    finally:
        (home / "kept").rename(file)
        node.script("shop", "FLUSH TABLES gone; DROP TABLE gone;")
    assert "column shop.plain.v" in dict(found)
    assert any(text.startswith("table shop.gone: ") for text in unread)


def test_a_table_may_take_no_longer_than_is_left(node: Mariadb) -> None:
    unread = list[str]()
    table = TableName("shop", "slow", "")
    # Slow on any machine: how long an expression takes to match is each machine's own.
    node.script("shop", "CREATE VIEW slow AS SELECT CONCAT(SLEEP(30), '10.1.2.3') AS v;")
    began = time.monotonic()
    try:
        assert list(rows._of_table(node, table, ["v"], "10[.]1[.]", 0.2, unread)) == []
    finally:
        node.script("shop", "DROP VIEW slow;")
    assert [text.partition(": ")[0] for text in unread] == ["table shop.slow"]
    assert time.monotonic() - began < 10
