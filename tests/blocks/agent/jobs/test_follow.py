"""The log, stored as it is produced."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks.agent.protocol.events import Stored
from blocks.agent.protocol.jobs import FollowJob, OpenJob
from blocks.agent.protocol.parts import FileTarget, LogFiles, OpenItem
from blocks.engines.postgres.wal import FILES

MIB = 2**20

# Behaves as `pg_receivewal -D DIR` does: grows SEG.partial, renames it when it is full, and leaves
# the current one as it is when it is interrupted.
RECEIVER = """
import os, pathlib, signal, sys, time
folder, size, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
assert sys.stdin.readline() == "the password\\n"
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
(folder / "00000002.history").write_text("1 0/3000000 switched")
for number in range(1, 1000):
    partial = folder / f"00000001{number:016X}.partial"
    with partial.open("wb") as out:
        out.truncate(size)
        for _ in range(4):
            out.write(os.urandom(1000))
            out.flush()
            time.sleep(pause / 4)
    partial.rename(partial.with_suffix(""))
"""


# As the real one begins a segment: room is made first, a piece at a time.
SLOWLY = """
import os, pathlib, sys, time
folder, size, pause = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
sys.stdin.readline()
with (folder / "000000010000000000000001.partial").open("wb") as out:
    for _ in range(8):
        out.write(bytes(size // 8))
        out.flush()
        time.sleep(pause / 8)
    out.seek(0)
    while True:
        out.write(b"\\xd1" * 1000)
        out.flush()
        time.sleep(0.1)
"""


def job(near: Any, keys: Any, folder: Path, *, size: int, pause: float, **more: Any) -> FollowJob:
    return FollowJob(
        argv=(sys.executable, "-c", RECEIVER, str(folder), str(size), str(pause)),
        secret="the password",
        directory=str(folder),
        files=FILES,
        recipients=(keys.recipient,),
        ca_pem=near.store.ca_pem,
        **{"interval_seconds": 0.3, **more},
    )


def until(condition: Any) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_a_segment_that_is_being_made_room_for_is_not_stored(
    near: Any, keys: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "wal"
    slowly = (sys.executable, "-c", SLOWLY, str(folder), str(MIB), "1.5")
    like = job(near, keys, folder, size=MIB, pause=1.5, interval_seconds=0.1)
    run = near.start(replace(like, argv=slowly))
    until(lambda: len(run.outcome.of(Stored)) > 2)
    run.stop()
    assert {event.object.raw_bytes for event in run.outcome.of(Stored)} == {MIB}


def test_segments_partials_and_history_are_stored(near: Any, keys: Any, tmp_path: Path) -> None:
    folder = tmp_path / "wal"
    run = near.start(job(near, keys, folder, size=MIB, pause=0.8))

    def complete() -> list[Any]:
        names = [event.object.name for event in run.outcome.of(Stored)]
        return [name for name in names if "partial" not in name and "history" not in name]

    until(lambda: len(complete()) >= 3)
    run.stop()
    outcome = run.wait()
    stored = [event.object for event in outcome.of(Stored)]
    names = [sealed.name for sealed in stored]
    assert names[0] == "wal/00000002.history.zst.age"
    assert complete()[:3] == [f"wal/{1:08X}{n:016X}.zst.age" for n in (1, 2, 3)]
    partials = [name for name in names if ".partial-" in name]
    assert [name[-14:-8] for name in partials] == [f"{n:06d}" for n in range(1, len(partials) + 1)]
    assert outcome.done.result.next_partial == len(partials) + 1
    assert outcome.done.result.stored == len(names) == len(set(names))
    assert all(sealed.plain for sealed in stored)
    left = sorted(path.name for path in folder.iterdir())
    assert len(left) <= 3, "stored segments are removed, but for the newest"

    last = next(sealed for sealed in stored if sealed.name == partials[-1])
    target = tmp_path / "opened"
    item = OpenItem(object=last, target=FileTarget(path=str(target)))
    opened = near.run(OpenJob(items=(item,), identity=keys.identity, ca_pem=near.store.ca_pem))
    assert opened.done.result.raw_bytes == MIB
    current = next(path for path in folder.iterdir() if path.suffix == ".partial")
    assert target.read_bytes() == current.read_bytes(), "the end of the log is stored at the end"


def test_large_segments_are_stored_in_volumes(near: Any, keys: Any, tmp_path: Path) -> None:
    run = near.start(
        job(near, keys, tmp_path / "wal", size=64 * MIB, pause=0.4, interval_seconds=60.0)
    )
    until(lambda: len(run.outcome.of(Stored)) >= 2)
    run.stop()
    outcome = run.wait()
    segment = outcome.of(Stored)[1].object
    assert not segment.plain
    assert segment.raw_bytes == 64 * MIB
    assert outcome.done.peak_rss < 256 * MIB


# Another server's log: numbered behind a word, an index beside it, and zeros may begin a file.
BINLOG = """
import os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
for number in (1, 2):
    (folder / f"binlog.{number:06d}.tmp").write_bytes(b"x" * 1000)
    (folder / f"binlog.{number:06d}.tmp").rename(folder / f"binlog.{number:06d}")
(folder / "binlog.000003.open").write_bytes(bytes(1000))
(folder / "binlog.index").write_text("1")
signal.pause()
"""


def test_the_files_of_another_log(near: Any, keys: Any, tmp_path: Path) -> None:
    """What is stored, what stays, and what begins a file is the caller's to say."""
    folder = tmp_path / "log"
    files = LogFiles(
        folder="binlog",
        segment=r"binlog\.[0-9]{6}",
        growing=".open",
        beside=r"binlog\.index",
        magic_bytes=4,
    )
    argv = (sys.executable, "-c", BINLOG, str(folder))
    like = job(near, keys, folder, size=0, pause=0, interval_seconds=0.1)
    run = near.start(replace(like, argv=argv, files=files, secret=None))
    until(lambda: len(run.outcome.of(Stored)) == 3)
    with (folder / "binlog.000003.open").open("r+b") as growing:
        growing.write(b"\0\0\0x")
    until(lambda: len(run.outcome.of(Stored)) == 4)
    run.stop()
    names = [event.object.name for event in run.wait().of(Stored)]
    assert sorted(names[:3]) == [
        "binlog/binlog.000001.zst.age",
        "binlog/binlog.000002.zst.age",
        "binlog/binlog.index.zst.age",
    ]
    assert names[3:] == ["binlog/binlog.000003.partial-000001.zst.age"]
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["binlog.000003.open", "binlog.index"]


@pytest.mark.parametrize("code", [0, 1])
def test_a_receiver_that_ends_by_itself_is_a_failure(
    near: Any, keys: Any, tmp_path: Path, code: int
) -> None:
    ends = FollowJob(
        argv=("bash", "-c", f"echo slot is gone >&2; exit {code}"),
        directory=str(tmp_path / "wal"),
        files=FILES,
        recipients=(keys.recipient,),
        interval_seconds=1.0,
        ca_pem=near.store.ca_pem,
    )
    failed = near.run(ends).failed
    assert failed.code == "child-failed"
    assert "slot is gone" in failed.message


def test_a_lost_orchestrator_ends_the_receiver(near: Any, keys: Any, tmp_path: Path) -> None:
    run = near.start(job(near, keys, tmp_path / "wal", size=MIB, pause=0.4))
    until(lambda: run.outcome.of(Stored))
    (child,) = (
        int(pid)
        for task in Path(f"/proc/{run.process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    )
    run.stdin.close()
    assert run.process.wait(3) != 0
    until(lambda: not os.path.exists(f"/proc/{child}"))  # noqa: PTH110
