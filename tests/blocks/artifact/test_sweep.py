"""What a host is, what answers from it, and what rehearsals left on it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.artifact import marks
from blocks.artifact.job import (
    Done,
    Event,
    FactsJob,
    Job,
    MadePath,
    MadePidfile,
    MadeProcess,
    MarkJob,
    ProbeJob,
    Result,
    SweepJob,
    from_line,
    to_line,
)


@pytest.fixture
def ask(helper: Path) -> Any:
    """Runs a job that asks nothing: its input ends after the job."""

    def run(job: Job) -> Result:
        # -S: without the packages of the environment, which these jobs must not need
        argv = [sys.executable, "-S", str(helper)]
        ended = subprocess.run(argv, input=to_line(job).encode(), capture_output=True, timeout=60)
        done = from_line(Event, ended.stdout.splitlines()[-1])
        assert isinstance(done, Done), (done, ended.stderr)
        assert ended.returncode == 0
        return done.result

    return run


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def running(process: "subprocess.Popen[bytes]") -> bool:
    return process.poll() is None


def mark(ask: Any, work: Path, name: str, *made: Any) -> Path:
    ask(MarkJob(work_dir=str(work), rehearsal_id=name, made=made))
    return work / name


def sleeper(*words: str, cwd: Path | None = None) -> "subprocess.Popen[bytes]":
    script = "import time; time.sleep(1000)"
    return subprocess.Popen([sys.executable, "-c", script, *words], cwd=cwd)


def test_sweep_removes_what_is_marked_and_nothing_else(
    ask: Any, tmp_path: Path, processes: list[Any]
) -> None:
    work = tmp_path / "work"
    data, other = tmp_path / "data", tmp_path / "other"
    for folder in (data, other):
        folder.mkdir()
        (folder / "file").write_text("x")
    ours, by_pidfile, stranger, reused = (
        sleeper(str(data / "x")),
        sleeper(cwd=data),
        sleeper(str(other)),
        sleeper(str(data)),
    )
    processes += [ours, by_pidfile, stranger, reused]
    (data / "postmaster.pid").write_text(f"{by_pidfile.pid}\n{data}\n")
    start = marks.start_of(reused.pid)
    assert start is not None
    marker = mark(
        ask,
        work,
        "r1",
        MadePath(path=str(data)),
        MadePidfile(pidfile=str(data / "postmaster.pid")),
        marks.process(ours.pid),
        marks.process(stranger.pid),  # alive, but nothing of it is in the marker
        MadeProcess(pid=reused.pid, start=start - 1),  # the number of a process long gone
    )
    mark(ask, work, "r2", MadePath(path=str(other)))

    looked = ask(SweepJob(work_dir=str(work)))
    assert [left.rehearsal_id for left in looked.found] == ["r1", "r2"]
    assert looked.found == looked.remaining
    assert set(looked.found[0].paths) == {str(data), str(marker)}
    assert {int(text.split(":")[0]) for text in looked.found[0].processes} == {
        ours.pid,
        by_pidfile.pid,
    }
    assert data.exists()

    swept = ask(SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True))
    assert len(swept.found) == 1
    assert swept.remaining == ()
    assert not data.exists()
    assert not marker.exists()
    assert other.exists()
    assert not running(ours)
    assert not running(by_pidfile)
    assert running(stranger)
    assert running(reused)
    again = ask(SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True))
    assert again.found == again.remaining == ()


def test_a_process_that_does_not_listen_is_killed(
    ask: Any, tmp_path: Path, processes: list[Any]
) -> None:
    script = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)"
    )
    stubborn = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "work/r")],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    processes.append(stubborn)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    mark(ask, tmp_path / "work", "r", marks.process(stubborn.pid))
    assert ask(SweepJob(work_dir=str(tmp_path / "work"), remove=True)).remaining == ()
    assert stubborn.wait(5) == -signal.SIGKILL
    stubborn.stdout.close()


@pytest.mark.parametrize("path", ["/", "/tmp", "relative", "WORK", "WORK/..", "WORK/r/../../data"])
def test_a_damaged_marker_removes_nothing_that_it_should_not(
    ask: Any, tmp_path: Path, path: str
) -> None:
    work = tmp_path / "work"
    (tmp_path / "data").mkdir()
    mark(ask, work, "r", MadePath(path=path.replace("WORK", str(work))))
    with (work / "r" / marks.FILE).open("a") as file:
        file.write('{"kind":"path","pa')
    (work / "unmarked").mkdir()
    found = ask(SweepJob(work_dir=str(work), remove=True)).found
    assert found[0].paths == (str(work / "r"),)
    assert (work / "unmarked").is_dir()
    assert (tmp_path / "data").is_dir()


def test_a_link_is_removed_and_not_what_it_leads_to(ask: Any, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    (tmp_path / "link").symlink_to(kept)
    mark(ask, tmp_path / "work", "r", MadePath(path=str(tmp_path / "link")))
    ask(SweepJob(work_dir=str(tmp_path / "work"), remove=True))
    assert not (tmp_path / "link").is_symlink()
    assert (kept / "file").exists()


def test_facts(ask: Any, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("x")
    mark(ask, tmp_path / "work", "r", MadePath(path=str(full)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = ask(
            FactsJob(
                work_dir=str(tmp_path / "work"),
                directories=(str(full), str(tmp_path / "a" / "b")),
                ports=(("127.0.0.1", port), ("127.0.0.1", 0), ("203.0.113.1", 1)),
                tools=("tar", "/nonexistent/tool"),
            )
        )
    assert result.python == sys.version.split()[0]
    assert abs(result.time - time.time()) < 10
    assert (result.uid, result.cores) == (os.geteuid(), len(os.sched_getaffinity(0)))
    assert result.memory_bytes > 2**28
    exists, missing = result.directories
    assert (exists.exists, exists.empty, exists.writable) == (True, False, True)
    assert (missing.exists, missing.empty, missing.writable) == (False, True, True)
    assert missing.free_bytes > 0
    assert [entry.free for entry in result.ports] == [False, True, False]
    assert result.ports[0].reason == "Address already in use"
    tar, nothing = result.tools
    assert "tar" in tar.version
    assert (nothing.path, nothing.version) == (None, None)
    assert [left.rehearsal_id for left in result.leftovers] == ["r"]
    # Run with -S, the interpreter has no packages; modules are then reported as missing.
    assert result.modules == {"cryptography": None, "zstandard": None}


def test_probe(ask: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        endpoints = (
            server.getsockname()[:2],
            bound.getsockname()[:2],
            ("name.invalid", 1),
        )
        result = ask(ProbeJob(endpoints=endpoints, timeout=3.0))
    assert [entry.status for entry in result.endpoints] == ["open", "refused", "unreachable"]


@pytest.mark.parametrize("line", ["", "{", "{}", '{"job":"seal"}', '{"job":"none"}'])
def test_a_job_that_is_none_is_refused(helper: Path, line: str) -> None:
    argv = [sys.executable, str(helper)]
    ended = subprocess.run(argv, input=line.encode(), capture_output=True, timeout=60)
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["code"] == "internal"
    assert ended.stderr == b""
