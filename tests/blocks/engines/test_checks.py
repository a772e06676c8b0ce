"""Every check of a restored server passes on a whole one, and fails on one that is damaged.

The server is made on a host of the lab's west with the configuration of a restored one: Debian's
15, which has amcheck, and 18 of the lab, which has not.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pytest

from blocks.agent import stamp
from blocks.engines.checks import CheckSpec, run_check
from blocks.engines.postgres import (
    Postgres,
    application,
    checks,
    config,
    counts,
    indexes,
    isolation,
    loading,
    pages,
    references,
    standbys,
    survey,
)
from blocks.engines.postgres.facts import Database, PostgresFacts, read
from blocks.engines.postgres.last_look import last_look
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.restored import PostgresRestored
from blocks.engines.postgres.servers import Servers
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION, UNHURRIED
from blocks.engines.postgres.standbys import Replica
from blocks.engines.restoration import Restoration
from blocks.evidence.record import Check, CheckStatus, Node
from blocks.hosts.host import Host
from blocks.ownership import Belongings
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from blocks.repositories.farside.binding import Binding
from blocks.repositories.farside.reader import SetReader
from deployments import lab
from deployments.lab.parts.postgres import programs
from deployments.lab.places import Places
from tests import mechanisms
from tests.blocks.engines.servers import bare
from tests.blocks.engines.test_pg_facts import FACTS, row
from tests.blocks.engines.worlds import (
    CONTENT,
    DEBIAN_BIN,
    LEAST,
    least_privileges,
    need_debian_15,
)

pytestmark = mechanisms.SERVERS

PAGE = 8192


ID = "r20260101-000000-abcdef"


@dataclass
class Patient:
    """A server that may be damaged: it is put back for each test."""

    engine: Postgres
    host: Host
    plan: Plan
    control: Psql
    folder: str
    facts: PostgresFacts

    @property
    def databases(self) -> tuple[Database, ...]:
        """What its survey said of each."""
        return self.facts.databases

    @property
    def data(self) -> str:
        return f"{self.folder}/data"

    def ctl(self, *words: str, check: bool = True) -> None:
        program = f"{self.engine.target.bin_dir}/pg_ctl"
        argv = [program, "-D", self.data, "-w", "-s", "-l", f"{self.folder}/log", *words]
        self.host.run(argv, check=check)

    def run(self, sql: str, database: str = "shop") -> str:
        return replace(self.control, options="").script(database, sql)

    def heal(self) -> None:
        """As it was when it was made."""
        script = 'rm -rf "$1/data"; cp -a "$1/whole" "$1/data"'
        self.host.run(["sh", "-c", script, "sh", self.folder])
        self.ctl("start")

    def kill(self) -> None:
        """Also one that is dead already."""
        self.ctl("-m", "immediate", "stop", check=False)

    def damage(self, *relations: str, offset: int = PAGE + PAGE - 2000, count: int = 64) -> None:
        """Flip bytes in relations' files while the server is down."""
        ask = "SELECT string_agg(pg_relation_filepath(r), ' ') FROM unnest(string_to_array"
        names = " ".join(relations)
        asking = replace(self.control, options="")
        paths = str(asking.value("shop", f"{ask}('{names}', ' ')::regclass[]) r"))
        self.ctl("-m", "fast", "stop")
        script = (
            "import sys; o, n = int(sys.argv[1]), int(sys.argv[2])\n"
            "for p in sys.argv[3:]:\n"
            " f = open(p, 'r+b'); f.seek(o); b = f.read(n); f.seek(o)\n"
            " f.write(bytes(x ^ 255 for x in b))"
        )
        files = [f"{self.data}/{path}" for path in paths.split()]
        self.host.run([self.host.python, "-c", script, str(offset), str(count), *files])
        self.ctl("start")

    def btrees(self) -> Check:
        return run_check(indexes.btrees(self.control, bare("postgres", "shop")))


