"""What a source of MariaDB changes itself between survey and backup is told from damage.

One server stands for the source and for what is restored of it.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from blocks.engines.checks import Answer, CheckSpec, answered, run_check
from blocks.engines.galera import (
    accounts,
    counting,
    counts,
    isolation,
    last_look,
    objects,
    soundness,
    survey,
)
from blocks.engines.galera.facts import GaleraFacts, SequenceState, Since, UnreadableSequence
from blocks.engines.galera.last_look import LastLook, differences
from blocks.engines.galera.mariadb import Mariadb, SqlError
from blocks.evidence.record import CheckStatus
from tests.blocks.engines.test_galera_truth import (
    UNCHANGED,
    facts_of,
    failed,
    home,
    passed,
    root,
    server,
    unknown,
)

__all__ = ["home"]


@pytest.fixture(scope="module")
def node(home: Path) -> Iterator[Mariadb]:
    """A server that is empty."""
    running = server(home)
    yield root(home)
    running.kill()
    running.wait()


@dataclass(frozen=True)
class Source:
    """The server as it was at its survey."""

    node: Mariadb
    facts: GaleraFacts

    def run(self, sql: str) -> None:
        """Statements of its own users, or of a disk that is damaged."""
        self.node.script("shop", sql)

    def looked(self) -> GaleraFacts:
        """The facts of a backup that ends now."""
        return replace(self.facts, since=differences(self.node, self.facts))


@pytest.fixture
def source(node: Mariadb) -> Source:
    node.script(
        "",
        "CREATE OR REPLACE DATABASE shop; USE shop;"
        "CREATE TABLE t (id INT PRIMARY KEY, v INT, KEY by_v (v));"
        "INSERT INTO t SELECT seq, seq FROM seq_1_to_1000;"
        "CREATE TABLE old (id INT PRIMARY KEY); CREATE VIEW w AS SELECT id FROM t;"
        "CREATE OR REPLACE USER clerk@'%' IDENTIFIED BY 'pw' REQUIRE X509;"
        "CREATE OR REPLACE USER leaver@'%' IDENTIFIED BY 'pw'; DROP USER IF EXISTS newcomer@'%';",
    )
    node.script("shop", "ANALYZE TABLE t;")
    facts = replace(facts_of(node), since=None)
    time.sleep(1.1)  # MariaDB knows in whole seconds when a table was made and written to
    return Source(node, facts)


def every(source: Source, facts: GaleraFacts) -> dict[str, CheckSpec]:
    node = source.node
    found = [
        objects.definitions({"here": node}, facts),
        counts.row_counts(node, facts),
        accounts.accounts({"here": node}, facts),
        accounts.access({"here": node}, facts),
        accounts.privileges({"here": node}, facts),
        counts.sequences({"here": node}, facts),
        isolation.plugins({"here": node}, facts),
    ]
    return {check.name: replace(check, run=remembered(check)) for check in found}


def remembered(check: CheckSpec) -> Callable[[], Answer]:
    """What it finds now."""
    found = answered(check.run)
    return lambda: found


def statuses(checks: dict[str, CheckSpec]) -> dict[str, CheckStatus]:
    return {name: run_check(check).status for name, check in checks.items()}


def since(facts: GaleraFacts) -> Since:
    assert facts.since is not None
    return facts.since


def test_nothing_changed(source: Source) -> None:
    facts = source.looked()
    assert facts.since == UNCHANGED
    assert set(statuses(every(source, facts)).values()) == {CheckStatus.PASSED}


def test_what_the_source_changed_is_no_damage(source: Source) -> None:
    """A backup that ended after all of it, and one that ended before any of it."""
    before = every(source, source.looked())
    source.run(
        "CREATE TABLE new (id INT PRIMARY KEY); DROP TABLE old; ALTER TABLE t ADD COLUMN x INT;"
        "CREATE OR REPLACE VIEW w AS SELECT v FROM t; DROP USER leaver@'%';"
        "CREATE USER newcomer@'%'; ALTER USER clerk@'%' REQUIRE NONE;"
    )
    facts = source.looked()
    after = every(source, facts)
    assert set(statuses(after).values()) == {CheckStatus.PASSED}
    assert "dropped at the source since the survey: table shop.old" in str(
        passed(after["schema-digest"]).actual
    ).replace("index shop.old.PRIMARY; ", "")
    assert "newcomer@%" in str(passed(after["access"]).actual)
    # The backup may be a moment older than the last look.
    source.run(
        "DROP TABLE new; CREATE TABLE old (id INT PRIMARY KEY); ALTER TABLE t DROP COLUMN x;"
        "CREATE OR REPLACE VIEW w AS SELECT id FROM t; DROP USER newcomer@'%';"
        "CREATE USER leaver@'%' IDENTIFIED BY 'pw'; ALTER USER clerk@'%' REQUIRE X509;"
    )
    assert statuses(every(source, facts)) == statuses(before)


def test_what_it_did_not_change_and_differs_is_damage(source: Source) -> None:
    source.run("CREATE TABLE other (id INT)")
    facts = source.looked()
    source.run(
        "DROP TABLE old; CREATE OR REPLACE VIEW w AS SELECT v FROM t; DROP INDEX by_v ON t;"
        "DROP USER leaver@'%'; ALTER USER clerk@'%' REQUIRE NONE; DELETE FROM t WHERE id > 50;"
    )
    found = every(source, facts)
    failed(found["schema-digest"], "table shop.old is missing", "view shop.w differs", "by_v is m")
    failed(found["row-counts"], "shop.old is missing", "shop.t has 50 of about")
    failed(found["logins"], "user leaver@% is missing")
    failed(found["access"], "clerk@% is let in by")


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Mariadb]:
    """Another server, which nothing was restored to."""
    folder = tmp_path / "second"
    folder.mkdir()
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", "--user=root"]
    install += ["--auth-root-authentication-method=socket", "--skip-test-db"]
    subprocess.run(install, check=True, capture_output=True)
    running = server(folder)
    yield root(folder)
    running.kill()
    running.wait()


def test_every_node_is_asked(source: Source, second: Mariadb) -> None:
    """Each is restored by itself: what one lacks, no other tells."""
    facts, both = source.looked(), {"ga1": source.node, "ga2": second}
    second.script("", "CREATE USER intruder@'%';")
    failed(objects.definitions(both, facts), "ga2: view shop.w is missing")
    failed(accounts.accounts(both, facts), "ga2: user clerk@% is missing")
    failed(accounts.access(both, facts), "ga2: intruder@% is let in by", "it is new")
    gone = {"ga1": source.node, "ga2": replace(second, socket="/nowhere/s")}
    failed(accounts.privileges(both, facts), "ga2: the privileges of clerk@% are gone")
    for check in (objects.definitions, accounts.accounts, accounts.access, accounts.privileges):
        unknown(check(gone, facts), "ga2: ")
    source.run("DROP TABLE old;")
    same = {"ga1": source.node, "ga2": source.node}
    found = passed(objects.definitions(same, source.looked()))
    assert str(found.actual).count("table shop.old") == 1, "told once, whatever the nodes"


def test_without_a_last_look_nobody_knows(source: Source) -> None:
    """A set of an older farside; or the source was gone by then."""
    source.run(
        "DROP TABLE old; CREATE OR REPLACE VIEW w AS SELECT v FROM t; DELETE FROM t;"
        "DROP USER leaver@'%'; ALTER USER clerk@'%' REQUIRE NONE;"
    )
    for facts in (source.facts, replace(source.facts, since=Since())):
        found = every(source, facts)
        unknown(found["schema-digest"], "shop.old is missing: damaged, or changed since the survey")
        unknown(found["row-counts"], "shop.t has 0 of about")
        unknown(found["logins"], "leaver@% is missing")
        unknown(found["access"], "clerk@% is let in by")


def test_what_changed_twice_is_unknown(source: Source) -> None:
    source.run("CREATE OR REPLACE VIEW w AS SELECT v FROM t;")
    facts = source.looked()
    source.run("CREATE OR REPLACE VIEW w AS SELECT id, v FROM t;")
    unknown(
        objects.definitions({"here": source.node}, facts),
        "view shop.w differs: the source changed it",
    )


def test_what_came_and_went_between_is_unknown(source: Source) -> None:
    """A table of some minutes, and an index that a nightly load drops and makes again."""
    source.run("CREATE TABLE passing (id INT); CREATE USER newcomer@'%';")
    source.run("DROP TABLE passing; DROP USER newcomer@'%';")
    source.run("DROP INDEX by_v ON t; CREATE INDEX by_v ON t (v);")
    facts = source.looked()
    assert since(facts).definitions == {}
    # The backup ended while they were there, or were not.
    source.run("CREATE TABLE passing (id INT); CREATE USER newcomer@'%'; DROP INDEX by_v ON t;")
    unknown(
        objects.definitions({"here": source.node}, facts), "table shop.passing", "index shop.t.by_v"
    )
    unknown(accounts.access({"here": source.node}, facts), "newcomer@% is let in")
    # Where nothing was defined meanwhile, they are the restore's.
    quiet = replace(source.facts, since=UNCHANGED)
    failed(
        objects.definitions({"here": source.node}, quiet),
        "passing was not in the",
        "by_v is missing",
    )
    failed(accounts.access({"here": source.node}, quiet), "newcomer@% is let in", "it is new")


def rows(source: Source, facts: GaleraFacts) -> CheckSpec:
    return counts.row_counts(source.node, facts)


def test_rows_that_the_source_deleted_are_no_loss(source: Source) -> None:
    source.run("DELETE FROM t WHERE id > 50;")
    facts = source.looked()
    passed(rows(source, facts))
    assert since(facts).deleted == 950
    moved = LastLook(facts.since).table("shop.t")
    assert moved is not None
    assert moved.fewer > 800
    # Deleted, and made again after the backup.
    source.run("INSERT INTO t SELECT seq, seq FROM seq_51_to_1000;")
    facts = source.looked()
    source.run("DELETE FROM t WHERE id > 50;")
    unknown(rows(source, facts), "shop.t has 50 of about", "may have deleted them")
    # More than it deleted are missing.
    facts = replace(facts, since=replace(since(facts), deleted=5))
    failed(rows(source, facts), "shop.t has 50 of about")


def test_a_table_that_was_emptied_is_no_loss(source: Source) -> None:
    """TRUNCATE counts no deleted rows, and leaves all times of a table as they were."""
    had = {("shop", "t"): 1000, ("shop", "old"): 0}
    before = {
        (schema, name): (had[schema, name], written)
        for schema, name, _, written, _ in counting._written(source.node)
        if (schema, name) in had
    }
    source.run("TRUNCATE TABLE t;")
    tables = counting.exact(source.node, before, source.facts.tables)
    assert [item.exact for item in tables if item.schema == "shop"] == [0, None]
    facts = replace(source.looked(), tables=tables)
    passed(rows(source, facts))
    source.run("INSERT INTO t SELECT seq, seq FROM seq_1_to_1000; ANALYZE TABLE t;")
    facts = source.looked()
    source.run("TRUNCATE TABLE t;")
    unknown(rows(source, facts), "shop.t has 0 of about", "emptied")


def test_counters_of_another_server_say_nothing(source: Source) -> None:
    counters = source.facts.counters
    assert counters is not None
    for other in (replace(counters, node="another 3306"), replace(counters, started=1)):
        found = differences(source.node, replace(source.facts, counters=other))
        assert found.to_json().keys().isdisjoint({"deleted", "statements"})
    assert LastLook(Since()).deleted is None


def test_a_part_that_cannot_be_asked_hides_no_other(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Mariadb) -> None:
        raise SqlError("no", number=1227)

    monkeypatch.setattr(last_look, "_PARTS", {**last_look._PARTS, "demands": refused})
    monkeypatch.setattr(survey, "counters", refused)
    found = differences(source.node, replace(source.facts, privileges=None))
    parts = ("definitions", "details", "accounts", "sequences", "plugins", "tables")
    assert found.to_json() == {part: {} for part in parts}


def test_damage_is_told_by_numbers_and_kinds(source: Source, home: Path) -> None:
    """A table whose file is gone: at the source, or only in what was restored."""
    source.run("CREATE TABLE lost (id INT PRIMARY KEY) ENGINE = MyISAM;")
    whole, same = facts_of(source.node), {"here": source.node}
    file, kept = home / "data" / "shop" / "lost.MYI", home / "kept"
    file.rename(kept)
    source.run("FLUSH TABLES lost;")
    try:
        found = failed(soundness.table_checks(same, whole), "here: shop.lost")
        assert found.finding == "page-corrupt"
        failed(rows(source, whole), "shop.lost cannot be read")
        itself = facts_of(source.node)
        (lost,) = (item for item in itself.tables if item.name == "lost")
        assert lost.broken == 1017
        unknown(
            soundness.table_checks(same, itself), "shop.lost: the source could not open it either"
        )
        unknown(rows(source, itself), "the source could not open it either")
    finally:
        kept.rename(file)
        source.run("FLUSH TABLES lost; DROP TABLE lost;")


class Says(Mariadb):
    """A node whose CHECK TABLE says what is given here, whatever a table is like."""

    said: tuple[tuple[str, str], ...] = ()

    def rows(self, sql: str, *, timeout: float | None = None) -> list[list[str]]:
        if sql.startswith("CHECK TABLE"):
            return [["shop.t", "check", *row] for row in self.said]
        return super().rows(sql, timeout=timeout)


SAID = (
    ([("status", "OK")], CheckStatus.PASSED),
    ([("status", "Tabelle ist in Ordnung")], CheckStatus.PASSED),
    ([("note", "Hinweis"), ("status", "OK")], CheckStatus.PASSED),
    ([("Warning", "corrupt"), ("error", "Corrupt")], CheckStatus.FAILED),
    ([("warning", "Zahl der Zeilen"), ("status", "OK")], CheckStatus.FAILED),
    ([("Error", "Lock wait timeout exceeded"), ("status", "x")], CheckStatus.UNKNOWN),
    ([("note", "The storage engine doesn't support check")], CheckStatus.UNKNOWN),
)


def test_a_table_is_judged_by_kinds(source: Source) -> None:
    """Not by words, which are of the server's language."""
    node = Says(source.node.host, "/usr/bin", "root", socket=source.node.socket)
    for said, status in SAID:
        object.__setattr__(node, "said", said)
        found = run_check(soundness.table_checks({"here": node}, source.facts))
        assert found.status is status, (said, found)


