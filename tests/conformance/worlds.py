"""What the suites ask of a store, a vault and a fence that they run over."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from blocks.fences.fence import Fence, Gap
from blocks.hosts.ssh import SSHHost
from blocks.stores.store import ObjectStore
from blocks.vaults.vault import KeyVault
from deployments.lab import namespaces


@dataclass(frozen=True, slots=True)
class StoreUnderTest:
    """A store, empty, and others that differ from it in one thing."""

    store: ObjectStore
    folder: Callable[[str], ObjectStore]
    """The same bucket, below another prefix."""
    no_bucket: ObjectStore
    untrusted: ObjectStore
    """Its certificate is of an authority that is not trusted."""
    unreachable: ObjectStore
    refused: ObjectStore | None
    """With wrong credentials; None where the service lets everyone in, as moto does."""
    fails_at_aborted_uploads: bool = False
    """moto answers with HTTP 500 to what AWS says of an upload that is gone (NoSuchUpload)."""


@dataclass(frozen=True, slots=True)
class VaultUnderTest:
    """A vault, empty, and how its owner puts a secret there."""

    vault: KeyVault
    keep: Callable[[str, bytes], None]


@dataclass(frozen=True, slots=True)
class FenceUnderTest:
    """A fence that is down, and what it stands between."""

    make: Callable[[], Fence]
    """The fence, as a process knows it that has just begun."""
    gap: Gap
    call: Callable[[], bool]
    """A call to the source from a recovery host; whether it answered."""


SOURCE = "203.0.113.5"
PORT = 5432
_BANNER = "here is the source"
_SERVER = f"""
import socket
server = socket.create_server(("{SOURCE}", {PORT}))
print("ready", flush=True)
while True:
    server.accept()[0].sendall(b"{_BANNER}\\n")
"""


def call(host: SSHHost) -> bool:
    """Call the source from the recovery host; whether it answered."""
    script = f"exec 3<>/dev/tcp/{SOURCE}/{PORT} && timeout 2 head -n1 <&3"
    return host.run(["bash", "-c", script], check=False).text == _BANNER


@contextmanager
def two_namespaces(folder: Path) -> Iterator[tuple[str, SSHHost]]:
    """A recovery host with OpenSSH's sshd, and a source that answers: a network namespace each.

    Yields the name of the host's namespace, and the host.
    """
    prefix, number = f"fence-{os.getpid()}", os.getpid() % 60
    west, east, port = f"{prefix}-west", f"{prefix}-east", f"fence{number}"
    here, there = f"198.51.100.{4 * number + 1}", f"198.51.100.{4 * number + 2}"
    try:
        for name in (west, east):
            _ip("netns", "add", name)
            _ip("-netns", name, "link", "set", "lo", "up")
        _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", west)
        _ip("address", "add", f"{here}/30", "dev", port)
        _ip("link", "set", port, "up")
        _ip("-netns", west, "address", "add", f"{there}/30", "dev", "eth0")
        _ip("-netns", west, "link", "set", "eth0", "up")
        _ip("link", "add", "wan", "netns", west, "type", "veth", "peer", "wan", "netns", east)
        for name, own in ((west, "192.0.2.1"), (east, "192.0.2.2")):
            _ip("-netns", name, "address", "add", f"{own}/30", "dev", "wan")
            _ip("-netns", name, "link", "set", "wan", "up")
        _ip("-netns", east, "address", "add", f"{SOURCE}/32", "dev", "lo")
        _ip("-netns", east, "route", "add", "default", "via", "192.0.2.1")
        _ip("-netns", west, "route", "add", SOURCE, "via", "192.0.2.2")
        answering = (*namespaces.entered(east, None), sys.executable, "-c", _SERVER)
        with subprocess.Popen(answering, stdout=subprocess.PIPE) as source:
            assert source.stdout is not None
            assert source.stdout.readline() == b"ready\n"
            host = _sshd(folder, west, there)
            yield west, host
            host.close()
            source.kill()
    finally:
        namespaces.remove(prefix)
        with suppress(subprocess.CalledProcessError):  # it may have gone with its namespace
            _ip("link", "delete", port)


def _ip(*words: str) -> None:
    subprocess.run([namespaces.tool("ip"), *words], check=True, capture_output=True)


def _sshd(folder: Path, namespace: str, address: str) -> SSHHost:
    """Start sshd in a namespace, where it ends with all that runs there."""
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("client", "server"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / name)
        key.write_public_key(folder / f"{name}.pub")
        (folder / name).chmod(0o600)
    (folder / "config").write_text(
        f"ListenAddress {address}:22\nHostKey {folder}/server\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/client.pub\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    enter = namespaces.entered(namespace, None)
    with (folder / "log").open("wb") as log:
        argv = [*enter, namespaces.tool("sshd"), "-D", "-e", "-f", str(folder / "config")]
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
    give_up = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((address, 22), 1).close()
            break
        except OSError:
            assert time.monotonic() < give_up, (folder / "log").read_text()
            time.sleep(0.05)
    return SSHHost(
        name="db1",
        address=address,
        user="root",
        identity_file=folder / "client",
        host_key=(folder / "server.pub").read_text().strip(),
        work_dir=str(folder / "work"),
        python=sys.executable,
    )