def _make(plan: Plan, bin_dir: str, folder: str, port: int) -> Patient:
    assert isinstance(plan.engine, Postgres)
    host = plan.recovery.host("db1")
    target = plan.engine.target.model_copy(
        update={"bin_dir": bin_dir, "data_dir": f"{folder}/data", "port": port}
    )
    engine = plan.engine.model_copy(update={"target": target})
    socket = host.run(["mktemp", "-d", "/tmp/farside-XXXXXXXX"]).text
    control = Psql(host, bin_dir, socket, port, "postgres", options=UNHURRIED)
    facts = read(PostgresFacts, FACTS)
    patient = Patient(engine, host, plan, control, folder, facts)
    initdb = [f"{bin_dir}/initdb", "-D", patient.data, "-U", "postgres", "--no-sync", "-k"]
    host.run([*initdb, "--locale=C.UTF-8", "--encoding=UTF8", "--auth=trust"])
    host.put(f"{ID}:token".encode(), f"{patient.data}/{stamp.FILE}")
    text = config.postgresql_conf(
        facts,
        address=target.address,
        port=port,
        data_dir=patient.data,
        socket_dir=socket,
        memory_bytes=2**28,
        restore_command="false",
        libraries=[],
        own={},
    )
    host.put(text.encode(), f"{patient.data}/postgresql.conf")
    hba = config.pg_hba_conf((), plan.recovery.networks, "shop")
    host.put(hba.encode(), f"{patient.data}/pg_hba.conf")
    patient.ctl("start")
    password = plan.recovery.secret(engine.application.password).get_secret_value()
    patient.run(f"CREATE ROLE shop LOGIN PASSWORD '{password}'; CREATE ROLE clerk", "postgres")
    patient.run("CREATE DATABASE shop OWNER shop", "postgres")
    content = CONTENT.replace("TABLESPACE one", "").replace("TABLESPACE two", "")
    patient.run(f"SET ROLE shop; {content} RESET ROLE; CHECKPOINT")
    patient.facts = survey.survey(control)
    patient.ctl("-m", "fast", "stop")
    host.run(["cp", "-a", patient.data, f"{folder}/whole"])
    return patient


@pytest.fixture(scope="module", params=[15, 18])
def made(request: pytest.FixtureRequest, places: Places) -> Iterator[Patient]:
    lab.up(places.root)
    plan = load_plan(lab.plan_path(places.root, "postgres"))
    bin_dir = str(programs(places, "west", 18))
    if request.param == 15:
        need_debian_15()
        bin_dir = DEBIAN_BIN.format(15)
    write = "INSERT INTO item (name) VALUES ('after');"
    changed = plan.engine.application.model_copy(update={"write": write})  # type: ignore[attr-defined]
    plan = plan.model_copy(
        update={"engine": plan.engine.model_copy(update={"application": changed})}
    )
    host = plan.recovery.host("db1")
    folder = host.run(["mktemp", "-d", f"{places.host('west', 'db1')}/patient-XXXX"]).text
    patient = _make(plan, bin_dir, folder, 6600 + request.param)
    yield patient
    host.run(["rm", "-rf", folder, patient.control.server])
    plan.source.close()
    plan.recovery.close()


@pytest.fixture
def patient(made: Patient) -> Iterator[Patient]:
    made.heal()
    yield made
    made.kill()


def served(patient: Patient) -> PostgresRestored:
    """It, as what a restore has made."""
    target = patient.engine.target
    using: Any = _Using(patient.plan.recovery, patient.facts, patient.folder)
    sockets = {target.host: patient.control.server}
    app, major = patient.engine.application, patient.facts.major
    servers = Servers(patient.plan.recovery, target, app, sockets, "postgres", major)
    return PostgresRestored(using, servers, nodes=())


def verified(patient: Patient) -> dict[str, Check]:
    """All that is asked of a restored service."""
    target = patient.engine.target.model_copy(update={"data_dir": patient.data})
    engine = patient.engine.model_copy(update={"target": target})
    service = served(replace(patient, engine=engine))
    specs = chain(service.usable([]), service.integrity())
    return {check.name: check for check in map(run_check, specs)}


@dataclass
class _Using:
    """What a restored service reads of a Restoration."""

    recovery: Any
    facts: PostgresFacts
    folder: str
    last_look: Any = None
    rehearsal_id: str = ID

    @property
    def reader(self) -> SetReader:
        return SetReader(self.recovery, Binding("shop", "postgres", "east", ()), "r0", "r0")

    def work(self, host: Host) -> str:  # noqa: ARG002 (there is one)
        return self.folder

    def spread(self, do: Callable[[Node], None], nodes: Sequence[Node]) -> None:
        for node in nodes:
            do(node)


assert {"recovery", "facts", "last_look", "rehearsal_id"} <= set(Restoration.__annotations__)
assert callable(Restoration.work)