@pytest.mark.parametrize(("file", "finding"), [("MYI", "index-corrupt"), ("MYD", "page-corrupt")])
def test_an_index_is_told_from_its_table(
    source: Source, home: Path, file: str, finding: str
) -> None:
    """By whether all rows can still be read, and not by what the server says of it."""
    source.run(
        "CREATE TABLE torn (id INT PRIMARY KEY, v TEXT, KEY (v(9))) ENGINE = MyISAM;"
        "INSERT INTO torn SELECT seq, REPEAT(seq, 90) FROM seq_1_to_900; FLUSH TABLES torn;"
    )
    path = home / "data" / "shop" / f"torn.{file}"
    kept = path.read_bytes()
    path.write_bytes(kept[:4096] + b"\xff" * 512 + kept[4608:])
    try:
        found = failed(
            soundness.table_checks({"here": source.node}, source.facts), "here: shop.torn"
        )
    finally:
        path.write_bytes(kept)
        source.run("FLUSH TABLES torn; REPAIR TABLE torn; DROP TABLE torn;")
    assert found.finding == finding


@pytest.fixture
def counting_on(source: Source) -> Source:
    """With sequences that go up, down and round."""
    source.run(
        "CREATE SEQUENCE up CACHE 10; CREATE SEQUENCE down INCREMENT -1 MINVALUE -9000 NOCACHE;"
        "CREATE SEQUENCE turns MAXVALUE 9 CYCLE NOCACHE;"
        "SELECT NEXTVAL(up), NEXTVAL(down), NEXTVAL(turns); SELECT SETVAL(up, 500);"
        "SELECT SETVAL(down, -500);"
    )
    return replace(source, facts=facts_of(source.node))


