"""A host that hangs in the middle of anything: every call ends by its own time limit."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest

from blocks.errors import TransientError
from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost
from tests import servers
from tests.conftest import missing

PATIENCE = 20.0
"""Seconds in which a call with a limit of one or two must have ended, on a busy machine."""


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARSIDE_CONNECT_SECONDS", "3")
    monkeypatch.setattr("blocks.hosts.ssh.FILE_SECONDS", 1.0)
    monkeypatch.setattr("blocks.hosts.host.WHOLE_FILE_SECONDS", 2.0)
    monkeypatch.setattr("blocks.hosts.ssh_process.WRITE_SECONDS", 1.0)
    monkeypatch.setattr("blocks.hosts.process.EXIT_GRACE_SECONDS", 1.0)


@dataclass(frozen=True)
class Daemon:
    """OpenSSH's server, and a host that is reached through it."""

    process: "subprocess.Popen[bytes]"
    settings: dict[str, Any]

    def host(self) -> SSHHost:
        return SSHHost(**self.settings)

    def everyone(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The server, and all that serves a connection, hangs meanwhile."""
        stopped = self.everyone()
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):  # of a connection that ends just now
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists() or os.geteuid() != 0:
        missing("sshd, as root")
    Path("/run/sshd").mkdir(exist_ok=True)
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o700)
    servers.ssh_keys(folder, "client", "server")
    port = servers.free_port()
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/server\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/client.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", folder / "config"], stderr=log)
    try:
        servers.await_port(port, process, folder / "log")
        settings = {
            "name": "box",
            "address": "127.0.0.1",
            "port": port,
            "user": "root",
            "identity_file": folder / "client",
            "host_key": (folder / "server.pub").read_text().strip(),
        }
        yield Daemon(process, settings)
    finally:
        for item in [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                item.kill()
        process.wait()


def ends(call: Callable[[], object]) -> None:
    """The call fails, transiently, within its limit."""
    began = time.monotonic()
    with pytest.raises(TransientError):
        call()
    assert time.monotonic() - began < PATIENCE


CALLS: dict[str, Callable[[Host, str], object]] = {
    "run": lambda host, _: host.run(["true"], timeout=2),
    "start": lambda host, _: host.start(["true"]),
    "put": lambda host, folder: host.put(b"x" * 100_000, f"{folder}/file"),
    "get": lambda host, _: host.get("/etc/passwd"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("connected", [False, True])
def test_a_host_that_hangs(sshd: Daemon, tmp_path: Path, call: str, *, connected: bool) -> None:
    host = sshd.host()
    if connected:
        assert host.run(["echo", "here"]).text == "here"
    with sshd.stopped():
        ends(lambda: CALLS[call](host, str(tmp_path)))
        host.close()
    # What it was then asked for was not left in a state in which nothing works any more.
    assert host.run(["echo", "again"], timeout=30).text == "again"
    host.close()


def test_a_host_that_hangs_while_a_command_runs(sshd: Daemon) -> None:
    host = sshd.host()
    running = host.start(["sleep", "60"])
    reading = host.start(["cat"])
    with sshd.stopped():
        ends(lambda: running.wait(1))
        ends(lambda: reading.write(b"x" * (16 << 20)))
        ends(lambda: next(running.lines(idle=0.5)))
        began = time.monotonic()
        running.close()
        reading.kill()
        host.close()
        assert time.monotonic() - began < PATIENCE


class Mute(asyncssh.SSHServerSession):  # type: ignore[type-arg]
    """A session that opens and then hangs, with the whole server, at the first request."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def exec_requested(self, command: str) -> bool:  # noqa: ARG002 (asyncssh's own)
        self._gate.wait(60)
        return True

    def subsystem_requested(self, subsystem: str) -> bool:  # noqa: ARG002 (asyncssh's own)
        self._gate.wait(60)
        return True


@pytest.fixture
def mute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHHost]:
    """A host whose server hangs when a channel is open already: in PAM, or in a tarpit."""
    gate = threading.Event()
    with servers.ssh(tmp_path_factory.mktemp("mute"), lambda _: Mute(gate)) as server:
        host = server.host()
        try:
            yield host
        finally:
            gate.set()
            host.close()


@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_hangs_once_the_channel_is_open(
    mute: SSHHost, tmp_path: Path, call: str
) -> None:
    ends(lambda: CALLS[call](mute, str(tmp_path)))


def test_a_file_that_never_ends_is_given_up(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    try:
        ends(lambda: LocalHost().get(str(fifo)))
    finally:
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


def test_the_time_limit_of_a_command_counts_from_its_start() -> None:
    began = time.monotonic()
    ends(lambda: LocalHost().run(["sleep", "60"], timeout=1))
    assert time.monotonic() - began < PATIENCE


def test_a_signal_ends_the_wait_and_what_was_started_is_killed() -> None:
    """The orchestrator is interrupted while a command starts: nothing of it goes on."""
    from blocks.limits import within

    gate, discarded = threading.Event(), threading.Event()

    def call() -> str:
        gate.wait(30)
        return "a process"

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        within(30, call, late=TimeoutError, discard=lambda _: discarded.set())
    gate.set()
    assert discarded.wait(10)
