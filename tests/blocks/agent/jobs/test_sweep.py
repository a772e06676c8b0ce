"""What a host is, what answers from it, and what rehearsals left on it."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from blocks.agent import marks, origins, stamp, trust
from blocks.agent.channel import Channel
from blocks.agent.child import Child
from blocks.agent.jobs import sweep
from blocks.agent.protocol import from_line, to_line
from blocks.agent.protocol.events import Done, Event
from blocks.agent.protocol.jobs import ClaimJob, FactsJob, Job, NoteJob, ProbeJob, SweepJob
from blocks.agent.protocol.parts import MadePath, MadeProcess
from blocks.agent.protocol.results import ClaimResult, NoteResult, Result, SweepResult


@pytest.fixture
def ask(agent: Path) -> Any:
    """Runs a job that asks nothing: its input ends after the job."""

    def run(job: Job) -> Result:
        # -S: without the packages of the environment, which these jobs must not need
        argv = [sys.executable, "-S", str(agent)]
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


def mark(work: Path, name: str, *made: Any) -> Path:
    (work / name).mkdir(parents=True, mode=0o700)
    marks.note(work / name, made)
    return work / name


def claimed(
    ask: Any, work: Path, name: str, *directories: Path, port: int = 0, **told: Any
) -> ClaimResult:
    (work / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    job = ClaimJob(
        work_dir=str(work),
        rehearsal_id=name,
        token="t" + name,
        directories=tuple(map(str, directories)),
        ports=(("127.0.0.1", port),) if port else (),
        **told,
    )
    result = ask(job)
    assert isinstance(result, ClaimResult)
    return result


def sleeper(*words: str, cwd: Path | None = None) -> "subprocess.Popen[bytes]":
    script = "import time; time.sleep(1000)"
    return subprocess.Popen([sys.executable, "-c", script, *words], cwd=cwd)


def started(mark: str, cwd: Path) -> "subprocess.Popen[bytes]":
    """What a rehearsal started: it bears the stamp."""
    script = "import time; time.sleep(1000)"
    environment = os.environ | {stamp.VARIABLE: mark}
    return subprocess.Popen([sys.executable, "-c", script], cwd=cwd, env=environment)


def telling(data: Path, mark: str) -> "subprocess.Popen[bytes]":
    """A service that bears the stamp and tells the signal that ends it, in and beside `data`."""
    script = (
        "import signal, sys, time\n"
        "def end(number, frame):\n"
        "    for place in sys.argv[1:]:\n"
        "        open(f'{place}/ended', 'w').write(signal.Signals(number).name)\n"
        "    sys.exit()\n"
        "for name in ('SIGTERM', 'SIGINT', 'SIGQUIT'): signal.signal(getattr(signal, name), end)\n"
        "print(flush=True); time.sleep(1000)"
    )
    service = subprocess.Popen(
        [sys.executable, "-c", script, str(data), str(data.parent)],
        cwd=data,
        env=os.environ | {stamp.VARIABLE: mark},
        stdout=subprocess.PIPE,
    )
    assert service.stdout is not None
    service.stdout.readline()
    return service


def test_sweep_removes_what_bears_the_stamp_and_nothing_else(
    ask: Any, tmp_path: Path, processes: list[Any]
) -> None:
    work, data, other = tmp_path / "work", tmp_path / "data", tmp_path / "other"
    assert claimed(ask, work, "r1", data).refused == ""
    assert claimed(ask, work, "r2", other).refused == ""
    (data / "file").write_text("x")
    marker = work / "r1"
    server, agent, stranger = started("r1:tr1", data), sleeper(), started("r1:another", tmp_path)
    processes += [server, agent, stranger]
    noted = marks.process(agent.pid)
    start = marks.start_of(stranger.pid)
    assert noted is not None
    assert start is not None
    another = MadeProcess(pid=stranger.pid, start=start - 1, machine=marks.machine())
    since_booted = MadeProcess(pid=stranger.pid, start=start, machine="an-earlier-boot pid:[1]")
    marks.note(marker, [noted, another, since_booted])

    looked = ask(SweepJob(work_dir=str(work)))
    assert [left.rehearsal_id for left in looked.found] == ["r1", "r2"]
    assert looked.found == looked.remaining
    assert looked.found[0].paths == (str(data), str(marker))
    ours = {int(text.split(":")[0]) for text in looked.found[0].processes}
    assert ours == {server.pid, agent.pid}
    swept = ask(SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True))
    assert swept.remaining == ()
    assert not data.exists()
    assert not marker.exists()
    assert other.exists()
    assert not running(server)
    assert not running(agent)
    assert running(stranger)
    again = ask(SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True))
    assert again.found == again.remaining == ()


def test_directories_that_were_made_on_the_way_go_too(ask: Any, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    first, second = tmp_path / "site/a/b/data", tmp_path / "site/a/other/data"
    assert claimed(ask, tmp_path / "work", "r1", first, second).refused == ""
    (tmp_path / "site/a/other/of the site").write_text("x")
    ask(SweepJob(work_dir=str(tmp_path / "work"), rehearsal_id="r1", remove=True))
    left = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*")}
    assert left == {"a", "a/other", "a/other/of the site"}
    (tmp_path / "site/a/other/of the site").unlink()
    third = tmp_path / "site/new/data"
    assert claimed(ask, tmp_path / "work", "r2", third).refused == ""
    ask(SweepJob(work_dir=str(tmp_path / "work"), rehearsal_id="r2", remove=True))
    assert not third.parent.exists()


def test_what_a_killed_program_has_started_is_ended(ask: Any, tmp_path: Path) -> None:
    """A site's command is a shell with more below it; what it makes a service of is the site's."""
    marker = mark(tmp_path, "r")
    pids = tmp_path / "pids"
    command = (
        f"sleep 1000 & echo $! > {pids}; env -u {marks.VARIABLE} sleep 1001 & echo $! >> {pids};"
        f" sleep 0.3; setsid sh -c 'echo $$ >> {pids}; exec sleep 1002' & wait"
    )
    child = Child(["sh", "-c", command], marker=str(marker))
    while not pids.exists() or len(pids.read_text().split()) < 3:
        time.sleep(0.05)
    ours, cleared, service = map(int, pids.read_text().split())
    child.process.kill()
    child.process.wait()
    try:
        swept = ask(SweepJob(work_dir=str(tmp_path), rehearsal_id="r", remove=True))
        assert swept.remaining == ()
        assert [text.split(":")[0] for text in swept.found[0].processes] == [str(ours)]
        assert marks.look(ours) is None
        assert marks.look(cleared)
        assert marks.look(service)
    finally:
        for pid in (cleared, service):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("cleared", ["whole", "contents", "copied back", "contents kept"])
def test_a_live_cluster_in_the_place_of_what_was_made_is_left_alone(
    ask: Any, tmp_path: Path, processes: list[Any], cleared: str
) -> None:
    work, data = tmp_path / "work", tmp_path / "data"
    assert claimed(ask, work, "r", data).refused == ""
    if cleared == "whole":
        shutil.rmtree(data)
        data.mkdir()
    elif cleared == "contents":
        (data / stamp.FILE).unlink()
    elif cleared == "copied back":
        shutil.copytree(data, tmp_path / "copy")
        shutil.rmtree(data)
        (tmp_path / "copy").rename(data)
    (data / "precious").write_text("x")
    live = sleeper(cwd=data)
    processes.append(live)
    (data / "postmaster.pid").write_text(f"{live.pid}\n")
    swept = ask(SweepJob(work_dir=str(work), remove=True))
    assert str(data) in swept.found[0].left_alone[0]
    assert running(live)
    assert (data / "precious").exists()
    if cleared == "contents kept":
        # The restored data is still in use: the fence and the marker must stay.
        (left,) = swept.remaining
        assert [text.split(":")[0] for text in left.processes] == [str(live.pid)]
        assert (work / "r" / marks.FILE).stat().st_size
    else:
        assert swept.remaining == ()


def test_children_that_outlive_their_server_for_a_moment_are_no_strangers(
    ask: Any, tmp_path: Path, processes: list[Any]
) -> None:
    """As a database's do, whose titles have been written over the stamp."""
    work, data = tmp_path / "work", tmp_path / "data"
    assert claimed(ask, work, "r", data).refused == ""
    child = "import os, time\nwhile os.getppid() != 1: time.sleep(0.05)\ntime.sleep(1)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], env={{}})"
    server = subprocess.Popen(
        [sys.executable, "-c", script], cwd=data, env=os.environ | {stamp.VARIABLE: "r:tr"}
    )
    processes.append(server)
    time.sleep(1)
    swept = ask(SweepJob(work_dir=str(work), rehearsal_id="r", processes_only=True))
    assert [left.processes for left in swept.remaining] == [()]
    assert not running(server)


