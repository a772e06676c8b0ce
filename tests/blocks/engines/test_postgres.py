"""PostgreSQL 18 in the lab, 16 and Debian's 15 in worlds of their own, with tablespaces."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from blocks.artifact.manifest import SealedObject
from blocks.engines.checks import run_check
from blocks.engines.facts import Peer
from blocks.engines.postgres import Postgres, burden
from blocks.engines.postgres.capture import LOG_INTERVAL_SECONDS
from blocks.engines.postgres.facts import SetFacts, read
from blocks.engines.postgres.last_look import LastLook
from blocks.engines.postgres.psql import Psql
from blocks.engines.postgres.restore import LogGap, NoPlace
from blocks.engines.postgres.restored import PostgresRestored
from blocks.engines.postgres.rows import Extension, Tablespace
from blocks.engines.restoration import Restoration
from blocks.errors import PermanentError
from blocks.evidence.record import Check, CheckStatus, Counterpart, Node, Record
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from blocks.remote.following import LogInterrupted
from blocks.remote.jobs import sweep_host
from blocks.repositories.farside.copier import SetCopier
from blocks.repositories.farside.listing import discard_unfinished
from blocks.repositories.farside.reader import SetReader
from blocks.repositories.farside.writer import SetWriter
from deployments import lab
from deployments.lab.accounts import service_account
from deployments.lab.drills.postgres.live import LivePostgres
from deployments.lab.parts import postgres
from deployments.lab.places import Places
from deployments.lab.state import load_state
from tasks.context import new_id
from tasks.inspect.diagnose import diagnose
from tasks.reporting.clock import StageClock
from tasks.sweep import sweep_plan
from tests import mechanisms
from tests.blocks.engines.conformance import EngineConformance
from tests.blocks.engines.test_pg_facts import FACTS
from tests.blocks.engines.worlds import LEAST, World, built, least_privileges


class Conformance(EngineConformance):
    growing: ClassVar = frozenset(
        {
            "btree-indexes",
            "fetch and extract",
            "large-objects",
            "page-checksums",
            "row-counts",
            "verify files",
        }
    )
    runbook_variables: ClassVar = {
        "DATA": "{place}/data",
        "SPACES": "{place}/spaces",
        "PORT": "{port}",
    }
    runbook_proof: ClassVar[tuple[str, ...]] = (
        '"$BIN/psql" -h "$SOCKET" -p "$PORT" -U postgres -d shop -At -c'
        " \"SELECT 'heartbeat to ' || max(id) || ' of ' || count(*) FROM heartbeat\"",
    )
    runbook_end = '"$BIN/pg_ctl" -D "$DATA" -m immediate -w stop'
    proven = r"heartbeat to (\d+) of \1\n"

    def test_recovers_what_was_committed_until_the_end_of_the_base_backup(
        self, rehearsed: Record, plan: Plan
    ) -> None:
        snapshot = next(stage for stage in rehearsed.stages if stage.name == "snapshot")
        base = next(step for step in snapshot.steps if step.name == "base backup")
        assert base.ended_at is not None
        # The newest state of the log that crossed may be one sealing interval old.
        crossed = base.ended_at - timedelta(seconds=LOG_INTERVAL_SECONDS)
        assert plan.heartbeat is not None
        lines = [line.split("\t") for line in plan.heartbeat.ledger.read_text().splitlines()]
        last = max(int(tick) for tick, at in lines if datetime.fromisoformat(at) <= crossed)
        (heartbeat,) = (check for check in rehearsed.checks if check.name == "heartbeat")
        assert heartbeat.actual is not None
        newest = re.search(r"newest (\d+);", heartbeat.actual)
        assert newest is not None
        assert int(newest[1]) >= last > 0
        assert rehearsed.recovered_until is not None


class WorldConformance(Conformance):
    """A source with tablespaces, one within its data; odd indexes, settings from everywhere."""

    major: ClassVar[int]
    known_findings: ClassVar = frozenset({("incomplete-restore", "shop.public.passing")})
    proven = r"heartbeat to (\d+) of \1\n(.|\n)*44\n"
    runbook_proof: ClassVar[tuple[str, ...]] = (
        *Conformance.runbook_proof,
        '"$BIN/psql" -h "$SOCKET" -p "$PORT" -U postgres -d shop -At'
        ' -c "SELECT count(*) FROM far JOIN near ON n = id"',
    )

    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, places: Places) -> Iterator[World]:
        lab.up(places.root)
        with built(places, cls.major) as world:
            yield world

    @pytest.fixture(scope="class")
    @classmethod
    def plan_path(cls, world: World) -> Path:
        return world.plan_path


@pytest.mark.essential
class TestPostgres18(Conformance):
    plan_name = "postgres"


@mechanisms.CLUSTERS
class TestStandbys(Conformance):
    """A primary and two standbys, one of which a commit waits for."""

    plan_name = "standbys"

    def test_one_takes_over(self, rehearsed: Record) -> None:
        actual = {check.name: check.actual for check in rehearsed.checks}
        for host in ("db2", "db3"):
            assert str(actual[f"{host} replication"]).endswith("synchronously, and shows the row")
            assert str(actual[f"{host} page-checksums"]).endswith(" pages, none bad")
        assert str(actual["failover"]).startswith("the row is there; db2 took a write ")
        shape = rehearsed.topology
        assert shape.observed is not None
        assert [node.role for node in shape.observed] == ["primary", "standby", "standby"]
        assert [(node.name, node.role) for node in shape.source or ()] == [
            *(("db1", "primary"), ("db2", "standby"))
        ]
        assert shape.mapping == (
            Counterpart("db1", "db1"),
            Counterpart("db2", "db2"),
            Counterpart(None, "db3"),
        )

    def test_they_are_isolated_themselves(self, rehearsed: Record) -> None:
        passed = {check.name for check in rehearsed.checks if check.status is CheckStatus.PASSED}
        for host in ("db2", "db3"):
            names = ("login", "loadable", "collation-versions", "archiving", "isolation")
            assert {f"{host} {name}" for name in names} <= passed

    def test_they_are_built_side_by_side(self, rehearsed: Record) -> None:
        restore = next(stage for stage in rehearsed.stages if stage.name == "restore")
        fetched = [step for step in restore.steps if step.name.endswith("fetch and extract")]
        assert [step.name.partition(":")[0] for step in fetched] != []
        assert len(fetched) == 3
        ends = [step.ended_at for step in fetched if step.ended_at is not None]
        assert max(step.started_at for step in fetched) < min(ends)


@mechanisms.CLUSTERS
class TestPostgres16(WorldConformance):
    """Without checksums, with large log segments; indexes are checked by ordered scans."""

    major = 16
    cannot_run = frozenset({"page-checksums"})

    def test_every_index_was_compared_without_amcheck(self, rehearsed: Record) -> None:
        check = next(check for check in rehearsed.checks if check.name == "btree-indexes")
        assert check.actual is not None
        assert check.actual.endswith("agree, by ordered index scans against sequential scans")


@mechanisms.CLUSTERS
@pytest.mark.usefixtures("debian_15")
class TestPostgres15(WorldConformance):
    """With contrib modules, a preloaded library, and an application with an md5 password."""

    major = 15

    def test_amcheck_was_used(self, rehearsed: Record) -> None:
        check = next(check for check in rehearsed.checks if check.name == "btree-indexes")
        assert check.actual is not None
        assert check.actual.endswith("agree, by amcheck")


# -- the engine by itself, in a lab whose source lives ------------------------------------------


@pytest.fixture
def plan(places: Places) -> Iterator[Plan]:
    """The lab's plan, with everything of it up."""
    lab.up(places.root)
    loaded = load_plan(lab.plan_path(places.root, "postgres"))
    yield loaded
    loaded.source.close()
    loaded.recovery.close()