def failed(check: Check, *words: str) -> None:
    assert check.status is CheckStatus.FAILED, check
    for word in words:
        assert word in str(check.actual), check


def test_a_whole_server_passes_everything(patient: Patient) -> None:
    before = survey.survey(patient.control).databases
    found = verified(patient)
    assert {name: c for name, c in found.items() if c.status is not CheckStatus.PASSED} == {}
    assert next(iter(found)) == "serving"
    assert {"archiving", "isolation"} <= set(found)
    assert "application-write" in found
    after = survey.survey(patient.control).databases
    assert [d.schema_digest for d in after] == [d.schema_digest for d in before]


def test_what_lies_there_since_a_sweep_is_left_alone(patient: Patient) -> None:
    """As for a rehearsal that was suspended for longer than its lease, and goes on."""
    patient.host.put(b"r20260102-000000-fedcba:token", f"{patient.data}/{stamp.FILE}")
    began = patient.run("SELECT pg_postmaster_start_time()")
    check = verified(patient)["page-checksums"]
    assert check.status is CheckStatus.UNKNOWN
    assert "it was swept meanwhile" in str(check.actual)
    target = patient.engine.target.model_copy(update={"data_dir": patient.data})
    engine = patient.engine.model_copy(update={"target": target})
    served(replace(patient, engine=engine)).stop()
    assert patient.run("SELECT pg_postmaster_start_time()") == began
    patient.host.put(f"{ID}:token".encode(), f"{patient.data}/{stamp.FILE}")
    served(replace(patient, engine=engine)).stop()
    assert not patient.host.run(["ls", patient.data]).text.count("postmaster.pid")


def test_a_server_that_dies_after_the_restore(patient: Patient) -> None:
    """Nothing can be asked of it any more, which is not merely unknown."""
    patient.kill()
    found = verified(patient)
    failed(found["serving"], "db1 does not answer")
    assert (found["serving"].finding, found["serving"].subjects) == ("node-count-differs", ("db1",))
    others = {check.status for name, check in found.items() if name != "serving"}
    assert others == {CheckStatus.UNKNOWN}


def test_a_server_serves_again_after_a_page_check_that_broke_off(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "START_SECONDS", 0.0)
    check = verified(patient)["page-checksums"]
    assert check.status is CheckStatus.UNKNOWN, check
    assert run_check(standbys.serving(patient.control, "primary")).status is CheckStatus.PASSED


def test_a_server_that_is_slow_to_stop_and_start(patient: Patient) -> None:
    """What pg_ctl would wait for by itself does not count."""
    slow, target = f"{patient.folder}/slow", patient.engine.target
    patient.host.run(["mkdir", slow])
    for name in ("pg_ctl", "pg_checksums", "psql"):
        script = f'#!/bin/sh\nPGCTLTIMEOUT=0 exec {target.bin_dir}/{name} "$@"\n'
        patient.host.put(script.encode(), f"{slow}/{name}")
        patient.host.run(["chmod", "0755", f"{slow}/{name}"])
    target = target.model_copy(update={"bin_dir": slow})
    engine = patient.engine.model_copy(update={"target": target})
    check = verified(replace(patient, engine=engine))["page-checksums"]
    assert check.status is CheckStatus.PASSED, check


def test_a_heartbeat_without_a_time_zone_is_utc(patient: Patient) -> None:
    patient.run("SET timezone = 'Asia/Tokyo'; CREATE TABLE beats (id bigint, at timestamp);")
    patient.run("GRANT SELECT ON beats TO shop")
    patient.run("INSERT INTO beats VALUES (1, '2026-01-02 03:04:05')")
    ticks = served(patient).heartbeat("shop", "beats")
    assert ticks.newest_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


INDEXES = ("item_pkey", "item_lower", "item_descending", "item_partial", "item_again")


def test_indexes_that_miss_a_row(patient: Patient) -> None:
    """Made as by a bug: while an index is not ready, rows do not reach it."""
    for number, index in enumerate(INDEXES):
        patient.run(
            f"UPDATE pg_index SET indisready = false WHERE indexrelid = '{index}'::regclass;"
            f" INSERT INTO item (id, name, size) VALUES ({99999 + number}, 'x', 7);"
            f" UPDATE pg_index SET indisready = true WHERE indexrelid = '{index}'::regclass;"
        )
    failed(patient.btrees(), *(f"shop: public.{index}:" for index in INDEXES))


