"""The job `probe`: which endpoints answer from here. Standard library only."""

import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from blocks.artifact.channel import Channel
from blocks.artifact.job import Probed, ProbeJob, ProbeResult

_Status = Literal["open", "reset", "refused", "timeout", "unreachable"]
_MOST = 64
#: A fence on a busy host may take its time to hang up; only what is open costs the wait.
_PATIENCE_SECONDS = 5.0


def run(job: ProbeJob, _channel: Channel) -> ProbeResult:
    """Takes `timeout` seconds at most for each 64 endpoints."""

    def probe(endpoint: tuple[str, int]) -> Probed:
        address, port = endpoint
        return Probed(address=address, port=port, status=_status(address, port, job.timeout))

    with ThreadPoolExecutor(_MOST) as workers:
        return ProbeResult(endpoints=tuple(workers.map(probe, job.endpoints)))


def _status(address: str, port: int, timeout: float) -> _Status:
    try:
        with socket.create_connection((address, port), timeout) as connection:
            return _answer(connection, _PATIENCE_SECONDS)
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return "reset" if error.errno == errno.ECONNRESET else "unreachable"


def _answer(connection: socket.socket, patience: float) -> _Status:
    """Who accepts and hangs up without a word serves nothing: a fence, or a tripwire.

    A living service either speaks first (SSH) or waits for the client to speak (TLS, PostgreSQL).
    """
    connection.settimeout(patience)
    try:
        return "open" if connection.recv(1) else "reset"
    except TimeoutError:
        return "open"