def engine_of(plan: Plan) -> Postgres:
    assert isinstance(plan.engine, Postgres)
    return plan.engine


def superuser(plan: Plan) -> Psql:
    """The live source, asked as the engine asks it."""
    server = engine_of(plan).source
    return Psql(
        plan.source.host(server.host),
        server.bin_dir,
        server.address,
        server.port,
        server.superuser,
        plan.source.secret(server.password),
        options="",
    )


@contextmanager
def crossed(
    plan: Plan, engine: Postgres, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[Restoration]:
    """A set taken from the living source and brought across; all of it goes at the end.

    What is done `meanwhile`, is in its log alone.
    """
    rehearsal_id, clock = new_id(), StageClock()
    carrier = plan.recovery.host(plan.transfer.host)
    assert plan.keys.signing_key is not None
    with ExitStack() as stack, clock.stage("snapshot") as steps:
        writer = SetWriter(plan.source, plan.name, rehearsal_id, plan.keys.recipients, engine.label)
        stack.callback(_clear, plan, engine, writer, rehearsal_id)
        facts = engine.survey(plan.source)
        captured = engine.capture(plan.source, writer, facts, steps)
        manifest = writer.finish(captured, plan.source.secret(plan.keys.signing_key))
        meanwhile()
        time.sleep(2)
        index = writer.log()
        copier = SetCopier(plan.source, plan.recovery, carrier, plan.name, rehearsal_id, None)
        copier.copy(manifest.objects)
        copier.copy(index.objects)
        host = plan.recovery.host(engine.target.host)
        host.run(["mkdir", "-p", "-m", "0700", f"{host.work_dir}/{rehearsal_id}"])
        reader = SetReader(plan.recovery, plan.binding, rehearsal_id, rehearsal_id)
        identity = plan.recovery.secret(plan.keys.identity)
        known = engine.read_facts(manifest.engine_facts)
        yield Restoration(
            rehearsal_id, plan.recovery, reader, manifest, known, index, identity, steps, one_by_one
        )


def asked(service: PostgresRestored, last: LastLook | None = None) -> list[Check]:
    """All checks of a service, after such a last look at its source."""
    using = replace(service.using, last_look=last)
    again = PostgresRestored(using, service.servers, nodes=service.nodes)
    specs = chain(again.usable([]), again.integrity())
    return [run_check(spec) for spec in specs]


def one_by_one(do: Callable[[Node], None], nodes: Sequence[Node]) -> None:
    """As Prefect does it side by side."""
    for node in nodes:
        do(node)


def _clear(plan: Plan, engine: Postgres, writer: SetWriter, rehearsal_id: str) -> None:
    writer.abandon()
    for domain in (plan.recovery, plan.source):
        for host in domain.hosts:
            sweep_host(host, rehearsal_id, remove=True)
    engine.clean_source(plan.source, rehearsal_id)
    plan.source.store.remove(
        [info.key for info in plan.source.store.objects(f"sets/{plan.name}/{rehearsal_id}/")]
    )
    for domain in (plan.recovery, plan.source):
        discard_unfinished(domain.store, plan.name, rehearsal_id)


@mechanisms.SOURCES
def test_a_standby_is_a_source(plan: Plan) -> None:
    """It starts at its last restart point, cannot end a log segment, and is not the primary."""
    standby = plan.source.host("db2")
    changed = engine_of(plan).source.model_copy(update={"host": "db2", "address": standby.address})
    engine = engine_of(plan).model_copy(update={"source": changed})
    (follower,) = engine_of(plan).survey(plan.source).peers()
    assert (follower.name, follower.awaited) == ("db2", False)
    with crossed(plan, engine) as using:
        assert using.manifest.engine_facts["in_recovery"] is True
        primary = Peer("primary", engine_of(plan).source.address, True)
        assert using.facts.peers() == (primary,)
        service = engine.restore(using)
        checks = {check.name: check for check in asked(service)}
        assert [c for c in checks.values() if c.status is not CheckStatus.PASSED] == []
        ticks = service.heartbeat("shop", "heartbeat")
        assert ticks.first_missing is None
        assert ticks.newest_at is not None
        assert ticks.newest_at > using.manifest.taken_at
        service.stop()


@mechanisms.SOURCES
@pytest.mark.slow(130)
def test_what_the_source_changes_before_its_loss_is_no_damage(plan: Plan) -> None:
    """Accounts that live for an hour, a nightly partition, a table that is filled anew."""
    engine, admin = engine_of(plan), superuser(plan)
    looks = list[LastLook]()

    def meanwhile() -> None:
        admin.script("postgres", "DROP ROLE v_hourly; CREATE ROLE v_next")
        admin.script(
            "shop",
            "DROP TABLE public.night_1; CREATE TABLE public.night_2 (id serial);"
            " BEGIN; TRUNCATE public.staging RESTART IDENTITY;"
            " INSERT INTO public.staging SELECT FROM generate_series(1, 50); COMMIT;"
            " CREATE MATERIALIZED VIEW public.later AS SELECT 1 WITH NO DATA;"
            " SELECT pg_stat_force_next_flush()",
        )
        looks.append(engine.last_look(plan.source))

    admin.script("postgres", "CREATE ROLE v_hourly")
    admin.script(
        "shop",
        "CREATE TABLE public.night_1 (id serial); CREATE TABLE public.staging (id serial);"
        " INSERT INTO public.staging SELECT FROM generate_series(1, 500);"
        " SELECT pg_stat_force_next_flush()",
    )
    try:
        with crossed(plan, engine, meanwhile) as using:
            service = engine.restore(using)
            answers = asked(service, looks[0])
            assert {c.name: c.actual for c in answers if c.status is not CheckStatus.PASSED} == {}
            alone = {c.name: c.status for c in asked(service)}
            assert {name for name, s in alone.items() if s is CheckStatus.UNKNOWN} == {
                *("roles", "schema-digest", "row-counts", "sequences", "indexes-valid")
            }
            assert CheckStatus.FAILED not in alone.values()
            service.stop()
    finally:
        admin.script("postgres", "DROP ROLE IF EXISTS v_hourly; DROP ROLE IF EXISTS v_next")
        admin.script("shop", "DROP MATERIALIZED VIEW IF EXISTS public.later")
        for table in ("night_1", "night_2", "staging"):
            admin.script("shop", f"DROP TABLE IF EXISTS public.{table}")


@mechanisms.SOURCES
@pytest.mark.slow(150)
def test_a_role_that_is_no_superuser_is_enough(plan: Plan) -> None:
    """That of docs/plan.md, for all that is asked of the source: here of version 18."""
    lab_s, password = engine_of(plan), plan.source.secret("replication-password")
    admin = superuser(plan)
    admin.script("postgres", least_privileges(password.get_secret_value()))
    rules = admin.value("postgres", "SELECT current_setting('hba_file')")
    host = plan.source.host(lab_s.source.host)
    line = f"host replication {LEAST} 127.0.0.0/8 scram-sha-256"
    host.run(["sh", "-c", f"echo '{line}' >> '{rules}'"])
    admin.script("postgres", "SELECT pg_reload_conf()")
    engine = lab_s.model_copy(
        update={
            "source": lab_s.source.model_copy(
                update={"superuser": LEAST, "password": "replication-password"}
            ),
            "backup": lab_s.backup.model_copy(update={"role": LEAST}),
        }
    )
    try:
        with crossed(plan, engine) as using:
            last = engine.last_look(plan.source)
            assert engine.end_of_log(plan.source)
            service = engine.restore(using)
            answers = asked(service, last)
            assert [c for c in answers if c.status is not CheckStatus.PASSED] == []
            service.stop()
    finally:
        admin.script("postgres", f"DROP OWNED BY {LEAST}; DROP ROLE {LEAST}")


def test_a_role_that_is_not_let_in_to_replicate_is_noticed_first(plan: Plan) -> None:
    lab_s, admin = engine_of(plan), superuser(plan)
    admin.script("postgres", "CREATE ROLE reader LOGIN PASSWORD 'x'")
    backup = lab_s.backup.model_copy(update={"role": "reader"})
    try:
        with pytest.raises(PermanentError, match=r"reader cannot replicate: .*FATAL") as caught:
            lab_s.model_copy(update={"backup": backup}).survey(plan.source)
        assert "Password" not in caught.value.message
    finally:
        admin.script("postgres", "DROP ROLE reader")
    elsewhere = lab_s.backup.model_copy(update={"bin_dir": "/nowhere"})
    assert lab_s.model_copy(update={"backup": elsewhere}).survey(plan.source)


@mechanisms.SOURCES
@pytest.mark.slow(150)
def test_an_archiver_that_fails_while_its_source_is_backed_up(
    plan: Plan, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No segment has failed before: the first backup waits for it, the second does not."""
    monkeypatch.setattr(burden, "ARCHIVER_CHECKS", 1)
    state = load_state(places)
    assert state is not None
    engine, source = engine_of(plan), LivePostgres(places, state.sites[0], plan)
    settings = {"archive_mode": "on", "archive_command": "false", "max_slot_wal_keep_size": "-1"}
    source.sql(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()))
    source.restart()
    try:
        facts = engine.survey(plan.source)
        assert burden.not_archiving(facts) == ""
        with (
            pytest.raises(LogInterrupted, match="waits for the source's archiver"),
            crossed(plan, engine),
        ):
            pass
        with crossed(plan, engine) as using:
            found = {item.id for item in engine.dangers(using.facts, plan.source)}
        assert "source-not-archiving" in found
    finally:
        source.sql(*(f"ALTER SYSTEM RESET {name}" for name in settings))
        source.restart()


@pytest.mark.parametrize("lost", ["a segment in the middle", "all of the log", "its end"])
def test_a_gap_in_the_log_is_refused(plan: Plan, lost: str) -> None:
    """Before anything is made on the recovery host."""
    names = [f"00000001000000000000000{n}" for n in (3, 4, 5)]
    there = {"a segment in the middle": names[::2], "all of the log": [], "its end": names[:2]}
    known = {"start_segment": names[0], "stop_segment": names[2], "tablespaces": []}
    facts = read(SetFacts, FACTS | known)
    objects = tuple(
        SealedObject(name=f"wal/{name}.zst.age", raw_bytes=1, sealed_bytes=1, volumes=())
        for name in there[lost]
    )
    using: Any = SimpleNamespace(
        recovery=plan.recovery,
        facts=facts,
        log=SimpleNamespace(objects=objects),
    )
    with pytest.raises(LogGap, match="never crossed") as caught:
        plan.engine.restore(using)
    assert [item.id for item in diagnose(caught.value, "restore", "east")] == ["log-gap"]


def test_what_the_recovery_host_lacks_is_seen_before(plan: Plan, places: Places) -> None:
    engine = engine_of(plan)
    facts = engine.survey(plan.source)
    foreign = plan.source.belongings
    assert list(engine.compare(facts, plan.recovery, foreign)) == []
    older = engine.target.model_copy(update={"bin_dir": str(postgres.programs(places, "west", 16))})
    extensions = (Extension(name="plpgsql"), Extension(name="pg_trgm"))
    facts = replace(
        facts,
        shared_preload_libraries='plpgsql, "$libdir/plpgsql", pg_cron, auto_explain',
        databases=(replace(facts.databases[0], extensions=extensions),),
    )
    found = engine.model_copy(update={"target": older}).compare(facts, plan.recovery, foreign)
    assert [(item.id, item.subject) for item in found] == [
        ("engine-version", "west/db1"),
        ("library-preloaded", "auto_explain"),
        ("library-preloaded", "pg_cron"),  # a rehearsal keeps it asleep; on the day it is needed
        ("extension-missing", "pg_trgm"),
    ]


@mechanisms.SOURCES
@pytest.mark.slow(60)
def test_a_tablespace_that_the_log_creates_is_made_nowhere(plan: Plan, places: Places) -> None:
    """Its replay would write to the path of the source, where another server's files may be."""
    engine, admin = engine_of(plan), superuser(plan)
    place = places.root / "of-another-server"
    place.mkdir()
    service_account().own(place)

    def create() -> None:
        admin.script("postgres", f"CREATE TABLESPACE late LOCATION '{place}'")

    try:
        with crossed(plan, engine, create) as using:
            for path in list(place.iterdir()):
                shutil.rmtree(path)
            (place / "precious").touch()
            with pytest.raises(NoPlace, match=f"creates tablespace [0-9]+ at {place}"):
                engine.restore(using)
            assert [path.name for path in place.iterdir()] == ["precious"]
    finally:
        admin.script("postgres", "DROP TABLESPACE IF EXISTS late")
        shutil.rmtree(place)


def test_tablespaces_need_a_place(plan: Plan) -> None:
    engine = engine_of(plan)
    nowhere = engine.model_copy(
        update={"target": engine.target.model_copy(update={"tablespaces": None})}
    )
    space = Tablespace(oid="16384", name="one", bytes=1)
    facts = replace(engine.survey(plan.source), tablespaces=(space,))
    with pytest.raises(Exception, match="the plan gives them no place"):
        nowhere.requirements(facts)


def test_a_slot_left_behind_is_found_and_removed(plan: Plan, tmp_path: Path) -> None:
    """All else of the rehearsal is gone already, its lease, too: only --all may remove it."""
    rehearsal_id, source = new_id(), superuser(plan)
    slot = f"farside_{rehearsal_id.replace('-', '_')}"
    made = "SELECT pg_create_physical_replication_slot('{}', true)"
    source.script("postgres", made.format(slot))
    source.script("postgres", made.format("farside_reporting"))  # somebody's own
    assert plan.engine.leftovers(plan.source) == [rehearsal_id]
    unsure = sweep_plan(plan, everything=False, results=tmp_path)
    assert unsure.removed == ()
    assert any("whether it runs is unknown" in item for item in unsure.remaining)
    swept = sweep_plan(plan, everything=True, results=tmp_path)
    assert swept.removed == (f"east: replication slot {slot}",)
    assert plan.engine.leftovers(plan.source) == []
    source.script("postgres", "SELECT pg_drop_replication_slot('farside_reporting')")


def test_withdrawn_while_the_log_is_received_and_by_two_at_once(plan: Plan) -> None:
    rehearsal_id, source, engine = new_id(), superuser(plan), engine_of(plan)
    slot = f"farside_{rehearsal_id.replace('-', '_')}"
    source.script("postgres", f"SELECT pg_create_physical_replication_slot('{slot}', true)")
    host = plan.source.host(engine.backup.host)
    where = f"host={engine.source.address} port={engine.source.port} user={engine.backup.role}"
    password = plan.source.secret(engine.backup.password).get_secret_value()
    directory = host.run(["mktemp", "-d"]).text
    receive = [f"{engine.backup.bin_dir}/pg_receivewal", "-W", "-d", where, "-S", slot]
    with host.start([*receive, "-D", directory, "--no-loop"]) as receiver:
        receiver.write_line(password)
        wait_until(lambda: slot_state(source, slot) == "t")
        assert plan.engine.leftovers(plan.source) == [], "somebody receives from it"
        answers: list[list[str]] = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(engine.clean_source(plan.source, rehearsal_id))
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 2
        assert [f"replication slot {slot}"] in answers
        assert slot_state(source, slot) is None
        assert receiver.wait(30) != 0
    host.run(["rm", "-rf", directory])
    assert engine.clean_source(plan.source, rehearsal_id) == []


def slot_state(source: Psql, slot: str) -> str | None:
    return source.value(
        "postgres", f"SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'"
    )


def wait_until(done: Any) -> None:
    give_up = time.monotonic() + 30
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.1)
