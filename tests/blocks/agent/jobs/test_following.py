"""What a rehearsal costs a live PostgreSQL server, shown on real ones."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from blocks.agent import lease
from blocks.agent.protocol.events import Answer, Ok, Released, Stored
from blocks.agent.protocol.jobs import FollowJob
from blocks.engines.postgres import burden, survey
from blocks.engines.postgres.facts import PostgresFacts
from blocks.engines.postgres.sessions import PATIENT_WITH_PRODUCTION
from blocks.engines.postgres.wal import FILES
from blocks.errors import TransientError
from blocks.hosts.local import LocalHost
from blocks.remote import following
from blocks.remote.following import LogInterrupted
from blocks.repositories.farside.writer import Load
from tests import mechanisms
from tests.blocks.engines.servers import Server, server

pytestmark = mechanisms.SERVERS

SLOT = "farside_r20260101_000000_abcdef"


def facts_of(source: Server) -> PostgresFacts:
    return survey.survey(source.psql(options=PATIENT_WITH_PRODUCTION))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.1)


def ask_until_it_raises(ask: Callable[[], None]) -> None:
    for _ in range(300):
        ask()
        time.sleep(0.1)


def conninfo(source: Server) -> str:
    return f"host=127.0.0.1 port={source.port} user=postgres application_name={SLOT}"


def receiving(source: Server, folder: Path, recipient: str, **more: Any) -> FollowJob:
    """As the engine follows the log of such a source."""
    receive = [f"{source.bin_dir}/pg_receivewal", "-W", "-d", conninfo(source)]
    holding = burden.holding(facts_of(source), SLOT)
    return FollowJob(
        argv=(*receive, *holding, "-D", str(folder / "wal"), "--no-loop"),
        release_argv=(*receive, *holding, "--drop-slot") if holding else (),
        directory=str(folder / "wal"),
        files=FILES,
        recipients=(recipient,),
        interval_seconds=0.3,
        secret="secret",
        **more,
    )


def slot_maker(source: Server) -> Callable[[], Answer | None]:
    """What an orchestrator does once a follower is ready to give its slot back."""

    def make() -> Answer | None:
        source.run(f"SELECT pg_create_physical_replication_slot('{SLOT}')")
        return Ok()

    return make


def slots(source: Server) -> str:
    return source.run("SELECT count(*) FROM pg_replication_slots")


def receivers(source: Server) -> str:
    return source.run("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")


@pytest.fixture(scope="module", params=[15, 18])
def source(request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(request.param, "wal_level = replica", "max_slot_wal_keep_size = 1GB") as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 160 MiB of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "none", str(path)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@contextmanager
def follower(source: Server, near: Any, job: FollowJob) -> Iterator[Any]:
    near.prepare = slot_maker(source)
    run = near.start(replace(job, ca_pem=near.store.ca_pem))
    try:
        until(lambda: receivers(source) == "1")
        until(lambda: bool(run.outcome.of(Stored)))
        yield run
        until(lambda: slots(source) == "0" and receivers(source) == "0")
    finally:
        with suppress(ProcessLookupError):
            run.process.kill()
        run.process.wait()


class TestTheSlotGoesWithTheFollower:
    def test_when_it_is_told_to_stop(
        self, source: Server, near: Any, keys: Any, tmp_path: Path
    ) -> None:
        with follower(source, near, receiving(source, tmp_path, keys.recipient)) as run:
            run.stop()
            until(lambda: bool(run.outcome.of(Released)))

    def test_when_its_orchestrator_is_gone(
        self, source: Server, near: Any, keys: Any, tmp_path: Path
    ) -> None:
        with follower(source, near, receiving(source, tmp_path, keys.recipient)) as run:
            run.stdin.close()

    @pytest.mark.parametrize("made", [True, False])
    def test_when_its_orchestrator_dies_over_making_it(
        self, source: Server, near: Any, keys: Any, tmp_path: Path, made: bool
    ) -> None:
        make, asked = slot_maker(source), threading.Event()

        def die() -> None:
            if made:
                make()
            asked.set()

        near.prepare = die  # and no answer ever comes
        job = receiving(source, tmp_path, keys.recipient)
        run = near.start(replace(job, ca_pem=near.store.ca_pem))
        assert asked.wait(60)
        assert slots(source) == ("1" if made else "0")
        run.stdin.close()
        assert run.wait().failed.code == "aborted"
        assert (slots(source), receivers(source)) == ("0", "0")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_when_the_agent_is_told_to_end(
        self, source: Server, near: Any, keys: Any, tmp_path: Path, number: int
    ) -> None:
        with follower(source, near, receiving(source, tmp_path, keys.recipient)) as run:
            os.kill(run.process.pid, number)

    def test_when_the_lease_runs_out(
        self, source: Server, near: Any, keys: Any, tmp_path: Path
    ) -> None:
        marker = tmp_path / "r20260101-000000-abcdef"
        marker.mkdir()
        lease.write(marker, lease.Lease("shop", 3600))
        job = receiving(source, tmp_path, keys.recipient, marker=str(marker))
        with follower(source, near, job) as run:
            os.utime(marker / lease.FILE, (0, time.time() - 4000))
            assert "lease" in run.wait().failed.message

    def test_when_the_receiver_dies(
        self, source: Server, near: Any, keys: Any, tmp_path: Path
    ) -> None:
        with follower(source, near, receiving(source, tmp_path, keys.recipient)) as run:
            source.run("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
            assert run.wait().failed.code == "child-failed"

    def test_when_too_much_log_waits_for_the_store(
        self, source: Server, near: Any, keys: Any, tmp_path: Path
    ) -> None:
        job = receiving(source, tmp_path, keys.recipient, spool_bytes=100 * 2**20)
        with follower(source, near, job) as run:
            for number in range(10):  # as a store would that takes nothing
                (tmp_path / "wal" / f"waits-{number}").write_bytes(bytes(16 * 2**20))
            failed = run.wait().failed
            assert failed.code == "no-space"
            assert "backup.spool" in failed.hint

    def test_when_the_disk_is_nearly_full(
        self, source: Server, near: Any, keys: Any, disk: Path
    ) -> None:
        """Whoever filled it: the source's database may need what is left."""
        with follower(source, near, receiving(source, disk, keys.recipient)) as run:
            with suppress(OSError), (disk / "filler").open("wb") as file:
                while shutil.disk_usage(disk).free > 4 * 2**20:
                    file.write(bytes(2**20))
                    file.flush()
            failed = run.wait().failed
            assert failed.code == "no-space"
            assert "are left on the disk" in failed.message