@pytest.mark.parametrize(
    ("told", "by"),
    [({}, "SIGTERM"), ({"ended_by": "SIGQUIT"}, "SIGQUIT"), ({"ended_by": "SIGINT"}, "SIGINT")],
)
def test_a_service_is_ended_by_its_own_signal(
    ask: Any, tmp_path: Path, processes: list[Any], told: dict[str, Any], by: str
) -> None:
    """A server of PostgreSQL ends at once at one that has others write a core file."""
    work, data = tmp_path / "work", tmp_path / "data"
    assert claimed(ask, work, "r", data, **told).refused == ""
    processes.append(telling(data, "r:tr"))
    assert ask(SweepJob(work_dir=str(work), processes_only=True)).remaining[0].processes == ()
    assert (data / "ended").read_text() == by


def test_a_marker_that_names_no_signal(ask: Any, tmp_path: Path, processes: list[Any]) -> None:
    """An earlier farside left it, and sent SIGQUIT to all that it had started."""
    work, data = tmp_path / "work", tmp_path / "data"
    assert claimed(ask, work, "r", data).refused == ""
    made = work / "r" / marks.FILE
    lines = [json.loads(line) for line in made.read_text().splitlines()]
    assert any(line.pop("ended_by", None) for line in lines)
    made.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    processes.append(telling(data, "r:tr"))
    assert ask(SweepJob(work_dir=str(work), remove=True)).remaining == ()
    assert (tmp_path / "ended").read_text() == "SIGQUIT"


