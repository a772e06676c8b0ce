"""The job `watch`: takes the calls that a packet filter redirects, and tells whose they were.

Standard library only, Linux only. The caller gets a reset and not one byte.
"""

import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from blocks.agent.channel import Channel
from blocks.agent.protocol.events import Caught, Listening
from blocks.agent.protocol.jobs import WatchJob
from blocks.agent.protocol.results import WatchResult
from blocks.agent.redaction import command_of

_POLL_SECONDS = 0.2
_BACKLOG = 128
_PROCESS_LENGTH = 300
_RESET = struct.pack("ii", 1, 0)
_ORIGINAL_DESTINATION = 80  # SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST

_Address = IPv4Address | IPv6Address


def run(_job: WatchJob, channel: Channel) -> WatchResult:
    """Listens on both loopback addresses, at one port, until told to stop. Raises OSError."""
    listeners, caught = _listen(), 0
    selector = selectors.DefaultSelector()
    for listener in listeners:
        selector.register(listener, selectors.EVENT_READ)
    channel.tell(Listening(port=listeners[0].getsockname()[1]))
    while not channel.stop.is_set():
        for key, _ in selector.select(_POLL_SECONDS):
            assert isinstance(key.fileobj, socket.socket)
            for call in _take(key.fileobj):
                channel.tell(call)
                caught += 1
    return WatchResult(caught=caught)


def _listen() -> list[socket.socket]:
    first = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    listeners = [first]
    with suppress(OSError):  # a host may have no IPv6
        address = ("::1", first.getsockname()[1])
        second = socket.create_server(address, family=socket.AF_INET6, backlog=_BACKLOG)
        listeners.append(second)
    for listener in listeners:
        listener.setblocking(False)
    return listeners


def _take(listener: socket.socket) -> list[Caught]:
    """All calls that wait. Whose they are is looked up, at once, while their sockets are open."""
    calls, connections = [], []
    while True:
        try:
            connection, peer = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            break
        connections.append(connection)
        called = _called(connection)
        if called is not None and called != connection.getsockname()[:2]:
            calls.append(_Call(time.monotonic(), peer[1], *called))
    owners = _owners(calls)
    caught = [
        Caught(
            seconds_ago=time.monotonic() - call.at,
            address=call.address,
            port=call.port,
            pid=owners.get(call),
            process=_command(owners.get(call)),
        )
        for call in calls
    ]
    # Not before: who is hung up on may end, and nobody can tell any more who it was.
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.close()
    return caught


@dataclass(frozen=True, slots=True)
class _Call:
    """From a local port to an address and port that somebody else has."""

    at: float
    local_port: int
    address: str
    port: int


def _called(connection: socket.socket) -> tuple[str, int] | None:
    """Address and port that the caller meant (struct sockaddr_in or sockaddr_in6), if not ours."""
    with suppress(OSError):  # nobody redirected it
        return _original(connection)
    return None


def _original(connection: socket.socket) -> tuple[str, int]:
    if connection.family == socket.AF_INET6:
        data = connection.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DESTINATION, 28)
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big")
    data = connection.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DESTINATION, 16)
    return socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4], "big")


def _owners(calls: list[_Call]) -> dict[_Call, int]:
    """The processes whose sockets have these ends, as far as that can be seen.

    Where a child has inherited one, the parent that opened it is named: it has the lower id.
    """
    sockets = {
        (row.local_port, str(row.remote), row.remote_port): f"socket:[{row.inode}]"
        for row in _sockets()
    }
    wanted = {
        link: call
        for call in calls
        if (link := sockets.get((call.local_port, call.address, call.port)))
    }
    owners: dict[_Call, int] = {}
    for pid in sorted(int(path.name) for path in Path("/proc").glob("[0-9]*")) if wanted else ():
        with suppress(OSError):  # another account's, or gone
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                if call := wanted.get(str(entry.readlink())):
                    owners.setdefault(call, pid)
    return owners


class _Row:
    """A line of /proc/net/tcp: the socket that a program has."""

    def __init__(self, line: str) -> None:
        fields = line.split()
        self.local_port = int(fields[1].rpartition(":")[2], 16)
        remote, _, port = fields[2].rpartition(":")
        self.remote, self.remote_port = _address(remote), int(port, 16)
        self.inode = fields[9]


def _sockets() -> Iterator[_Row]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            yield from map(_Row, Path("/proc/net", name).read_text().splitlines()[1:])


def _address(text: str) -> _Address:
    """Hexadecimal words in the host's order; an IPv4 address inside IPv6 is an IPv4 address."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ip_address(struct.pack(f"={len(words)}I", *words))
    return getattr(address, "ipv4_mapped", None) or address


def _command(pid: int | None) -> str | None:
    if pid is None:
        return None
    try:
        # One that ends at this moment has no words any more: it cannot be told who it was.
        return command_of(pid)[:_PROCESS_LENGTH] or None
    except OSError:
        return None