def test_an_index_in_another_order(patient: Patient) -> None:
    """As after a change of the library that sorts: what was in order is so no more."""
    patient.run(
        "CREATE OR REPLACE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE"
        " AS 'SELECT -2 * n'"
    )
    failed(patient.btrees(), "item_function")


FLIPPED = ("item_pkey", "item_pattern", "item_collated", "item_mood")


def test_flipped_bytes_in_indexes(patient: Patient) -> None:
    patient.damage(*FLIPPED)
    failed(patient.btrees(), *(f"shop: public.{index}:" for index in FLIPPED))


def test_flipped_bytes_that_no_checksum_tells_of(patient: Patient) -> None:
    """The server may well break down over them."""
    patient.run("ALTER SYSTEM SET ignore_checksum_failure = on")
    patient.damage(*FLIPPED)
    failed(patient.btrees(), "shop: ")


def test_flipped_byte_in_a_table(patient: Patient) -> None:
    patient.damage("far", offset=PAGE + 5000, count=1)
    failed(
        run_check(counts.row_counts(patient.control, patient.databases)),
        "shop.public.far cannot be read",
    )
    failed(verified(patient)["page-checksums"], "checksum verification failed")


def test_rows_and_roles_that_are_missing(patient: Patient) -> None:
    # A superuser would not count what a function of the shop's is an index of.
    patient.run(least_privileges("secret"))
    least = replace(patient.control, role=LEAST, options=PATIENT_WITH_PRODUCTION)
    there, last = survey.survey(least).databases, last_look(patient.control)
    patient.run(
        'DROP TABLE far; DELETE FROM item WHERE id % 5 = 0; TRUNCATE "Odd ""name"" ";'
        " DROP ROLE clerk"
    )
    failed(
        run_check(counts.row_counts(patient.control, there, last)),
        "shop.public.far is missing",
        "shop.public.item has 16000 of 20000",
        "shop.public.part_low has 0 of 100",
    )
    failed(run_check(checks.roles(patient.control, patient.facts, last)), "clerk is missing")


def test_every_change_of_the_schema_is_seen(patient: Patient) -> None:
    for change in (
        "ALTER TABLE item ALTER size SET NOT NULL",
        "ALTER TABLE item ALTER size SET DEFAULT 2",
        "ALTER TABLE item DROP CONSTRAINT item_size_check",
        "DROP INDEX item_again",
        "ALTER TYPE mood ADD VALUE 'furious'",
        "GRANT SELECT ON far TO clerk",
        "ALTER TABLE far ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON far USING (id > 0)",
        "ALTER SEQUENCE ticket INCREMENT 8",
        "ALTER FUNCTION twice(int) OWNER TO postgres",
        "GRANT CREATE ON SCHEMA public TO clerk",
        "CREATE OR REPLACE VIEW happy AS SELECT id, name FROM item WHERE mood = 'sad'",
    ):
        there, last = survey.survey(patient.control).databases, last_look(patient.control)
        assert run_check(checks.schema(patient.control, there, last)).status is CheckStatus.PASSED
        patient.run(change)
        failed(run_check(checks.schema(patient.control, there, last)), "shop: ")


def test_text_that_sorts_in_another_way(patient: Patient) -> None:
    patient.run("UPDATE pg_database SET datcollversion = '0.9' WHERE datname = 'shop'")
    check = run_check(checks.collations(patient.control, patient.databases))
    assert check.status is CheckStatus.PASSED, "so it is at the source, whatever was recorded"
    there = [
        replace(
            database,
            actual_version="0.9",
            collations=tuple(
                replace(row, actual_version="0.9") for row in database.collations or ()
            ),
        )
        for database in patient.databases
    ]
    check = run_check(checks.collations(patient.control, there))
    failed(check, "shop: default was 0.9")


def test_a_role_that_may_not_log_in(patient: Patient) -> None:
    patient.run("ALTER ROLE shop NOLOGIN")
    found = verified(patient)
    failed(found["login"], "not permitted to log in")
    assert found["application-write"].status is CheckStatus.UNKNOWN


def test_a_write_that_is_none(patient: Patient) -> None:
    for statement, words in (
        ("SELECT count(*) FROM item;", "wrote nothing"),
        ("INSERT INTO nowhere VALUES (1)", "nowhere"),
    ):
        failed(
            run_check(
                application.application_write(
                    replace(patient.control, options=""), "shop", statement
                )
            ),
            words,
        )


