"""A packet filter whose rehearsal died is lifted, but never over a service that still runs."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocks.agent import lease, marks
from blocks.agent.channel import Channel
from blocks.agent.jobs import guard, sweep
from blocks.agent.protocol.jobs import GuardJob
from blocks.agent.protocol.results import Leftover, SweepResult

ID = "r20260101-000000-aaaaaa"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(guard, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(guard, "_AGAIN_SECONDS", 0.05)
    made = tmp_path / "work" / ID
    made.mkdir(parents=True, mode=0o700)
    made.parent.chmod(0o700)
    (made / marks.FILE).touch(0o600)
    return made


def leased(directory: Path, ago: float) -> None:
    lease.write(directory, lease.Lease("shop", 60.0))
    at = time.time() - ago
    os.utime(directory / lease.FILE, (at, at))


@pytest.fixture
def job(directory: Path) -> GuardJob:
    said = directory.parents[1] / "said"
    argv = ("sh", "-c", 'cat > "$0"; echo "$@" >> "$0"', str(said))
    return GuardJob(work_dir=str(directory.parent), rehearsal_id=ID, nft_argv=argv, table="ours")


@pytest.fixture
def said(directory: Path) -> Path:
    return directory.parents[1] / "said"


def soon(done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return done()


@pytest.fixture
def restored(directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(["sleep", "600"], cwd=directory, start_new_session=True)
    entry = marks.process(process.pid)
    assert entry is not None
    marks.note(directory, [entry])
    threading.Thread(target=process.wait, daemon=True).start()  # or it stays as a zombie
    yield process
    process.kill()


def test_what_was_restored_is_stopped_and_then_the_filter_lifted(
    directory: Path, job: GuardJob, said: Path, restored: "subprocess.Popen[bytes]"
) -> None:
    leased(directory, ago=3600)
    assert guard.watch(job)
    assert soon(lambda: restored.returncode is not None)
    assert said.read_text() == "add table inet ours\ndelete table inet ours\n--file -\n"
    assert not directory.exists()


def test_a_service_that_cannot_be_stopped_keeps_its_filter(
    directory: Path, job: GuardJob, said: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leased(directory, ago=3600)
    left = Leftover(rehearsal_id=ID, paths=(), processes=("7: postgres",))
    tries = []

    def stubborn(*_: object) -> SweepResult:
        tries.append(1)
        if len(tries) == 3:
            directory.joinpath(lease.FILE).unlink()
            (directory / marks.FILE).unlink()
            directory.rmdir()
        return SweepResult(found=(left,), remaining=(left,))

    monkeypatch.setattr(sweep, "run", stubborn)
    assert not guard.watch(job)
    assert not said.exists()


@pytest.mark.parametrize("state", ["alive", "unknown"])
def test_a_rehearsal_that_lives_or_may_live_is_left_alone(
    directory: Path, job: GuardJob, said: Path, state: str
) -> None:
    if state == "alive":
        leased(directory, ago=0)
    ended = threading.Event()

    def watch() -> None:
        guard.watch(job)
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    assert not ended.wait(1.0)
    assert not said.exists()
    leased(directory, ago=3600)
    assert ended.wait(60)
    assert said.exists()


def test_the_guard_outlives_what_started_it(directory: Path, job: GuardJob, said: Path) -> None:
    leased(directory, ago=0)
    pid = guard.run(job, Channel.__new__(Channel)).pid
    try:
        assert os.getsid(pid) == pid or soon(lambda: os.getsid(pid) == pid)
        leased(directory, ago=3600)
        assert soon(said.exists)
    finally:
        os.waitpid(pid, 0)