def noting(ask: Any, work: Path, data: Path) -> str:
    job = NoteJob(
        work_dir=str(work), rehearsal_id="r", directory=str(data), pidfile=str(data / "pid")
    )
    result = ask(job)
    assert isinstance(result, NoteResult)
    return result.refused


def test_a_service_that_writes_over_its_environment_is_known_by_its_pidfile(
    ask: Any, tmp_path: Path, processes: list[Any]
) -> None:
    """As Redis does, to show a title."""
    work, data = tmp_path / "work", tmp_path / "data"
    older = sleeper(cwd=tmp_path)
    processes.append(older)
    time.sleep(1.5)
    assert claimed(ask, work, "r", data).refused == ""
    assert "holds no process id" in noting(ask, work, data)
    (data / "pid").write_text(f"{older.pid}\n")
    assert "ran before the restore" in noting(ask, work, data)
    service = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(1000)"], cwd=data, env={}
    )
    processes.append(service)
    (data / "pid").write_text(f"{service.pid}\n")
    assert noting(ask, work, data) == ""
    swept = ask(SweepJob(work_dir=str(work), remove=True))
    assert swept.remaining == ()
    assert not running(service)
    assert running(older)
    assert not data.exists()


def test_what_is_mounted_in_what_was_made_stays(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that a restore mounts, a disk for a dump: removal would go through it."""
    work, data = tmp_path / "work", tmp_path / "data"
    assert claimed(ask, work, "r1", data).refused == ""
    share = data / "share"
    share.mkdir()
    (share / "precious").write_text("somebody's")
    here = origins.Mount("0:9", "/x", str(share), "ext4", "/dev/sdb1", "rw")
    monkeypatch.setattr(origins, "mounts", lambda: (here,))
    job = SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True)
    (left,) = sweep.run(job, Channel.__new__(Channel)).remaining
    assert left.left_alone == (f"{data}: {share} is mounted there: what it holds is not ours",)
    assert (share / "precious").exists()
    beside = origins.Mount("0:9", "/x", f"{data}-2", "ext4", "/dev/sdb1", "rw")
    monkeypatch.setattr(origins, "mounts", lambda: (beside,))
    sweep.run(job, Channel.__new__(Channel))
    assert not data.exists()


def test_a_target_is_claimed_once(ask: Any, tmp_path: Path) -> None:
    work, data, found = tmp_path / "work", tmp_path / "a" / "data", tmp_path / "found"
    found.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "port" in claimed(ask, work, "r0", data, port=port).refused
    assert not data.exists()
    assert not (work / "r0" / marks.FILE).exists()
    assert claimed(ask, work, "r1", data, found, port=port).refused == ""
    assert "not empty" in claimed(ask, work, "r2", data).refused
    assert "taken by r1" in claimed(ask, work, "r2", tmp_path / "b", port=port).refused
    assert not (tmp_path / "b").exists()
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("x")
    assert "not empty" in claimed(ask, work, "r3", tmp_path / "c", full).refused
    assert not (tmp_path / "c").exists()
    assert [path.name for path in full.iterdir()] == ["file"]
    assert ask(SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True)).remaining == ()
    assert not data.exists()
    assert list(found.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "source"), [("nfs4", "nas:/home"), ("fuse.sshfs", "a@b:/c"), ("cifs", "//nas/x")]
)
def test_a_directory_that_machines_share_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, source: str
) -> None:
    """Teardown of one host would remove the marks of the others: what they made would stay."""
    here = origins.Mount("0:9", "/", str(tmp_path), kind, source, "rw")
    rest = (origins.Mount("8:1", "/", "/", "ext4", "/dev/sda1", "rw"),)
    work = tmp_path / "work"
    mark(work, "r1")
    trust.check(work)
    monkeypatch.setattr(origins, "mounts", lambda: (*rest, here))
    with pytest.raises(trust.Untrusted, match=f"{work} is on a network file system, of {source}"):
        sweep.leftovers(work)
    local = origins.Mount("0:10", "/", str(work), "ext4", "/dev/sdb1", "rw")
    monkeypatch.setattr(origins, "mounts", lambda: (*rest, here, local))
    trust.check(work)


def test_on_a_source_host_nothing_outside_the_own_directory_is_removed(
    ask: Any, tmp_path: Path
) -> None:
    work, data = tmp_path / "work", tmp_path / "data"
    assert claimed(ask, work, "r", data).refused == ""
    assert ask(SweepJob(work_dir=str(work), remove=True, own_only=True)).remaining == ()
    assert data.exists()
    assert not (work / "r").exists()


def test_a_torn_line_does_not_take_the_next_entry_along(tmp_path: Path) -> None:
    marks.note(tmp_path, [MadePath(path="/a/b/c")])
    with (tmp_path / marks.FILE).open("a") as file:
        file.write('{"kind":"path","pa')
    marks.note(tmp_path, [MadePath(path="/d/e/f")])
    assert marks.read(tmp_path) == [MadePath(path="/a/b/c"), MadePath(path="/d/e/f")]


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
    mark(tmp_path / "work", "r", marks.process(stubborn.pid))
    assert ask(SweepJob(work_dir=str(tmp_path / "work"), remove=True)).remaining == ()
    assert stubborn.wait(5) == -signal.SIGKILL
    stubborn.stdout.close()


@pytest.mark.parametrize("path", ["/", "/tmp", "relative", "WORK", "WORK/..", "WORK/r/../../data"])
def test_a_damaged_marker_removes_nothing_that_it_should_not(
    ask: Any, tmp_path: Path, path: str
) -> None:
    work = tmp_path / "work"
    (tmp_path / "data").mkdir()
    mark(work, "r", MadePath(path=path.replace("WORK", str(work))))
    with (work / "r" / marks.FILE).open("a") as file:
        file.write('{"kind":"path","pa')
    (work / "unmarked").mkdir()
    found = ask(SweepJob(work_dir=str(work), remove=True)).found
    assert found[0].paths == (str(work / "r"),)
    assert (work / "unmarked").is_dir()
    assert (tmp_path / "data").is_dir()


def test_facts(ask: Any, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("x")
    mark(tmp_path / "work", "r", MadePath(path=str(full)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = ask(
            FactsJob(
                work_dir=str(tmp_path / "work"),
                directories=(str(full), str(tmp_path / "a" / "b")),
                ports=(("127.0.0.1", port), ("127.0.0.1", 0), ("203.0.113.1", 1)),
                tools=("tar", "/nonexistent/tool"),
                version_words={"tar": "--version"},
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
    assert [entry.status for entry in result.endpoints] == ["open", "refused", "unknown"]


@pytest.mark.parametrize("line", ["", "{", "{}", '{"job":"seal"}', '{"job":"none"}'])
def test_a_job_that_is_none_is_refused(agent: Path, line: str) -> None:
    argv = [sys.executable, str(agent)]
    ended = subprocess.run(argv, input=line.encode(), capture_output=True, timeout=60)
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["code"] == "internal"
    assert ended.stderr == b""


def test_a_directory_that_was_there_is_left_as_it_was_found(tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    found.chmod(0o2775)
    made = stamp.take(found, "r1:token")
    assert found.stat().st_mode & 0o7777 == 0o700
    (found / "base").mkdir()
    stamp.remove(made)
    assert found.stat().st_mode & 0o7777 == 0o2775
    assert list(found.iterdir()) == []


class _BrokenOff(BaseException):
    """The machine has stopped."""


@pytest.mark.parametrize("place", ["made", "found"])
def test_a_removal_that_is_broken_off_is_done_again(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """After whatever it has removed last, what is left is known as the rehearsal's."""
    for steps in range(60):
        work, data = tmp_path / str(steps) / "work", tmp_path / str(steps) / "data"
        if place == "found":
            data.mkdir(parents=True)
        assert claimed(ask, work, "r1", data).refused == ""
        for name in ("base/1/2", "base/3", "wal", "zzz"):
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).write_text("x")
        (work / "r1" / "child").mkdir()
        (work / "r1" / "log").write_text("x")
        done = _stop_after(steps, work, monkeypatch)
        swept = ask(SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True))
        assert swept.remaining == ()
        assert not (work / "r1").exists(), steps
        assert data.exists() is (place == "found"), steps
        assert not data.exists() or list(data.iterdir()) == []
        if done:
            return
    raise AssertionError("the removal has no end")