def test_a_source_that_only_reads(patient: Patient) -> None:
    """Its application's write cannot be tried; nothing else is in its way."""
    patient.run("ALTER DATABASE shop SET default_transaction_read_only = on")
    found = verified(replace(patient, facts=survey.survey(patient.control)))
    others = {name: c for name, c in found.items() if c.status is not CheckStatus.PASSED}
    assert list(others) == ["application-write"], others
    assert others["application-write"].status is CheckStatus.UNKNOWN
    failed(verified(patient)["application-write"], "read-only transaction")


def test_a_source_that_does_not_grant_the_write(patient: Patient) -> None:
    patient.run("REVOKE INSERT ON item FROM shop")
    found = verified(replace(patient, facts=survey.survey(patient.control)))
    others = {name: c for name, c in found.items() if c.status is not CheckStatus.PASSED}
    assert list(others) == ["application-write"], others
    assert others["application-write"].status is CheckStatus.UNKNOWN
    assert "the source's own grants do not allow it" in str(others["application-write"].actual)
    failed(verified(patient)["application-write"], "permission denied")


def test_a_slow_check_is_not_cut_short_by_the_sites_limits(patient: Patient) -> None:
    patient.run("ALTER SYSTEM SET statement_timeout = '1ms'; SELECT pg_reload_conf()")
    assert patient.btrees().status is CheckStatus.PASSED


def test_settings_that_reach_out(patient: Patient) -> None:
    settings = {
        "max_logical_replication_workers": "4",
        "primary_conninfo": "host=127.0.0.1",
        "shared_preload_libraries": "plpgsql",
    }
    for name, value in {**settings, "archive_mode": "on"}.items():
        patient.run(f"ALTER SYSTEM SET {name} = '{value}'", "postgres")
    patient.ctl("-m", "fast", "restart")
    failed(run_check(isolation.isolation(patient.control, list)), *settings)
    failed(run_check(isolation.archiving(patient.control)), "archive_mode")


def test_a_live_source_is_not_isolated(made: Patient) -> None:
    """Its standby streams from it."""
    server, source = made.engine.source, made.plan.source
    live = Psql(
        source.host(server.host),
        server.bin_dir,
        server.address,
        server.port,
        server.superuser,
        source.secret(server.password),
        options="",
    )
    failed(run_check(isolation.isolation(live, list)), "follows it as")


@pytest.fixture
def standby(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Patient]:
    """A standby of the patient, made as the engine makes them, beside it on the host."""
    monkeypatch.setattr(standbys, "SHOWN_SECONDS", 3.0)
    target = patient.engine.target
    replica = Replica.new(ID)
    replica.create(patient.control)
    networks = patient.plan.recovery.networks
    hba = config.pg_hba_conf((), networks, "shop", replica.role)
    patient.host.put(hba.encode(), f"{patient.data}/pg_hba.conf")
    folder = f"{patient.folder}/standby"
    patient.ctl("-m", "fast", "stop")
    patient.host.run(["mkdir", "-m", "0700", folder])
    patient.host.run(["cp", "-a", patient.data, f"{folder}/data"])
    patient.ctl("start")
    port = target.port + 50
    upstream = replica.conninfo(target, "db1").replace("'", "''")
    more = f"\nport = {port}\nhot_standby = on\nprimary_conninfo = '{upstream}'\n"
    conf = f"{folder}/data/postgresql.conf"
    patient.host.put(patient.host.get(conf) + more.encode(), conf)
    patient.host.put(b"", f"{folder}/data/standby.signal")
    control = replace(patient.control, port=port)
    made = replace(patient, control=control, folder=folder)
    made.ctl("start")
    standbys.await_following(patient.control, {"db1": control})
    yield made
    made.kill()
    patient.host.run(["rm", "-rf", folder])


def follows(primary: Patient, standby: Patient, synchronous: bool = False) -> Check:
    target = standby.engine.target
    upstream = f"{target.address}:{target.port}"
    return run_check(standbys.check(primary.control, standby.control, upstream, ID, synchronous))


def taken_over(primary: Patient, standby: Patient) -> Check:
    spec = CheckSpec(
        "failover",
        "a standby serves",
        lambda: standbys.failover(
            primary.control, standby.control, primary.kill, lambda: standby.ctl("promote"), ID
        ),
    )
    return run_check(spec)