@pytest.mark.slow
class TestStandbysThatCommitsWaitFor:
    @pytest.mark.parametrize("names", ["*", "ANY 1 (*)", 'FIRST 1 (absent, "*")'])
    def test_a_receiver_of_the_log_is_never_one(
        self, source: Server, near: Any, keys: Any, tmp_path: Path, names: str
    ) -> None:
        source.set(restart=False, synchronous_standby_names=names)
        try:
            with follower(source, near, receiving(source, tmp_path, keys.recipient)) as run:
                asked = (
                    "SELECT sync_state || ' ' || (flush_lsn IS NULL) || ' ' || sync_priority"
                    " FROM pg_stat_replication"
                )
                assert source.run(asked) == "async true 0"
                before = len(run.outcome.of(Stored))
                # There is no standby: a commit waits, and the receiver acknowledges none.
                waiting = "SET statement_timeout = '2s'; CREATE TABLE IF NOT EXISTS t (n int);"
                source.run(f"SET synchronous_commit = local; {waiting}")
                waits = "SET synchronous_commit = {}; INSERT INTO t VALUES (1);"
                for level in ("remote_apply", "on", "remote_write"):
                    with subprocess.Popen(
                        [
                            f"{source.bin_dir}/psql",
                            "-X",
                            "-d",
                            conninfo(source) + " dbname=postgres",
                        ],
                        stdin=subprocess.PIPE,
                    ) as session:
                        assert session.stdin is not None
                        session.stdin.write(waits.format(level).encode())
                        session.stdin.close()
                        sync = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                        until(lambda: source.run(sync) == "1")  # noqa: B023 (called at once)
                        time.sleep(1)
                        assert source.run(sync) == "1"
                        source.run(
                            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                            " WHERE wait_event = 'SyncRep'"
                        )
                until(lambda: len(run.outcome.of(Stored)) > before)  # it is followed all the same
                burden.Watch(source.psql(), SLOT, Load())()
                run.stop()
        finally:
            source.run("ALTER SYSTEM RESET synchronous_standby_names")
            source.run("SELECT pg_reload_conf()")

    def test_one_that_has_become_one_is_ended(
        self, source: Server, near: Any, keys: Any, tmp_path: Path
    ) -> None:
        """The site changes the setting while the log is followed with a slot."""
        with follower(source, near, receiving(source, tmp_path, keys.recipient)) as run:
            watch = burden.Watch(source.psql(), SLOT, Load())
            watch()
            source.set(restart=False, synchronous_standby_names="*")
            try:
                until(lambda: source.run("SELECT sync_state FROM pg_stat_replication") == "sync")
                with pytest.raises(burden.Burden, match="commits may wait for"):
                    watch()
            finally:
                source.run("ALTER SYSTEM RESET synchronous_standby_names")
                source.run("SELECT pg_reload_conf()")
            run.stop()


