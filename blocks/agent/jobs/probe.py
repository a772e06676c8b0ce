"""The job `probe`: which endpoints answer from here, and which URLs. Standard library only.

What could not be tried is `unknown`: a name that does not resolve here, no sockets, no memory.
"""

import errno
import http.client
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from blocks.agent.channel import Channel
from blocks.agent.protocol.jobs import ProbeJob
from blocks.agent.protocol.results import Probed, ProbeResult, ProbeStatus

_MOST = 64
_UNREACHABLE = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.ECONNABORTED}
)
_DENIED = frozenset({401, 403, 451})
_SAID = 2**14
_TOO_OLD = re.compile(
    rb"<Code>(?:ExpiredToken|RequestTimeTooSkewed)</Code>|<Expires>|expired", re.I
)
"""As S3's stores say it of a URL, or of the credentials that it was made with."""


def run(job: ProbeJob, _channel: Channel) -> ProbeResult:
    """Takes `timeout` and `patience` seconds at most for each 64 endpoints."""

    def probe(endpoint: tuple[str, int]) -> Probed:
        address, port = endpoint
        addresses = _resolved(address, port)
        statuses = [_status(item, port, job.timeout, job.patience) for item in addresses]
        return Probed(address=address, port=port, status=_worst(statuses), addresses=addresses)

    def fetch(url: str) -> ProbeStatus:
        return _fetched(url, job.ca_pem, job.timeout + job.patience)

    with ThreadPoolExecutor(_MOST) as workers:
        endpoints = workers.map(probe, job.endpoints)
        return ProbeResult(endpoints=tuple(endpoints), urls=tuple(workers.map(fetch, job.urls)))


def _resolved(name: str, port: int) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(dict.fromkeys(str(info[4][0]) for info in found))


def _worst(statuses: list[ProbeStatus]) -> ProbeStatus:
    """Of several addresses of a name, the one that speaks most against a fence."""
    order: tuple[ProbeStatus, ...] = ("open", "unknown", "reset", "refused", "timeout")
    return next((s for s in order if s in statuses), statuses[0] if statuses else "unknown")


def _status(address: str, port: int, timeout: float, patience: float) -> ProbeStatus:
    try:
        with socket.create_connection((address, port), timeout) as connection:
            return _answer(connection, patience)
    except OSError as error:
        return _failure(error)


def _failure(error: OSError) -> ProbeStatus:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "reset"
    return "unreachable" if error.errno in _UNREACHABLE else "unknown"


def _answer(connection: socket.socket, patience: float) -> ProbeStatus:
    """Who accepts and hangs up without a word serves nothing: a fence, or a tripwire.

    A living service either speaks first (SSH) or waits for the client to speak (TLS, databases).
    """
    if not patience:
        return "open"
    connection.settimeout(patience)
    try:
        return "open" if connection.recv(1) else "reset"
    except TimeoutError:
        return "open"


def _fetched(url: str, ca_pem: str | None, timeout: float) -> ProbeStatus:
    """`open` if the object can be read, `refused` if its server denies it."""
    parts = urlsplit(url)
    try:
        context = ssl.create_default_context(cadata=ca_pem)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout, context=context
        )
        try:
            connection.request("GET", f"{parts.path}?{parts.query}", headers={"Range": "bytes=0-0"})
            answer = connection.getresponse()
            status, said = answer.status, answer.read(_SAID)
        finally:
            connection.close()
    except ssl.SSLCertVerificationError:
        return "unknown"  # something answers; what it is cannot be told
    except OSError as error:
        # Of a name that leads nowhere here, nothing was tried.
        return "unknown" if isinstance(error, socket.gaierror) else _failure(error)
    except http.client.HTTPException:
        return "reset"
    return _meant(status, said)


def _meant(status: int, said: bytes) -> ProbeStatus:
    if status in (200, 206, 416):
        return "open"
    # A URL that is too old is denied wherever its store can be reached.
    return "refused" if status in _DENIED and not _TOO_OLD.search(said) else "unknown"
