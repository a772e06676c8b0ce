"""The job `probe`: which endpoints answer from here. Standard library only."""

import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from blocks.artifact.channel import Channel
from blocks.artifact.job import Probed, ProbeJob, ProbeResult

_Status = Literal["open", "refused", "timeout", "unreachable"]
_MOST = 64


def run(job: ProbeJob, _channel: Channel) -> ProbeResult:
    """Takes `timeout` seconds at most for each 64 endpoints."""

    def probe(endpoint: tuple[str, int]) -> Probed:
        address, port = endpoint
        return Probed(address=address, port=port, status=_status(address, port, job.timeout))

    with ThreadPoolExecutor(_MOST) as workers:
        return ProbeResult(endpoints=tuple(workers.map(probe, job.endpoints)))


def _status(address: str, port: int, timeout: float) -> _Status:
    try:
        socket.create_connection((address, port), timeout).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        # Denied by a local fence is unreachable; what was reset did answer.
        return "open" if error.errno == errno.ECONNRESET else "unreachable"
    return "open"
