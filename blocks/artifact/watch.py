"""The job `watch`: takes the calls that a packet filter redirects, and tells whose they were.

Standard library only, Linux only. The caller gets a reset and not one byte.
"""

import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from blocks.artifact.channel import Channel
from blocks.artifact.job import Caught, Listening, WatchJob, WatchResult

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


def _take(listener: socket.socket) -> Iterator[Caught]:
    """All calls that wait. Whose one is, is looked up while its socket is still open."""
    while True:
        try:
            connection, peer = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        with connection:
            called = _called(connection)
            if called != connection.getsockname()[:2]:  # else it was meant for us
                pid = _owner(peer[1], called)
                yield Caught(
                    at=time.time(),
                    address=called[0],
                    port=called[1],
                    pid=pid,
                    process=_command(pid),
                )
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _called(connection: socket.socket) -> tuple[str, int]:
    """Address and port that the caller meant; struct sockaddr_in or sockaddr_in6."""
    if connection.family == socket.AF_INET6:
        data = connection.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DESTINATION, 28)
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4], "big")
    data = connection.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DESTINATION, 16)
    return socket.inet_ntop(socket.AF_INET, data[4:8]), int.from_bytes(data[2:4], "big")


def _owner(port: int, called: tuple[str, int]) -> int | None:
    """The process whose socket has this local port and remote end; None if that cannot be seen."""
    inode = next(
        (
            row.inode
            for row in _sockets()
            if row.local_port == port and (str(row.remote), row.remote_port) == called
        ),
        None,
    )
    if inode in (None, "0"):
        return None
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):  # another account's, or gone
            if any(str(entry.readlink()) == f"socket:[{inode}]" for entry in folder.iterdir()):
                return int(folder.parent.name)
    return None


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
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None
    line = " ".join(word.decode("utf-8", "replace") for word in words if word)
    return (line or name)[:_PROCESS_LENGTH]
