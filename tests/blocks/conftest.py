"""A real SSH server (asyncssh: another implementation than the client's) and a real S3 server."""

import asyncio
import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost
from blocks.stores.s3 import S3Store


class _Session(asyncssh.SSHServerProcess):  # type: ignore[type-arg]
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
        return channel, _Session(_serve, cast("Any", asyncssh.SFTPServer), 3, False)


def _end(pipe: asyncio.StreamWriter | None) -> None:
    if pipe is not None:
        pipe.close()


async def _serve(session: Any) -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", _Session.greeting + session.command),
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


@dataclass(frozen=True)
class S3Server:
    """`rclone serve s3` over TLS, and the directory that it serves."""

    folder: Path
    port: int

    def store(self, **changes: object) -> S3Store:
        """A store with the right settings, but for `changes`."""
        settings: dict[str, object] = {
            "endpoint": f"https://127.0.0.1:{self.port}",
            "bucket": "one",
            "ca_file": self.folder / "certificate.pem",
            "credentials_file": self.folder / "credentials",
            "profile": "tester",
        }
        return S3Store(**(settings | changes))


def _certificate(folder: Path, name: str = "") -> None:
    """A certificate of its own authority, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test store")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / f"{name}certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / f"{name}key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    _certificate(folder)
    _certificate(folder, "other-")
    access, secret = "tester-key", "a/secret+with=signs"
    (folder / "credentials").write_text(
        f"[tester]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
        f"[stranger]\naws_access_key_id = {access}\naws_secret_access_key = wrong\n"
    )
    for bucket in ("one", "two"):
        (folder / "data" / bucket).mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rclone = shutil.which("rclone")
    assert rclone, "install the extra `lab`"
    command = [rclone, "serve", "s3", f"--addr=127.0.0.1:{port}", "--etag-hash="]
    command += [f"--cert={folder}/certificate.pem", f"--key={folder}/key.pem", f"{folder}/data"]
    environment = {"RCLONE_CONFIG": "/dev/null", "RCLONE_AUTH_KEY": f'"{access},{secret}"'}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | environment, stderr=log)
    try:
        _wait_for(port, server)
        yield S3Server(folder, port)
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail("the S3 server did not start")
