"""Galera in the lab: three nodes of MariaDB, restored into as many others, and into two."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml
from pydantic import SecretStr, ValidationError

from blocks.engines.checks import CheckSpec, Ticks, run_check
from blocks.engines.galera import (
    Galera,
    accounts,
    application,
    compare,
    counts,
    isolation,
    membership,
    objects,
    references,
    soundness,
    survey,
)
from blocks.engines.galera import plan as plans
from blocks.engines.galera.facts import Plugin, Table
from blocks.engines.galera.mariadb import LoginRefused, Mariadb, Untrusted, literal
from blocks.engines.galera.plan import TargetNode, address_and_port
from blocks.engines.galera.restore import NodeUnderRestore, configuration
from blocks.engines.galera.restored import GaleraRestored
from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import Severity
from blocks.evidence.record import CheckStatus, Record, SourceNode, Topology
from blocks.ownership import Belongings
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from deployments import lab
from deployments.lab import processes
from deployments.lab.parts import galera
from deployments.lab.places import Places
from tests import mechanisms
from tests.blocks.engines.conformance import EngineConformance
from tests.blocks.engines.test_galera_truth import FACTS, UNCHANGED, failed, passed

HOSTS = ("ga1", "ga2", "ga3")


@pytest.fixture(scope="module", autouse=True)
def _need_mariadb() -> None:
    """Skip where Debian's MariaDB is not installed, or fail where nothing may be skipped."""
    try:
        galera.PART.check()
    except PermanentError as error:
        if os.environ.get("FARSIDE_NO_SKIPS"):
            pytest.fail(f"{error.message}, and FARSIDE_NO_SKIPS is set")
        pytest.skip(error.message)


