"""SSH server of one host. Runs from the domain's own runtime, as the services' account.

    python3 ssh_server.py ADDRESS PORT HOST_KEY AUTHORIZED_KEYS

Public keys only, commands and SFTP only. A command runs under /bin/sh in the host's directory,
with the host's environment. When its channel or connection is gone before it has ended, it sees
the end of its input, and soon after its process group is killed; what put itself into a
session of its own (a database) stays.
"""

import asyncio
import contextlib
import logging
import os
import pwd
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

import asyncssh

#: What a command may take to clean up once its connection is gone.
GRACE_SECONDS = 2.0
#: The host's environment: not what the interpreter needed to find its library.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
ACCOUNT = pwd.getpwuid(os.getuid()).pw_name
_CHUNK = 256 * 1024


class Door(asyncssh.SSHServer):
    """Lets in the account that the server runs as, by public key."""

    def __init__(self, authorized_keys: str) -> None:
        self._authorized_keys = authorized_keys
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: "asyncssh.SSHServerConnection") -> None:
        """Keep the connection of a client. See asyncssh.SSHServer."""
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        """Let in the one account, by its keys. See asyncssh.SSHServer."""
        if username == ACCOUNT and self._connection:
            self._connection.set_authorized_keys(self._authorized_keys)
        return True

    def password_auth_supported(self) -> bool:
        """No: only keys are. See asyncssh.SSHServer."""
        return False

    def kbdint_auth_supported(self) -> bool:
        """No: only keys are. See asyncssh.SSHServer."""
        return False


async def session(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    """Run one command for a client."""
    if process.command is None:
        process.stderr.write(b"this host runs commands, it has no shell\n")
        process.exit(1)
        return
    child = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", process.command),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
        env=ENVIRONMENT,
    )
    assert child.stdin
    assert child.stdout
    assert child.stderr
    given = asyncio.create_task(feed(process.stdin, child.stdin))
    # As OpenSSH does: a session ends when nobody holds its output any more.
    ended = asyncio.gather(
        relay(child.stdout, process.stdout), relay(child.stderr, process.stderr), child.wait()
    )
    gone = asyncio.create_task(process.channel.wait_closed())
    tasks: list[asyncio.Future[Any]] = [ended, gone, given]
    await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
    if ended.done() and not ended.exception():
        finish(process, child)
    elif child.returncode is None:
        await abandon(child)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def relay(source: asyncio.StreamReader, target: "asyncssh.SSHWriter[bytes]") -> None:
    """Pass a command's output on, no faster than the client takes it."""
    while data := await source.read(_CHUNK):
        target.write(data)
        await target.drain()


async def feed(source: "asyncssh.SSHReader[bytes]", target: asyncio.StreamWriter) -> None:
    """Pass the client's input on, and its end, which a lost connection is as well."""
    try:
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
    except (ConnectionError, asyncssh.Error):
        pass  # the command does not read on, or the client is gone
    finally:
        target.close()


def finish(process: "asyncssh.SSHServerProcess[bytes]", child: Process) -> None:
    """Tell the client how its command ended."""
    status = child.returncode or 0
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


async def abandon(child: Process) -> None:
    """Nobody waits for the command any more: let it clean up, then kill what is left of it."""
    assert child.stdin
    child.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


async def serve(address: str, port: int, host_key: str, authorized_keys: str) -> None:
    """Serve until killed."""
    async with asyncssh.listen(
        address,
        port,
        server_factory=lambda: Door(authorized_keys),
        server_host_keys=[host_key],
        process_factory=session,
        sftp_factory=True,
        allow_scp=False,
        encoding=None,
        allow_pty=False,
        agent_forwarding=False,
        x11_forwarding=False,
        keepalive_interval=15,
        reuse_address=True,
        server_version="farside-lab",
    ):
        print(f"{ACCOUNT}@{address}:{port}", flush=True)  # noqa: T201 (a process of the lab: this is its log)
        await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