def test_a_sequence_that_gives_a_value_twice_fails(counting_on: Source, second: Mariadb) -> None:
    facts, same = counting_on.looked(), {"ga1": counting_on.node}
    up = (facts.sequences or {})["shop.up"]
    assert isinstance(up, SequenceState)
    assert (up.value or 0) > 500
    passed(counts.sequences(same, facts))
    counting_on.run("SELECT NEXTVAL(up), NEXTVAL(down), NEXTVAL(turns); SELECT SETVAL(turns, 1);")
    passed(counts.sequences(same, facts))
    failed(counts.sequences(same | {"ga2": second}, facts), "ga2: shop.up is missing")
    counting_on.run(
        "ALTER SEQUENCE up RESTART 1; ALTER SEQUENCE down RESTART -3; DROP SEQUENCE turns;"
    )
    found = counts.sequences(same, facts)
    failed(
        found, "ga1: shop.up is at 1, was at 5", "ga1: shop.down is at -3, was at -50", "missing"
    )
    facts = replace(counting_on.facts, since=Since())
    unknown(counts.sequences(same, facts), "was not asked again")
    unknown(counts.sequences(same, replace(facts, sequences=None)), "was not asked")


def test_a_sequence_that_the_source_moved_is_no_damage(counting_on: Source) -> None:
    same = {"ga1": counting_on.node}
    counting_on.run(
        "ALTER SEQUENCE up RESTART 7; ALTER SEQUENCE down MINVALUE -7; DROP SEQUENCE t"
    ) if False else counting_on.run("ALTER SEQUENCE up RESTART 7; DROP SEQUENCE turns;")
    facts = counting_on.looked()
    passed(counts.sequences(same, facts))
    counting_on.run("ALTER SEQUENCE up RESTART 2;")
    unknown(counts.sequences(same, facts), "shop.up is at 2", "the source moved it since")
    counting_on.run("ALTER SEQUENCE down MINVALUE -8000;")
    failed(counts.sequences(same, facts), "shop.down has other limits")


def test_a_sequence_that_cannot_be_read(counting_on: Source, home: Path) -> None:
    counting_on.run("CREATE SEQUENCE lost ENGINE = MyISAM;")
    whole, same = facts_of(counting_on.node), {"ga1": counting_on.node}
    file, kept = home / "data" / "shop" / "lost.MYI", home / "kept"
    file.rename(kept)
    counting_on.run("FLUSH TABLES lost;")
    try:
        failed(counts.sequences(same, whole), "ga1: shop.lost cannot be read")
        itself = facts_of(counting_on.node)
        assert itself.sequences is not None
        assert whole.sequences is not None
        assert itself.sequences["shop.lost"] == UnreadableSequence(1017)
        assert itself.sequences["shop.up"] == whole.sequences["shop.up"]
        unknown(counts.sequences(same, itself), "the source could not read it either")
    finally:
        kept.rename(file)
        counting_on.run("FLUSH TABLES lost; DROP SEQUENCE lost;")
