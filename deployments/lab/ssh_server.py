"""SSH server of one host. Runs from the domain's own runtime, as the services' account.

    python3 ssh_server.py ADDRESS PORT HOST_KEY AUTHORIZED_KEYS

Public keys only, commands and SFTP only. A command runs under /bin/sh in the host's directory,
with the host's environment. When its channel or connection is gone before it has ended, it sees
the end of its input, and soon after its process group is killed; what put itself into a
session of its own (a database) stays.
"""

import asyncio
import os
import pwd
import signal
import sys
from asyncio.subprocess import PIPE, Process

import asyncssh

#: What a command may take to clean up once its connection is gone.
GRACE_SECONDS = 2.0
ACCOUNT = pwd.getpwuid(os.getuid()).pw_name
_CHUNK = 256 * 1024


class Door(asyncssh.SSHServer):
    """Lets in the account that the server runs as, by public key."""

    def __init__(self) -> None:
        self._known = False

    def begin_auth(self, username: str) -> bool:
        self._known = username == ACCOUNT
        return True

    def public_key_auth_supported(self) -> bool:
        return self._known

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return False


async def session(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    """Run one command for a client."""
    if process.command is None:
        process.stderr.write(b"this host runs commands, it has no shell\n")
        process.exit(1)
        return
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", process.command,
        stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True, limit=_CHUNK,
    )  # fmt: skip
    await process.redirect(child.stdin, child.stdout, child.stderr, bufsize=_CHUNK)
    done = asyncio.create_task(child.wait())
    gone = asyncio.create_task(process.channel.wait_closed())
    await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not done.done():
        await _abandon(child, done)
        return
    # As OpenSSH does: the session ends when nobody holds its output any more.
    drained = asyncio.create_task(process.stdout.drain())
    await asyncio.wait({drained, gone}, return_when=asyncio.FIRST_COMPLETED)
    status = child.returncode or 0
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


async def _abandon(child: Process, done: "asyncio.Task[int]") -> None:
    if child.stdin is not None:
        child.stdin.close()
    await asyncio.wait({done}, timeout=GRACE_SECONDS)
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def serve(address: str, port: int, host_key: str, authorized_keys: str) -> None:
    """Serve until killed."""
    async with asyncssh.listen(
        address,
        port,
        server_factory=Door,
        server_host_keys=[host_key],
        authorized_client_keys=authorized_keys,
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
        print(f"{ACCOUNT}@{address}:{port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