@pytest.mark.slow
def test_no_slot_where_the_server_does_not_limit_it(
    source: Server, near: Any, keys: Any, tmp_path: Path
) -> None:
    """A loss of power takes along all that would drop it, and the server's disk fills."""
    source.set(restart=False, max_slot_wal_keep_size="-1")
    try:
        job = receiving(source, tmp_path, keys.recipient)
        assert job.release_argv == ()
        near.prepare = None
        run = near.start(replace(job, ca_pem=near.store.ca_pem))
        until(lambda: receivers(source) == "1")
        until(lambda: bool(run.outcome.of(Stored)))
        assert slots(source) == "0"
        burden.Watch(source.psql(), SLOT, Load())()
        run.stop()
        run.wait()
    finally:
        source.set(restart=False, max_slot_wal_keep_size="1GB")


def test_a_receiver_that_is_far_behind_ends_the_rehearsal(source: Server) -> None:
    source.run(f"SELECT pg_create_physical_replication_slot('{SLOT}', true)")
    try:
        watch = burden.Watch(source.psql(), SLOT, Load(retained=2**20))
        watch()
        source.run("CREATE TABLE big AS SELECT repeat('x', 100) FROM generate_series(1, 50000)")
        with pytest.raises(burden.Burden, match=r"backup\.retained|are allowed"):
            watch()
    finally:
        source.run(f"SELECT pg_drop_replication_slot('{SLOT}')")
        source.run("DROP TABLE IF EXISTS big")


def test_a_receiver_that_the_server_does_not_know_is_a_failure(source: Server) -> None:
    watch = burden.Watch(source.psql(), SLOT, Load())
    for _ in range(burden.ABSENT_CHECKS - 1):
        watch()
    with pytest.raises(burden.Burden, match="no receiver"):
        watch()


def test_a_source_that_does_not_say_is_no_reason_to_end() -> None:
    with server() as made:
        watch = burden.Watch(made.psql(), SLOT, Load())
        made.ctl("stop", "-m", "fast")
        with pytest.raises(TransientError):
            watch()
        made.ctl("start")