def _stop_after(steps: int, work: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Sweep, and break off at the step after so many; whether it came to its end."""
    left = steps

    def counted(do: Any) -> Any:
        def remove(*words: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                raise _BrokenOff
            left -= 1
            return do(*words, **more)

        return remove

    with monkeypatch.context() as patched:
        for name in ("unlink", "rmdir"):
            patched.setattr(os, name, counted(getattr(os, name)))
        job = SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True)
        try:
            sweep.run(job, cast("Any", None))
        except _BrokenOff:
            return False
    return True


def test_what_cannot_be_removed_is_left_for_the_next_sweep(ask: Any, tmp_path: Path) -> None:
    """Something writes there again meanwhile, say: it stays known as the rehearsal's."""
    work, data = tmp_path / "work", tmp_path / "data"
    assert claimed(ask, work, "r1", data).refused == ""
    (data / "base").mkdir()
    job = SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        (left,) = sweep.run(job, cast("Any", None)).remaining
    assert str(data) in left.paths
    assert ask(job).remaining == ()
    assert not data.exists()


def test_sweeps_at_the_same_time(ask: Any, tmp_path: Path) -> None:
    """As of a guard and of `flows.sweep`: none fails, and none ends before all is gone."""
    work, names = tmp_path / "work", [f"r{number}" for number in range(20)]
    for name in names:
        data = tmp_path / name
        assert claimed(ask, work, name, data).refused == ""
        for number in range(200):
            (data / str(number)).touch()

    def swept(name: str) -> SweepResult:
        job = SweepJob(work_dir=str(work), rehearsal_id=name, remove=True)
        return sweep.run(job, Channel.__new__(Channel))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(swept, [name for name in names for _ in range(4)]))
    assert [left for result in results for left in result.remaining] == []
    assert not any((tmp_path / name).exists() for name in names)


def test_what_another_sweep_holds_is_left_to_it(
    ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang: nothing is done beside it, and what is there is said."""
    work, data = tmp_path / "work", tmp_path / "data"
    assert claimed(ask, work, "r1", data).refused == ""
    monkeypatch.setattr(sweep, "_OTHERS", 0.2)
    job = SweepJob(work_dir=str(work), rehearsal_id="r1", remove=True)
    other = os.open(work / "r1", os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        (left,) = sweep.run(job, Channel.__new__(Channel)).remaining
    finally:
        os.close(other)
    assert str(data) in left.paths
    assert data.exists()
    assert sweep.run(job, Channel.__new__(Channel)).remaining == ()
    assert not data.exists()
