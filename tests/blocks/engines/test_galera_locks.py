"""A backup of MariaDB never keeps its source from committing for long, however slow the store."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.engines.galera import backup
from blocks.engines.galera.mariadb import Mariadb
from blocks.repositories.farside.writer import READ_RATE
from tests.blocks.engines.test_galera_truth import home, root, server
from tests.blocks.engines.worlds import need_debian

__all__ = ["home"]
COMMIT = "INSERT INTO shop.t VALUES (1)"


@pytest.fixture
def node(home: Path) -> Iterator[Mariadb]:
    """A server, and a table in it."""
    need_debian("mariadb-backup", "/usr/bin/mariadb-backup")
    running = server(home)
    mine = root(home)
    mine.script("", "CREATE OR REPLACE DATABASE shop; CREATE TABLE shop.t (id INT)")
    yield mine
    running.kill()
    running.wait()


def start(
    home: Path,
    work: Path,
    commit_seconds: float,
    start_seconds: int = 10,
    rate: int = READ_RATE,
) -> "subprocess.Popen[bytes]":
    argv = ["/usr/bin/mariadb-backup", "--backup", "--stream=xbstream", "--user=root"]
    argv += [f"--target-dir={work}"]
    work.mkdir()
    running = subprocess.Popen(
        backup.command(
            sys.executable,
            str(work),
            argv,
            rate=rate,
            commit_seconds=commit_seconds,
            start_seconds=start_seconds,
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdin is not None
    running.stdin.write(f"socket={home}/s\n".encode())
    running.stdin.close()
    return running


def drain(running: "subprocess.Popen[bytes]", log: Path, until: bytes) -> None:
    """Take the stream as a store does, until the backup has said something, or its end."""
    assert running.stdout is not None
    while os.read(running.stdout.fileno(), 65536):
        if until in log.read_bytes():
            return


def test_commits_go_on_while_the_store_takes_nothing(
    node: Mariadb, home: Path, tmp_path: Path
) -> None:
    running = start(home, tmp_path / "work", 1)
    try:
        drain(running, tmp_path / "work" / "backup.log", b"locks for BACKUP STAGE BLOCK_COMMIT")
        began = time.monotonic()
        node.script("", COMMIT, timeout=20)
        assert time.monotonic() < began + 10
        assert running.wait(10) != 0
        assert running.stderr is not None
        assert b"BACKUP STAGE BLOCK_COMMIT for 1 s" in running.stderr.read()
    finally:
        running.kill()
        running.wait()


def waiting(node: Mariadb) -> bool:
    """Whether the backup waits for its lock."""
    states = node.rows("SELECT state FROM information_schema.processlist")
    return any("backup lock" in str(row[0]) for row in states)


@pytest.fixture
def locked(node: Mariadb, home: Path) -> Iterator[Mariadb]:
    """A session that holds a table's lock, as a long maintenance does."""
    script = "LOCK TABLES shop.t WRITE; SELECT 1; SELECT SLEEP(600);"
    argv = ["mariadb", "--no-defaults", f"--socket={home}/s", "--user=root", "-n", "-N"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(script.encode())
        holder.stdin.close()
        assert holder.stdout.readline() == b"1\n"
        yield node
        holder.kill()


def test_a_backup_that_waits_for_its_lock_ends_soon(
    locked: Mariadb, home: Path, tmp_path: Path
) -> None:
    """Every CREATE and ALTER of production waits behind it."""
    running = start(home, tmp_path / "work", 10, start_seconds=2)
    taking = threading.Thread(
        target=drain, args=(running, tmp_path / "work" / "backup.log", b"never")
    )
    taking.start()
    try:
        assert running.wait(40) != 0
        locked.script("", "CREATE TABLE shop.other (id INT)", timeout=10)
    finally:
        running.kill()
        running.wait()
        taking.join()


def test_a_backup_whose_wrapper_is_killed_holds_nothing(
    locked: Mariadb, home: Path, tmp_path: Path
) -> None:
    running = start(home, tmp_path / "work", 10, start_seconds=0)
    try:
        give_up = time.monotonic() + 30
        while not waiting(locked):
            assert time.monotonic() < give_up
            time.sleep(0.2)
    finally:
        running.kill()
        running.wait()
    while waiting(locked):
        assert time.monotonic() < give_up + 30
        time.sleep(0.2)
    locked.script("", "CREATE TABLE shop.other (id INT)", timeout=10)


def test_a_backup_that_is_taken_ends_well(node: Mariadb, home: Path, tmp_path: Path) -> None:
    running = start(home, tmp_path / "work", 60)
    taking = threading.Thread(
        target=drain, args=(running, tmp_path / "work" / "backup.log", b"never")
    )
    taking.start()
    assert running.wait(60) == 0
    taking.join()
    node.script("", COMMIT)


def test_tables_are_read_no_faster_than_allowed(node: Mariadb, home: Path, tmp_path: Path) -> None:
    """By mariadb-backup itself, which copies them in a stage of its own."""
    rows = "SELECT REPEAT(SHA1(seq), 20000) FROM seq_1_to_40"
    node.script("shop", f"CREATE TABLE large (b LONGTEXT); INSERT INTO large {rows}")
    began = time.monotonic()
    running = start(home, tmp_path / "work", 60, rate=10**7)
    drain(running, tmp_path / "work" / "backup.log", b"Started BACKUP STAGE BLOCK_DDL")
    assert time.monotonic() > began + 2.5, "32 MB at 10 MB/s"
    drain(running, tmp_path / "work" / "backup.log", b"never")
    assert running.wait(60) == 0


def test_a_reader_that_goes_fails_the_backup(tmp_path: Path) -> None:
    """Also one that goes when the backup itself has ended: its stream is not whole."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec head -c 60000 /dev/zero\n")
    program.chmod(0o755)
    argv = backup.command(sys.executable, str(tmp_path), [str(program)], rate=10**5)
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        running.stdin.close()
        assert b"could not be passed on: Broken pipe" in running.stderr.read()
    assert running.returncode != 0


def test_locked_stages_are_not_slowed_down(tmp_path: Path) -> None:
    script = "echo 'Executing BACKUP STAGE BLOCK_DDL' >&2; sleep 1; exec head -c 20000000 /dev/zero"
    assert passed_on(tmp_path, script, rate=10**5) == 20_000_000


def passed_on(work: Path, script: str, rate: int) -> int:
    """Bytes that come out of a backup that a script stands for."""
    program = work / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    done = subprocess.run(
        backup.command(sys.executable, str(work), [str(program)], rate=rate),
        input=b"user=x\n",
        capture_output=True,
        timeout=60,  # of 200 s that it would take
        check=True,
    )
    return len(done.stdout)
