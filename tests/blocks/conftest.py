"""A real SSH server (asyncssh: another implementation than the client's) in the test process."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from blocks.hosts import Host, LocalHost, SSHHost


class _Session(asyncssh.SSHServerProcess):  # type: ignore[type-arg]
    """A session as sshd has it: a command in a process group of its own, and its signals."""

    group: int | None = None

    def signal_received(self, name: str) -> None:
        self._send(getattr(signal, f"SIG{name}"))

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self.group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, number)


class _Server(asyncssh.SSHServer):
    """Remembers its connection, so that a test can break it."""

    def __init__(self, connections: list[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        self._connections.append(conn)

    def session_requested(self) -> Any:
        channel = self._conn.create_server_channel(encoding=None)
        return channel, _Session(_serve, asyncssh.SFTPServer, 3, False)


async def _serve(session: Any) -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", session.command),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,
    )
    session.group = child.pid
    feeding = asyncio.create_task(_pump(session.stdin, child.stdin))
    feeding.add_done_callback(lambda _: child.stdin and child.stdin.close())
    # Until its output has ended too, as sshd does.
    await asyncio.gather(_pump(child.stdout, session.stdout), _pump(child.stderr, session.stderr))
    code = await child.wait()
    feeding.cancel()
    if code < 0:
        session.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
    else:
        session.exit(code)


async def _pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()


@dataclass(frozen=True)
class SSHServer:
    """The server, the client's key and how to break it."""

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


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("client", "stranger"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        key.write_public_key(folder / f"{name}.pub")
    keys = [asyncssh.generate_private_key(kind) for kind in ("ecdsa-sha2-nistp256", "ssh-ed25519")]
    line = keys[1].export_public_key().decode().strip()
    connections: list[asyncssh.SSHServerConnection] = []
    loop = asyncio.new_event_loop()

    async def listen() -> Any:
        return await asyncssh.create_server(
            lambda: _Server(connections),
            "127.0.0.1",
            0,
            server_host_keys=keys,
            authorized_client_keys=str(folder / "client.pub"),
            password_auth=False,
        )

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    yield SSHServer(folder, server.get_port(), line, connections, loop)
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Every kind of host there is."""
    over_ssh = request.param == "ssh"
    host: Host = request.getfixturevalue("ssh_server").host() if over_ssh else LocalHost()
    yield host
    host.close()
