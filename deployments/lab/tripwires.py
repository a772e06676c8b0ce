"""Listens where a lost domain listened, and records who still calls there.

    python3 tripwires.py CONFIGURATION

Each attempt is one JSON line: at, host and address and port that were called, peer, pid and
process. The caller gets a reset and not one byte: that tells a tripwire from a living service.
Started before the domain is killed, it takes each address the moment it becomes free.
"""

import ctypes
import errno
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import psutil

from blocks.agent.redaction import redacted_command

BIND_SECONDS = 10.0
_RETRY_SECONDS = 0.005
_BACKLOG = 128
_PROCESS_LENGTH = 300
_RESET = struct.pack("ii", 1, 0)
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Wire:
    """An address that is watched, in a network namespace or in the caller's own.

    `required` ones must be taken, others where possible.
    """

    host: str
    address: str
    port: int
    required: bool
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A connection that was accepted."""

    wire: Wire
    at: datetime
    peer: tuple[str, int]
    connection: socket.socket


def listen(wire: Wire) -> socket.socket:
    """Listen at a wire's address. Raises OSError."""
    with inside(wire.namespace):
        listener = socket.socket()  # it stays where it was made
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((wire.address, wire.port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


@contextmanager
def inside(namespace: str | None) -> Iterator[None]:
    """Make what the block makes in a network namespace. Raises OSError."""
    if namespace is None:
        yield
        return
    with Path("/proc/self/ns/net").open() as own, Path("/run/netns", namespace).open() as other:
        _enter(other.fileno())
        try:
            yield
        finally:
            _enter(own.fileno())


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def listen_soon(wire: Wire, deadline: float) -> socket.socket:
    """Listen as soon as whoever has the address is gone. Raises OSError after the deadline."""
    while True:
        try:
            return listen(wire)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_SECONDS)


def listen_all(wires: list[Wire]) -> selectors.BaseSelector:
    """Take every required address, and of the others those that can be had."""
    selector = selectors.DefaultSelector()
    deadline = time.monotonic() + BIND_SECONDS
    for wire in sorted(wires, key=lambda wire: not wire.required):
        try:
            listener = listen_soon(wire, deadline) if wire.required else listen(wire)
        except OSError:
            if wire.required:
                raise
            continue
        selector.register(listener, selectors.EVENT_READ, wire)
    return selector


def accept(selector: selectors.BaseSelector) -> list[Call]:
    """Wait for calls and take all that there are."""
    calls = []
    for key, _ in selector.select():
        listener = key.fileobj
        assert isinstance(listener, socket.socket)
        while True:
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            calls.append(Call(key.data, datetime.now(UTC), peer, connection))
    return calls


def record(calls: list[Call], attempts: TextIO) -> None:
    """Note who called, then hang up. The caller is looked up while its socket is still open."""
    owners = {
        (tuple(c.laddr), tuple(c.raddr)): c.pid
        for c in psutil.net_connections(kind="tcp4")
        if c.laddr and c.raddr
    }
    for call in calls:
        pid = owners.get((call.peer, (call.wire.address, call.wire.port)))
        line = {
            "at": call.at.isoformat(),
            "host": call.wire.host,
            "address": call.wire.address,
            "port": call.wire.port,
            "peer": f"{call.peer[0]}:{call.peer[1]}",
            "pid": pid,
            "process": process_of(pid),
        }
        attempts.write(json.dumps(line) + "\n")
        attempts.flush()
        call.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        call.connection.close()


def process_of(pid: int | None) -> str | None:
    """A process's command line, or its name."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        return (redacted_command(process.cmdline()) or process.name())[:_PROCESS_LENGTH]
    except psutil.Error:
        return None


def main(configuration: Path) -> None:
    """Watch until killed."""
    document = json.loads(configuration.read_text())
    selector = listen_all([Wire(**wire) for wire in document["wires"]])
    with Path(document["attempts"]).open("a") as attempts:
        Path(document["ready"]).touch()
        while True:
            record(accept(selector), attempts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