@pytest.mark.slow
class TestArchiver:
    @pytest.mark.parametrize("command", ["false", ""])
    def test_a_base_backup_does_not_wait_for_one_that_fails(
        self, command: str, tmp_path: Path
    ) -> None:
        with server(15, "archive_mode = on", f"archive_command = '{command}'") as made:
            made.run("SELECT pg_switch_wal()")
            failing = "SELECT failed_count > 0 FROM pg_stat_archiver"
            until(lambda: command == "" or made.run(failing) == "t")
            facts = facts_of(made)
            (found, *_) = burden.findings(facts, "east/db1")
            assert found.id == "source-not-archiving"
            argv = [
                f"{made.bin_dir}/pg_basebackup",
                "-d",
                conninfo(made),
                "-F",
                "tar",
                "-c",
                "fast",
            ]
            argv += ["-X", burden.log_in_base(facts), "-D", str(tmp_path / "base")]
            subprocess.run(argv, check=True, timeout=60, capture_output=True)

    def test_one_that_works_is_none_of_farsides_business(self) -> None:
        with server(15, "archive_mode = on", "archive_command = 'true'") as made:
            made.run("SELECT pg_switch_wal()")
            until(lambda: made.run("SELECT archived_count > 0 FROM pg_stat_archiver") == "t")
            facts = facts_of(made)
            assert [item.id for item in burden.findings(facts, "x")] == ["log-retention-unbounded"]

    def test_one_that_hangs_is_noticed_by_what_waits_for_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(burden, "STUCK_SECONDS", 1)
        with server(15, "archive_mode = on", "archive_command = 'sleep 100'") as made:
            made.run("SELECT pg_switch_wal()")
            until(lambda: "wait for the archiver" in burden.not_archiving(facts_of(made)))

    def test_one_that_begins_to_fail_is_told_at_the_end(self) -> None:
        with server(15, "archive_mode = on", "archive_command = 'true'") as made:
            psql, facts = made.psql(options=PATIENT_WITH_PRODUCTION), facts_of(made)
            assert burden.not_archiving(burden.at_end(psql, facts)) == ""
            made.set(restart=False, archive_command="false")
            made.run("CREATE TABLE t (n int); SELECT pg_switch_wal()")
            late = burden.at_end(psql, facts)
        assert "source-not-archiving" in {item.id for item in burden.findings(late, "east/db1")}
        assert late.unread == facts.unread

    def test_one_of_which_nobody_knows_at_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(burden, "ARCHIVER_SECONDS", 1.5)
        with server(15, "archive_mode = on", "archive_command = 'sleep 100'") as made:
            psql, facts = made.psql(options=PATIENT_WITH_PRODUCTION), facts_of(made)
            made.run("CREATE TABLE t (n int); SELECT pg_switch_wal()")
            late = burden.at_end(psql, facts)
            made.ctl("stop", "-m", "immediate")
            gone = burden.at_end(psql, facts)
            made.ctl("start")
        for found in (late, gone):
            assert "whether the source's archiver works" in found.unread

    def test_a_base_backup_that_waits_for_one_is_begun_again(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """No segment has failed yet: only what waits for it tells."""
        monkeypatch.setattr(burden, "ARCHIVER_CHECKS", 1)
        monkeypatch.setattr(burden, "ABSENT_CHECKS", 10**6)
        awaited = list[bool]()
        with server(15, "archive_mode = on", "archive_command = 'false'") as made:
            facts = facts_of(made)
            argv = [f"{made.bin_dir}/pg_basebackup", "-d", conninfo(made), "-c", "fast"]
            assert burden.log_in_base(facts) == "none"
            watch = burden.Watch(made.psql(), SLOT, Load(), lambda: awaited.append(True))
            with subprocess.Popen([*argv, "-X", "none", "-D", str(tmp_path / "base")]) as waits:
                try:
                    with pytest.raises(LogInterrupted, match="waits for the source's archiver"):
                        ask_until_it_raises(watch)
                    assert waits.poll() is None
                finally:
                    waits.kill()
            assert awaited == [True]
            mode = burden.log_in_base(facts, has_waited=True)
            argv += ["-X", mode, "-D", str(tmp_path / "again")]
            subprocess.run(argv, check=True, timeout=60, capture_output=True)


def test_following_that_can_begin_again_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not over for good, as where it burdens the source."""
    monkeypatch.setattr(following, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(following, "AgentThread", MagicMock())

    def check() -> None:
        raise error

    for error, kind in (
        (burden.ArchiverAwaited("it waits"), LogInterrupted),
        (burden.Burden("it costs"), following.LogNotFollowed),
    ):
        host, nothing = LocalHost(name="db1"), MagicMock()
        follower = following.Follower(host, "r1", nothing, nothing, check, nothing)
        with pytest.raises(kind, match=error.message):
            ask_until_it_raises(follower.check)