class Conformance(EngineConformance):
    growing: ClassVar = frozenset(
        {"fetch and extract", "nodes-agree", "replay log", "row-counts", "table-checks"}
    )
    plan_name = "galera"
    runbook_variables: ClassVar = {"DATA": "{place}/data"}
    runbook_proof: ClassVar = (
        '"$BIN/mariadb" --no-defaults --socket="$SOCKET" --batch --skip-column-names'
        ' --execute="SELECT COUNT(*), SUM(balance) FROM shop.accounts"',
    )
    runbook_end = 'kill -9 "${MARIADBD:-}"'
    proven = r"1000\t0\n"
    nodes: ClassVar[int]

    @pytest.fixture(scope="class")
    @classmethod
    def plan_path(cls, places: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
        lab.up(places.root, parts=[galera.NAME])
        document = yaml.safe_load(lab.plan_path(places.root, "galera").read_text())
        del document["engine"]["target"]["nodes"][cls.nodes :]
        path = tmp_path_factory.mktemp("plans") / "plan.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    def test_has_the_shape_of_the_plan(self, rehearsed: Record) -> None:
        assert rehearsed.topology.observed is not None
        assert len(rehearsed.topology.observed) == self.nodes
        actual = {check.name: check.actual for check in rehearsed.checks}
        assert actual["synced"] == f"{self.nodes} Synced"
        assert ("failover" in actual) is (self.nodes > 2)
        assert any("quorum" in text for text in rehearsed.not_verified) is (self.nodes == 2)

    def test_what_was_lost_is_known(self, rehearsed: Record) -> None:
        assert rehearsed.transactions_lost is not None
        assert rehearsed.recovered_until is not None


@mechanisms.CLUSTERS
class TestThree(Conformance):
    nodes = 3


@mechanisms.CLUSTERS
class TestTwo(Conformance):
    nodes = 2


@pytest.fixture
def plan(places: Places) -> Iterator[Plan]:
    """The lab's plan, with everything of it up."""
    lab.up(places.root, parts=[galera.NAME])
    loaded = load_plan(lab.plan_path(places.root, "galera"))
    yield loaded
    loaded.source.close()
    loaded.recovery.close()


@pytest.fixture
def living(plan: Plan, places: Places) -> dict[str, Mariadb]:
    """The nodes of the source, asked as the engine asks restored ones."""
    return {name: at(plan, places, name) for name in HOSTS}


def at(plan: Plan, places: Places, name: str) -> Mariadb:
    host = plan.source.host(name)
    account = host.run(["id", "-un"]).text.strip()
    return Mariadb(host, galera.BIN, account, socket=str(places.host("east", name) / "s"))


def engine_of(plan: Plan) -> Galera:
    assert isinstance(plan.engine, Galera)
    return plan.engine


def there(plan: Plan) -> Any:
    """The target that the living source would be."""
    target, source = engine_of(plan).target, engine_of(plan).source
    pairs = zip(target.nodes, source.nodes, strict=True)
    nodes = [node.model_copy(update={"address": now.address}) for node, now in pairs]
    return target.model_copy(update={"nodes": tuple(nodes)})


def test_every_check_of_the_cluster_can_fail(
    plan: Plan, living: dict[str, Mariadb], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, target = engine_of(plan).survey(plan.source), engine_of(plan).target
    two = {name: living[name] for name in HOSTS[:2]}
    another = replace(facts, state_uuid="another")
    passed(membership.synced(living))
    failed(membership.synced(two), "ga1 sees 3 of 2 nodes")
    living["ga2"].script("", "SET GLOBAL wsrep_desync = ON;")
    try:
        failed(membership.synced(living), "ga2: wsrep_local_state_comment is Donor/Desynced")
    finally:
        living["ga2"].script("", "SET GLOBAL wsrep_desync = OFF;")
    dead = {**living, "ga3": replace(living["ga3"], socket="/nowhere/s")}
    failed(membership.synced(dead), "ga3: ", "Can't connect")
    with pytest.raises(TransientError, match="it is not whole: ga3: "):
        membership.whole(dead)
    passed(membership.membership(living, there(plan)))
    failed(membership.membership(living, target), "ga1: knows", "ga1: looks for gcomm://")
    astray = there(plan).model_copy(update={"nodes": there(plan).nodes[::-1]})
    failed(membership.membership(living, astray), "ga1: looks for gcomm://")
    failed(
        membership.identity(living, facts, "west"), "cluster shop-east", "the history is the source"
    )
    passed(membership.identity(living, another, galera.CLUSTER))
    failed(membership.identity(dead, facts, galera.CLUSTER), "the history is the source")
    with pytest.raises(TransientError):
        membership.identity(dead, another, galera.CLUSTER).run()
    failed(membership.identity(two, another, galera.CLUSTER), "noted 3 members")
    passed(application.committed_write(living, "r0"))
    powerless = engine_of(plan)._living(plan.source)
    failed(application.committed_write({**living, "ga3": powerless}, "r0"), "ga3: ", "denied")
    living["ga2"].script("", "SET GLOBAL wsrep_on = OFF;")
    try:
        failed(application.committed_write(living, "r0"), "ga1 does not see what ga2 wrote")
    finally:
        living["ga2"].script("", "SET GLOBAL wsrep_on = ON;")
    monkeypatch.setattr(membership, "SURVIVAL_SECONDS", 0.1)
    failover = CheckSpec("failover", "", lambda: membership.survives(two, "r0"))
    failed(failover, "the cluster's size is 3")


def test_every_check_of_the_data_can_fail(plan: Plan, living: dict[str, Mariadb]) -> None:
    first = living["ga1"]
    facts = replace(engine_of(plan).survey(plan.source), since=UNCHANGED)
    passed(objects.definitions(living, facts))
    changed = {**facts.definitions, "view shop.wealth": "another", "event shop.x": "y"}
    differing = objects.definitions(living, replace(facts, definitions=changed))
    failed(differing, "view shop.wealth differs", "event shop.x is missing")
    passed(counts.row_counts(first, facts))
    passed(accounts.accounts(living, facts))
    passed(soundness.table_checks(living, facts))
    more = replace(
        facts,
        tables=(Table("shop", "gone", "INNODB", 1), Table("shop", "accounts", "INNODB", 9000)),
        accounts=("user gone@%",),
    )
    failed(counts.row_counts(first, more), "gone is missing", "1000 of about 9000")
    failed(accounts.accounts(living, more), "gone@% is missing")
    first.script("shop", "CREATE TABLE torn (id INT PRIMARY KEY, v INT, KEY (v)) ENGINE = MyISAM;")
    first.script("shop", "CREATE TABLE odd (id INT PRIMARY KEY);")
    try:
        failed(objects.definitions(living, facts), "table shop.torn was not in the source")
        first.script("shop", "INSERT INTO torn VALUES (1, 1), (2, 2), (3, 3); FLUSH TABLES torn;")
        # Behind the server's back: the second row's place in the index of `v`.
        path = literal(first.value("", "SELECT CONCAT(@@datadir, 'shop/torn.MYI')"))
        spoil = f"f = open({path}, 'r+b'); f.seek(1024); f.write(b'\\xff' * 64); f.close()"
        first.host.run([plan.source.host("ga1").python, "-c", spoil])
        found = failed(soundness.table_checks(living, facts), "ga1: shop.torn")
        assert found.finding == "index-corrupt"
        living["ga3"].script("", "SET SESSION wsrep_on = OFF; INSERT INTO shop.odd VALUES (7);")
        failed(membership.agree(living), "shop.odd: ")
    finally:
        first.script("shop", "REPAIR TABLE torn; DROP TABLE torn, odd;")


def test_isolation_can_fail(living: dict[str, Mariadb]) -> None:
    passed(isolation.isolation(living))
    elsewhere = "CHANGE MASTER 'x' TO MASTER_HOST = '203.0.113.7', MASTER_USER = 'u'"
    living["ga2"].script("", f"SET GLOBAL event_scheduler = ON; {elsewhere};")
    try:
        failed(isolation.isolation(living), "ga2: the event scheduler is ON", "203.0.113.7")
    finally:
        living["ga2"].script("", "SET GLOBAL event_scheduler = OFF; RESET SLAVE 'x' ALL;")


def test_logins_can_fail(plan: Plan, places: Places) -> None:
    engine, node = engine_of(plan), engine_of(plan).source.nodes[0]
    east, west = (str(places.tree(name) / "tls" / "ca.pem") for name in ("east", "west"))
    shop = Mariadb(
        *(plan.source.host(node.host), galera.BIN, "shop"),
        address=node.address,
        port=node.port,
        password=plan.recovery.secret(engine.application.password),
        ca_file=east,
    )
    wrong = replace(shop, password=SecretStr('not "the\\ password'))

    def login(client: Mariadb, database: str = "shop") -> CheckSpec:
        return application.login(lambda: client, "shop", database)

    passed(login(shop))
    failed(login(wrong), "Access denied")
    failed(login(shop, "mysql"), "denied")
    with pytest.raises(Untrusted):
        login(replace(shop, ca_file=west)).run()

    def write(statement: str, client: Mariadb = shop) -> CheckSpec:
        return application.application_write(lambda: client, "shop", "shop", statement)

    passed(write(str(engine.application.write)))
    failed(write("UPDATE accounts SET balance = 0 WHERE id < 0"), "wrote nothing")
    failed(write("DELETE FROM nowhere"), "nowhere")
    failed(write("DELETE FROM mysql.user"), "denied")
    refused = run_check(write(str(engine.application.write), wrong))
    assert refused.status is CheckStatus.UNKNOWN


def test_passwords_of_any_letters(plan: Plan, living: dict[str, Mariadb]) -> None:
    password = "a\"b\\c'd #e"
    living["ga1"].script("", f"CREATE USER odd@'%' IDENTIFIED BY {literal(password)};")
    try:
        node = engine_of(plan).source.nodes[0]
        odd = Mariadb(
            *(plan.source.host(node.host), galera.BIN, "odd"),
            address=node.address,
            port=node.port,
            password=SecretStr(password),
        )
        assert odd.value("", "SELECT 'a\tb\\nc'") == "a\tb\nc"
    finally:
        living["ga1"].script("", "DROP USER odd@'%';")


def test_a_mariadb_that_prints_more_than_answers(
    living: dict[str, Mariadb], open_directory: Path
) -> None:
    """A wrapper, of a bastion, say: what it prints before is no answer."""
    wrapper = open_directory / "mariadb"
    wrapper.write_text(
        f'#!/bin/sh\necho "Authorized use only"\nexec {living["ga1"].bin_dir}/mariadb "$@"\n'
    )
    wrapper.chmod(0o755)
    wrapped = replace(living["ga1"], bin_dir=str(open_directory))
    assert wrapped.value("", "SELECT 7") == "7"
    assert wrapped.rows("SELECT 1 FROM DUAL WHERE FALSE") == []
    assert wrapped.status()["wsrep_local_state_comment"] == "Synced"


def test_a_row_ends_where_its_line_ends(living: dict[str, Mariadb]) -> None:
    """Not at whatever else Python takes for the end of a line."""
    value = "a\rb\x85c\u2028d\x0ce\r"
    first, shown = living["ga1"], f"SELECT {literal(value)}"
    assert first.value("", shown) == value
    assert first.rows(f"{shown} UNION ALL SELECT ''") == [[value], [""]]
    assert first.objects(f"SELECT JSON_ARRAY({literal(value)})") == [[value]]
    assert first.rows("SELECT 1 FROM DUAL WHERE FALSE") == []


def test_a_backup_of_unusual_files_is_made_consistent(
    plan: Plan, living: dict[str, Mariadb]
) -> None:
    """What its files look like is not in any option that we give."""
    host, target = living["ga1"].host, engine_of(plan).target
    folder = host.run(["mktemp", "-d"]).text
    try:
        host.run(["sh", "-c", UNUSUAL, "sh", folder], timeout=120)
        # Whatever the account's own file says.
        host.put(b"[mysqld]\ninnodb_page_size = 4k\nno_such = 1\n", f"{folder}/.my.cnf")
        using: Any = SimpleNamespace(
            host=lambda _: host,
            work=lambda _: folder,
            facts=FACTS,
        )
        node = target.nodes[0].model_copy(update={"data_dir": f"{folder}/backup"})
        tools = f"{folder}/bin"
        NodeUnderRestore(using, target.model_copy(update={"bin_dir": tools}), node).prepare()
    finally:
        host.run(["rm", "-rf", folder])


UNUSUAL = """\
set -eu
cd "$1"
export HOME="$1" TMPDIR="$1"
set -- --innodb-page-size=8k '--innodb-data-file-path=ibdata1:12M;ibdata2:8M:autoextend'
mariadb-install-db --no-defaults --datadir="$HOME/data" --auth-root-socket-user="$(id -un)" \
  --auth-root-authentication-method=socket --skip-test-db "$@" >install.log 2>&1
/usr/sbin/mariadbd --no-defaults --datadir="$HOME/data" --socket="$HOME/s" --skip-networking \
  --pid-file="$HOME/pid" "$@" >server.log 2>&1 &
trap 'kill -9 $!' EXIT
until mariadb-admin --no-defaults --socket="$HOME/s" --user=root --silent ping 2>/dev/null; do
  kill -0 $!; sleep 0.1
done
mariadb-backup --no-defaults --backup --socket="$HOME/s" --user="$(id -un)" \
  --datadir="$HOME/data" --target-dir="$HOME/backup" 2>backup.log
mkdir bin
printf '#!/bin/sh\nHOME=%s exec mariadb-backup "$@"\n' "$HOME" >bin/mariadb-backup
chmod 0755 bin/mariadb-backup
"""


@pytest.mark.parametrize(
    ("place", "address", "port"),
    [
        ("10.1.2.3:3306", "10.1.2.3", 3306),
        ("db.example:3307", "db.example", 3307),
        ("[fd00::2]:3306", "fd00::2", 3306),
        ("[fd00::2]", "fd00::2", None),
        ("fd00::3306", "fd00::3306", None),
        ("10.1.2.3", "10.1.2.3", None),
        ("10.1.2.3:0", "10.1.2.3", None),
        ("AUTO", None, None),
        ("", None, None),
    ],
)
def test_where_a_node_says_that_it_is(place: str, address: str | None, port: int | None) -> None:
    assert address_and_port(place) == (address, port)
    node: Any = SimpleNamespace(rows=lambda _: [["n1", place]])
    assert survey.nodes(node) == (SourceNode("n1", "node", address, port),)


def test_no_secret_of_the_source_is_in_its_facts() -> None:
    said = [
        ["wsrep_sst_auth", "sst:hunter2"],
        ["s3_secret_key", "hunter2"],
        ["init_connect", "SET PASSWORD FOR x = PASSWORD('hunter2')"],
        ["feedback_http_proxy", "http://app:hunter2@10.1.1.1:3128"],
        ["max_password_errors", "10"],
    ]
    node: Any = SimpleNamespace(rows=lambda _: said)
    assert survey.settings_of(node) == {
        "s3_secret_key": "***",
        "init_connect": "SET PASSWORD FOR x = PASSWORD(***)",
        "feedback_http_proxy": "http://app:***@10.1.1.1:3128",
        "max_password_errors": "10",
    }


def test_brackets_are_around_an_address_with_a_port(plan: Plan) -> None:
    target = engine_of(plan).target
    first, second, *_ = target.nodes
    nodes = (first.model_copy(update={"address": "fd00::2"}), second)
    text = configuration(
        replace(FACTS, settings={}),
        target.model_copy(update={"nodes": nodes}),
        nodes[0],
        cluster="c",
        socket="/s",
        work="/w",
        account="a",
        pool=1,
    )
    assert 'bind-address = "fd00::2"' in text
    assert f'"gcomm://[fd00::2]:{first.group_port},{second.address}:{second.group_port}"' in text
    assert text.count("[fd00::2]") == 8
    assert text.count("fd00::2") == 9


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::2", "db-1.example.", "localhost", "a_b.c"])
def test_an_address_stands_alone(address: str) -> None:
    assert plans.SourceNode(host="n", address=address).address == address


@pytest.mark.parametrize(
    "address",
    [
        *("", "[fd00::2]", "db:3306", "10.1.2.3:3306", "10.1.2", "10.1.2.300", "a b", "a/b"),
        *("db.example\n", "-db", "db..example", "tcp://db"),
    ],
)
def test_an_address_with_more_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="no IP address and no DNS name"):
        plans.SourceNode(host="n", address=address)
    with pytest.raises(ValidationError, match="no IP address and no DNS name"):
        TargetNode(host="n", address=address, data_dir="/d", cert_file="/c", key_file="/k")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1"])
def test_an_address_is_some_machines(address: str) -> None:
    with pytest.raises(ValidationError, match="no machine's address"):
        plans.SourceNode(host="n", address=address)


def test_a_gap_in_the_heartbeat_shows(plan: Plan, living: dict[str, Mariadb]) -> None:
    first, engine = living["ga1"], engine_of(plan)
    using: Any = SimpleNamespace(rehearsal_id="r0", recovery=plan.source)
    restored = GaleraRestored(
        using, engine.target, engine.application, controls={"ga1": first}, nodes=()
    )

    def beats() -> Ticks:
        return restored.heartbeat("shop", "beats")

    first.script("shop", "CREATE TABLE beats (id BIGINT PRIMARY KEY, at DATETIME(6));")
    try:
        assert beats().newest_id is None
        first.script("shop", "INSERT INTO beats VALUES (1, NOW()), (2, NOW()), (3, NOW());")
        assert (beats().count, beats().first_missing) == (3, None)
        first.script("shop", "DELETE FROM beats WHERE id = 2;")
        assert beats().first_missing == 2
        first.script("shop", "DELETE FROM beats WHERE id = 1;")
        assert beats().first_missing == 1
    finally:
        first.script("shop", "DROP TABLE beats;")


def test_what_names_the_source_is_found(living: dict[str, Mariadb]) -> None:
    first, foreign = living["ga1"], Belongings(networks=("10.9.0.0/16",), suffixes=("old.test",))
    first.script(
        "shop",
        "CREATE PROCEDURE call_home() SELECT 1, 'http://db.old.test/';\n"
        "CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO\nSET @x = '10.9.3.4';\n"
        "CREATE EVENT weekly ON SCHEDULE EVERY 1 WEEK COMMENT 'to ftp.old.test' DO SET @x = 1;\n"
        "CREATE SERVER far FOREIGN DATA WRAPPER mysql OPTIONS (HOST '10.9.0.7', DATABASE 'x');\n"
        "CREATE USER near@'10.9.%' IDENTIFIED BY 'x'; CREATE USER kin@'%.old.test';"
        " CREATE USER free@'10.8.%';",
    )
    try:
        named = references.in_cluster(first, references.texts(first), foreign)
        found = {(item.id, item.subject, item.severity) for item in named}
    finally:
        first.script(
            "shop",
            "DROP PROCEDURE call_home; DROP EVENT nightly; DROP EVENT weekly; DROP SERVER far;"
            " DROP USER near@'10.9.%', kin@'%.old.test', free@'10.8.%';",
        )
    subjects = (
        *("procedure shop.call_home", "event shop.nightly", "server far"),
        *("user near@10.9.%", "user kin@%.old.test"),
    )
    high = {("address-hard-coded", subject, Severity.HIGH) for subject in subjects}
    told = ("address-hard-coded", "comment on event shop.weekly", Severity.INFO)
    assert found == {*high, told}


def test_what_the_recovery_host_lacks_is_found(plan: Plan) -> None:
    engine, facts = engine_of(plan), engine_of(plan).survey(plan.source)
    foreign = plan.source.belongings
    assert list(engine.compare(facts, plan.recovery, foreign)) == []
    facts = replace(
        facts,
        version="11.4.2-MariaDB",
        plugins=tuple(
            Plugin(name, kind, f"ha_{name}.so", installed)
            for name, kind, installed in (
                ("spider", "STORAGE ENGINE", True),
                ("far", "STORAGE ENGINE", False),
                ("audit", "AUDIT", False),
                ("provider_lzma", "DAEMON", False),
            )
        ),
        settings={"init_connect": f"CALL log('{engine.source.nodes[0].address}')"},
        elsewhere=(("shop/big", "/mnt/big/shop/big.ibd"),),
    )
    node = engine.target.nodes[0].model_copy(update={"cert_file": "/nowhere.pem"})
    target = engine.target.model_copy(update={"nodes": (node,), "provider": "/nowhere.so"})
    found = engine.model_copy(update={"target": target}).compare(facts, plan.recovery, foreign)
    assert {(item.id, item.subject) for item in found} == {
        ("engine-version", "west/ga1"),
        ("extension-missing", "west/ga1 ha_spider.so"),
        ("extension-missing", "west/ga1 ha_far.so"),
        ("library-preloaded", "west/ga1 ha_audit.so"),
        ("extension-missing", "west/ga1 ha_provider_lzma.so"),
        ("tool-missing", "west/ga1 /nowhere.so"),
        ("ca-unknown", "west/ga1 /nowhere.pem"),
        ("address-hard-coded", "setting init_connect"),
        ("path-hard-coded", "table shop/big"),
    }


def test_only_a_synced_node_is_backed_up(
    plan: Plan, living: dict[str, Mariadb], places: Places
) -> None:
    engine = engine_of(plan)
    living["ga1"].script("", "SET GLOBAL wsrep_desync = ON;")
    try:
        assert engine._living(plan.source).host.name == "ga2"
    finally:
        living["ga1"].script("", "SET GLOBAL wsrep_desync = OFF;")
    processes.kill_service(places, "east-galera-ga1")
    try:
        assert engine._living(plan.source).host.name == "ga2"
        assert len(engine.survey(plan.source).tables) == 4
    finally:
        lab.up(places.root)
    nobody = engine.source.model_copy(update={"password": "farside-signing-key"})
    with pytest.raises(LoginRefused, match="Access denied"):
        engine.model_copy(update={"source": nobody}).survey(plan.source)


def test_a_node_is_where_the_plan_has_it_or_has_moved(
    plan: Plan, living: dict[str, Mariadb]
) -> None:
    predicted = engine_of(plan).predicted_nodes
    last = there(plan).nodes[-1].model_copy(update={"port": 13306})
    nodes = (*there(plan).nodes[:-1], last)
    target = there(plan).model_copy(update={"nodes": nodes})
    moved = engine_of(plan).model_copy(update={"target": target})
    found = membership.observed(living["ga1"], moved.target)
    assert [node.host for node in found] == [node.host for node in predicted]
    (difference,) = Topology(moved.predicted_nodes, found).difference or ()
    assert (difference.host, difference.moved) == ("ga3", True)


def test_only_what_the_data_needs_is_carried_over(plan: Plan) -> None:
    engine = engine_of(plan)
    plugins = (
        Plugin("ed25519", "AUTHENTICATION", "auth.so", installed=False),
        Plugin("FEDERATED", "STORAGE ENGINE", "fed.so", installed=True),
        Plugin("LOCALES", "INFORMATION SCHEMA", "loc.so", installed=False),
        Plugin("HandlerSocket", "DAEMON", "hs.so", installed=True),
        Plugin("a\nb", "DAEMON", "b.so", installed=True),
    )
    settings = {"sql_mode": "ANSI", "time_zone": "+02:00", "init_connect": "CALL home()"}
    text = configuration(
        replace(FACTS, settings=settings, plugins=plugins),
        engine.target,
        engine.target.nodes[0],
        cluster="c",
        socket="/s",
        work="/w",
        account="a",
        pool=1,
    )
    assert 'sql_mode = "ANSI"' in text
    assert 'default_time_zone = "+02:00"' in text
    assert text.count("plugin-load-add") == text.count('"auth.so"') == 1
    assert "loose-handlersocket = OFF" in text.splitlines()
    assert text.count("loose-") == 1
    assert "home" not in text
    assert list(plan.source.belongings.lines(text)) == []


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu", (10, 11, 19)),
        ("11.4.2-MariaDB-log", (11, 4, 2)),
        ("sh: mariadbd: not found", (0, 0, 0)),
    ],
)
def test_version(said: str, version: tuple[int, int, int]) -> None:
    assert compare.version_of(said) == version