def test_a_standby_follows_alone_and_takes_over(patient: Patient, standby: Patient) -> None:
    found = [
        follows(patient, standby),
        run_check(isolation.isolation(standby.control, list, standby=True)),
        run_check(isolation.archiving(standby.control)),
        run_check(
            loading.loadable(standby.control, patient.databases, patient.engine.target.bin_dir)
        ),
        run_check(checks.collations(standby.control, patient.databases)),
        run_check(standbys.waits_for(patient.control, (), synchronous=False)),
    ]
    assert [check.status for check in found] == [CheckStatus.PASSED] * 6, found
    assert standbys.observed(patient.control) == Node(
        "db1", "primary", patient.engine.target.address, patient.control.port
    )
    assert standbys.observed(standby.control) == Node(
        "db1", "standby", standby.engine.target.address, standby.control.port
    )
    assert run_check(standbys.serving(patient.control, "primary")).status is CheckStatus.PASSED
    assert run_check(standbys.serving(standby.control, "standby")).status is CheckStatus.PASSED
    assert taken_over(patient, standby).status is CheckStatus.PASSED


def test_a_standby_that_does_not_follow(
    patient: Patient, standby: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(follows(patient, standby, synchronous=True), "db1 is async")
    standby.run("SELECT pg_wal_replay_pause()", "postgres")
    failed(follows(patient, standby), "db1 does not show the row")
    standby.run("SELECT pg_wal_replay_resume()", "postgres")
    standby.kill()
    failed(follows(patient, standby), "db1 does not answer")
    assert follows(patient, standby).finding == "node-count-differs"
    # One that is dead is not waited for.
    monkeypatch.setattr(standbys, "STALLED_SECONDS", 1.0)
    standbys.await_following(patient.control, {"db1": standby.control})
    assert standbys.observed(standby.control) is None


def test_a_standby_in_another_role(patient: Patient, standby: Patient) -> None:
    standby.ctl("promote")
    standbys.await_following(patient.control, {"db1": standby.control})
    for check in (
        follows(patient, standby),
        run_check(standbys.serving(standby.control, "standby")),
    ):
        failed(check, "db1 is a primary")
        assert (check.finding, check.subjects) == ("placement-dropped", ("db1",))


def test_a_primary_that_waits_for_a_standby_of_the_source(patient: Patient) -> None:
    patient.run("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (old)'", "postgres")
    patient.run("SELECT pg_reload_conf()", "postgres")
    check = run_check(standbys.waits_for(patient.control, (), synchronous=False))
    failed(check, "it waits for ANY 1 (old)")
    assert check.finding == "peer-list-stale"
    # No commit of the restore waits with it.
    Replica.new(ID).create(patient.control)


def test_a_standby_that_cannot_take_over(patient: Patient, standby: Patient) -> None:
    """The last committed row has not reached it."""
    standby.run("ALTER SYSTEM SET primary_conninfo = ''", "postgres")
    standby.run("SELECT pg_reload_conf()", "postgres")
    while standbys.following(patient.control):
        time.sleep(0.1)
    failed(taken_over(patient, standby), "does not take over with the row")


def test_a_standby_that_is_not_isolated(patient: Patient, standby: Patient) -> None:
    """Told to follow a production server, to archive, and to call it when it is promoted."""
    secret = "host=10.9.9.9 port=5432 user=replicator password=sesame"
    standby.run(f"ALTER SYSTEM SET primary_conninfo = '{secret}'", "postgres")
    standby.run("ALTER SYSTEM SET archive_mode = 'always'", "postgres")
    standby.run("ALTER SYSTEM SET recovery_end_command = 'ssh 10.9.9.9 demote'", "postgres")
    standby.ctl("-m", "fast", "restart")
    check = follows(patient, standby)
    failed(check, "primary_conninfo leads to 10.9.9.9:5432")
    assert check.finding == "peer-list-stale"
    assert "sesame" not in str(check)
    failed(run_check(isolation.archiving(standby.control)), "archive_mode")
    foreign = Belongings(networks=("10.9.9.0/24",))
    (found,) = references.in_live_settings(standby.control, foreign)
    assert (found.id, found.subject) == ("address-hard-coded", "setting recovery_end_command")


def test_what_a_backup_leaves_out(patient: Patient) -> None:
    patient.run(
        "CREATE SEQUENCE tickets;"
        " SELECT nextval('tickets'), lo_create(0) FROM generate_series(1, 20);"
        " ANALYZE"
    )
    facts = survey.survey(patient.control)
    there, bin_dir = facts.databases, patient.engine.target.bin_dir
    last = last_look(patient.control)
    for check in (
        run_check(checks.sequences(patient.control, there, last)),
        run_check(counts.large_objects(patient.control, there)),
        run_check(checks.indexes_valid(patient.control, there, last)),
        run_check(loading.loadable(patient.control, there, bin_dir)),
    ):
        assert check.status is CheckStatus.PASSED, check
    patient.run(
        "SELECT setval('tickets', 5);"  # a restart by its definition could be the source's own
        " SELECT lo_unlink(oid) FROM pg_largeobject_metadata;"
        " UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'item_lower'::regclass"
    )
    failed(
        run_check(checks.sequences(patient.control, there, last)),
        "shop.public.tickets is at 5, was at 20",
    )
    failed(run_check(counts.large_objects(patient.control, there)), "shop has 0 of 21")
    failed(run_check(checks.indexes_valid(patient.control, there, last)), "item_lower is not valid")


def test_what_names_the_source(patient: Patient) -> None:
    foreign = Belongings(networks=("10.9.0.0/16",), suffixes=("old.example",), paths=("/mnt/old",))
    before = references.texts(patient.control, ["postgres", "shop"], foreign)
    assert list(before.findings(foreign)) == []
    assert before.unread == []
    patient.run(
        "CREATE FUNCTION pull() RETURNS text LANGUAGE sql AS $$\nSELECT 'host=10.9.1.1' $$;"
        "CREATE VIEW feed AS SELECT 'https://db.old.example/feed' AS url;"
        "CREATE TABLE dump (path text DEFAULT '/mnt/old/dump', CHECK (path <> '10.9.1.2'));"
        "CREATE FOREIGN DATA WRAPPER any_fdw;"
        "CREATE SERVER far FOREIGN DATA WRAPPER any_fdw OPTIONS (host '10.9.1.3');"
        "CREATE USER MAPPING FOR clerk SERVER far OPTIONS (url 'x://10.9.1.4/');"
        "CREATE FOREIGN TABLE far_items (n int) SERVER far OPTIONS (file '/mnt/old/items');"
        "CREATE RULE away AS ON DELETE TO dump DO INSTEAD SELECT '10.9.1.5';"
        "CREATE MATERIALIZED VIEW was AS SELECT '10.9.1.6' AS at;"
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER told AFTER INSERT ON dump EXECUTE FUNCTION tell('10.9.1.7');"
        "ALTER ROLE clerk SET my.host = '10.9.1.8';"
        "ALTER DATABASE shop SET my.host = 'a=b.old.example';"
        "ALTER ROLE ALL SET my.other = '10.9.1.11';"
        "ALTER ROLE clerk IN DATABASE shop SET my.path = '/mnt/old/bin';"
    )
    patient.run(
        "CREATE SUBSCRIPTION news CONNECTION 'host=10.9.1.9' PUBLICATION p WITH (connect = false)"
    )
    found = references.texts(patient.control, ["postgres", "shop"], foreign).findings(foreign)
    assert {item.subject: (item.id.partition("-")[0], item.evidence) for item in found} == {
        subject: (kind, f"its line {line} names {what}")
        for subject, kind, line, what in (
            ("shop: function public.pull()", "address", 2, "10.9.1.1"),
            ("shop: view public.feed", "address", 1, "db.old.example"),
            ("shop: default of public.dump.path", "path", 1, "/mnt/old"),
            ("shop: constraint dump_path_check", "address", 1, "10.9.1.2"),
            ("shop: foreign server far", "address", 1, "10.9.1.3"),
            ("shop: user mapping of clerk on far", "address", 1, "10.9.1.4"),
            ("shop: foreign table public.far_items", "path", 1, "/mnt/old"),
            ("shop: rule away on public.dump", "address", 2, "10.9.1.5"),
            ("shop: materialized view public.was", "address", 1, "10.9.1.6"),
            ("shop: trigger told on public.dump", "address", 1, "10.9.1.7"),
            ("ALTER ROLE clerk SET my.host", "address", 1, "10.9.1.8"),
            ("ALTER DATABASE shop SET my.host", "address", 1, "b.old.example"),
            ("ALTER ROLE ALL SET my.other", "address", 1, "10.9.1.11"),
            ("ALTER ROLE clerk IN DATABASE shop SET my.path", "path", 1, "/mnt/old"),
            ("shop: subscription news", "address", 1, "10.9.1.9"),
        )
    }


_EVERYWHERE = (
    ("CREATE FUNCTION f(a text DEFAULT '{}') RETURNS text LANGUAGE sql AS 'SELECT a'", "f(text)"),
    (
        "CREATE FUNCTION f2() RETURNS text LANGUAGE sql SET my.host = '{}' AS 'SELECT 1::text'",
        "function public.f2()",
    ),
    (
        "CREATE FUNCTION f3() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT '{}'::text; END",
        "function public.f3()",
    ),
    ("CREATE PROCEDURE p1() LANGUAGE sql AS $$ SELECT '{}' $$", "procedure public.p1()"),
    ("CREATE TABLE secured (t text); CREATE POLICY pol ON secured USING (t <> '{}')", "policy pol"),
    (
        "CREATE TABLE ix (t text); CREATE INDEX ix_e ON ix ((t || '{}'))",
        "index public.ix_e",
    ),
    ("CREATE TABLE ip (t text); CREATE INDEX ip_p ON ip (t) WHERE t <> '{}'", "index public.ip_p"),
    (
        "CREATE TABLE g (t text, u text GENERATED ALWAYS AS (t || '{}') STORED)",
        "default of public.g",
    ),
    ("CREATE DOMAIN d AS text CHECK (VALUE <> '{}')", "constraint d_check"),
    ("CREATE DOMAIN d2 AS text DEFAULT '{}'", "type public.d2"),
    ("CREATE TYPE e AS ENUM ('a', '{}')", "type public.e"),
    ("CREATE AGGREGATE ag (text) (sfunc = textcat, stype = text, initcond = '{}')", "aggregate"),
    (
        "CREATE TABLE part (t text) PARTITION BY LIST (t);"
        " CREATE TABLE part1 PARTITION OF part FOR VALUES IN ('{}')",
        "table public.part1",
    ),
    ("CREATE TABLE st (a text); CREATE STATISTICS st1 ON (a || '{}'), (a || 'y') FROM st", "st1"),
    ("CREATE TABLE pu (t text); CREATE PUBLICATION pub FOR TABLE pu WHERE (t <> '{}')", "pub"),
    ("CREATE FOREIGN DATA WRAPPER w OPTIONS (host '{}')", "foreign data wrapper w"),
    ("CREATE TABLE co (t text); COMMENT ON TABLE co IS 'was on {}'", "comment on public.co"),
)


def test_every_catalog_is_searched_and_no_failure_hides_another(patient: Patient) -> None:
    foreign = Belongings(networks=("10.9.0.0/16",))
    wanted = {}
    for number, (statement, thing) in enumerate(_EVERYWHERE, 1):
        patient.run(statement.replace("{}", f"10.9.2.{number}"))
        wanted[f"10.9.2.{number}"] = thing
    patient.run(
        "CREATE SCHEMA cron; CREATE TABLE cron.job (id int, task text);"
        " INSERT INTO cron.job VALUES (1, 'curl http://10.9.3.1/');"
        ' CREATE TABLE places (v jsonb); INSERT INTO places VALUES (\'{"at": "10.9.3.2"}\');'
        " CREATE FUNCTION g() RETURNS text LANGUAGE sql AS $$ SELECT 'http://0x0a090304/x' $$"
    )
    databases = ["postgres", "gone", "shop"]
    found = references.texts(patient.control, databases, foreign)
    named = {item.evidence.split()[-1]: item.subject for item in found.findings(foreign)}
    missed = {at: thing for at, thing in wanted.items() if thing not in named.get(at, "")}
    assert missed == {}
    assert named["10.9.3.1"] == "shop: table cron.job"
    assert "10.9.3.2" not in named
    assert found.unread
    assert all(item.startswith("gone: ") for item in found.unread)
    settings = [row("restore_command", "get --repo1-host=keysafe %f")]
    hosts = found.hosts(settings, foreign)
    assert hosts["0x0a090304"] == "shop: function public.g()"
    assert hosts["keysafe"] == "setting restore_command"
    rows = references.texts(patient.control, ["shop"], foreign, rows=60.0)
    assert "10.9.3.2" in {item.evidence.split()[-1] for item in rows.findings(foreign)}
    assert rows.unread == []
    short = references.texts(patient.control, ["shop"], foreign, rows=0.5)
    assert any("the time was up" in item for item in short.unread)
