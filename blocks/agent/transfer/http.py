"""Presigned requests to an object store: persistent connections, verified TLS, patient retries."""

import base64
import hashlib
import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from blocks.agent.failure import JobFailed

_TRIES = 6
#: A server that is silent for so long, in seconds, is taken for lost, and asked again.
_TIMEOUT = 15.0
#: One that has all of a part may write it to a slow disk first. Sent twice, it is slower still, and
#: `rclone serve s3` takes the second for stored while it still writes the first.
_STORING = 60.0
#: And for so long it is asked again, if it goes on being silent.
_PATIENCE = 45.0
_PIECE = 256 * 1024
_BUSY = {408, 425, 429, 500, 502, 503, 504}

Url = Callable[[bool], str]
"""Gives the URL of a request; called with True if the one given before was refused as expired."""


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    etag: str
    reason: str


class _Connection(http.client.HTTPSConnection):
    """The kernel breaks it when its peer acknowledges nothing for `_TIMEOUT` seconds."""

    def connect(self) -> None:
        super().connect()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_TIMEOUT * 1000))


class Web:
    """Each thread that uses it has its own connection to each server."""

    def __init__(self, ca_pem: str | None) -> None:
        """Trusts the certificates in `ca_pem` only, or the system's if it is None."""
        try:
            if ca_pem is not None and not ca_pem.strip():
                raise ssl.SSLError  # Python would trust the system's
            self._tls = ssl.create_default_context(cadata=ca_pem)
        except ssl.SSLError:
            raise JobFailed("network", "the store's CA certificate is not PEM") from None
        self._local = threading.local()

    def put(self, url: Url, body: memoryview, what: str) -> str:
        """Store `body`; the ETag. Raises JobFailed."""

        def attempt(address: str) -> _Reply:
            return self._put_once(address, body)

        return self._patiently(attempt, url, what).etag

    def get(
        self,
        url: Url,
        first: int,
        into: memoryview,
        what: str,
        pace: Callable[[int], None] | None = None,
    ) -> None:
        """Fill `into` with the object's bytes from `first` on. Raises JobFailed.

        What broke off goes on where it was. `pace` is called with the length of each piece before
        it is read, and may sleep.
        """
        filled = 0

        def moved(count: int) -> None:
            nonlocal filled
            filled += count

        def attempt(address: str) -> _Reply:
            nonlocal filled
            try:
                return self._get_once(address, first + filled, into[filled:], pace, moved)
            except _OtherRange:
                if not filled:
                    raise _cut_off(what) from None
                filled = 0  # a server that cannot go on in the middle
                raise

        self._patiently(attempt, url, what, lambda: filled)

    def _put_once(self, address: str, body: memoryview) -> _Reply:
        # Unsigned, as any header but x-amz-* may be. A bucket with Object Lock insists on it.
        headers = {"Content-Length": str(len(body)), "Content-MD5": content_md5(body)}
        connection = self._send("PUT", address, body, headers)
        connection.sock.settimeout(_STORING)
        with connection.getresponse() as response:
            text = response.read(65536)
            return _reply(response, text)

    def _get_once(
        self,
        address: str,
        first: int,
        into: memoryview,
        pace: Callable[[int], None] | None,
        moved: Callable[[int], None],
    ) -> _Reply:
        span = f"bytes={first}-{first + len(into) - 1}"
        connection = self._send("GET", address, None, {"Range": span})
        response = connection.getresponse()
        if response.status not in (200, 206):
            return _reply(response, response.read(65536))
        start = _start_of(response)
        if start != first or response.length is None or response.length != len(into):
            # Not the bytes asked for: what is left unread makes the connection useless.
            raise _OtherRange
        _fill(response, into, pace, moved)
        return _reply(response, b"")

    def _send(
        self, method: str, address: str, body: memoryview | None, headers: dict[str, str]
    ) -> http.client.HTTPConnection:
        parts = urlsplit(address)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection = self._connection(address)
        if connection.sock is not None:
            connection.sock.settimeout(_TIMEOUT)
        connection.request(method, path, body, headers)
        return connection

    def _connection(self, address: str) -> http.client.HTTPSConnection:
        parts = urlsplit(address)
        if parts.scheme != "https" or parts.hostname is None:
            raise JobFailed("network", "a store's URL that is not https")
        known: dict[str, http.client.HTTPSConnection] = self._local.__dict__
        if parts.netloc not in known:
            known[parts.netloc] = _Connection(
                parts.hostname, parts.port, timeout=_TIMEOUT, context=self._tls
            )
        return known[parts.netloc]

    def _drop(self, address: str) -> None:
        connection = self._local.__dict__.pop(urlsplit(address).netloc, None)
        if connection is not None:
            connection.close()

    def _patiently(
        self,
        attempt: Callable[[str], _Reply],
        url: Url,
        what: str,
        moved: Callable[[], int] = lambda: 0,
    ) -> _Reply:
        """Try until it succeeds; `moved` says how far it has come, which ends a row of failures."""
        address, renewed, problem = url(False), False, ""
        failures, failing_since, reached = 0, 0.0, 0
        while True:
            try:
                reply = attempt(address)
            except ssl.SSLCertVerificationError as error:
                raise _untrusted(urlsplit(address).netloc, error) from None
            except (OSError, http.client.HTTPException) as error:
                self._drop(address)
                problem = getattr(error, "strerror", None) or type(error).__name__
            else:
                if reply.status in (200, 206):
                    return reply
                problem = f"HTTP {reply.status} {reply.reason}".strip()
                if reply.status == 403 and not renewed:
                    address, renewed = url(True), True
                elif reply.status not in _BUSY:
                    raise _refused(reply, what, problem)
            failures = 1 if moved() > reached else failures + 1
            failing_since = time.monotonic() if failures == 1 else failing_since
            reached = moved()
            if failures == _TRIES or time.monotonic() > failing_since + _PATIENCE:
                break
            # At first at once: a server may have closed a connection that was idle.
            time.sleep((2 ** (failures - 1) - 1) * random.uniform(0.2, 0.4))
        raise JobFailed(
            "network",
            f"{what}: {urlsplit(address).netloc} failed again and again, at last with: {problem}",
            hint="look at the store's health and the route to it from this host",
            transient=True,
        )


def content_md5(body: bytes | memoryview) -> str:
    """The checksum that every S3 service understands, as its header has it."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _reply(response: http.client.HTTPResponse, text: bytes) -> _Reply:
    return _Reply(
        status=response.status,
        etag=response.headers.get("ETag", ""),
        reason=_error_code(text),
    )


class _OtherRange(http.client.HTTPException):
    """Not the bytes asked for: what is left unread makes the connection useless."""


def _cut_off(what: str, problem: str = "") -> JobFailed:
    return JobFailed(
        "object-corrupt",
        f"{what}: shorter than its manifest says{problem}",
        hint="the object was cut off after it was stored; choose another backup set",
    )


def _error_code(text: bytes) -> str:
    """The error's name in S3's XML, such as NoSuchKey; nothing else of the body is repeated."""
    _, found, rest = text.partition(b"<Code>")
    name = rest.partition(b"</Code>")[0]
    return name.decode() if found and name.isalnum() and len(name) < 64 else ""


def _start_of(response: http.client.HTTPResponse) -> int:
    """The first byte's place in the object. Some servers answer a range with 200, not 206."""
    span = response.headers.get("Content-Range")
    if span is None:
        return 0 if response.status == 200 else -1
    first = span.removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else -1


def _fill(
    response: http.client.HTTPResponse,
    into: memoryview,
    pace: Callable[[int], None] | None,
    moved: Callable[[int], None],
) -> None:
    done = 0
    while done < len(into):
        piece = into[done : done + _PIECE]
        if pace:
            pace(len(piece))
        count = response.readinto(piece)
        if not count:
            raise http.client.IncompleteRead(b"", len(into) - done)
        done += count
        moved(count)


def _untrusted(server: str, error: ssl.SSLCertVerificationError) -> JobFailed:
    return JobFailed(
        "network",
        f"{server}'s certificate is not trusted: {error.verify_message}",
        hint="compare the store's CA certificate in the plan with the one the store uses",
    )


def _refused(reply: _Reply, what: str, problem: str) -> JobFailed:
    if reply.status == 404:
        return JobFailed(
            "object-missing",
            f"{what}: the store does not have it ({problem})",
            hint="was it removed by a lifecycle rule, or never copied?",
        )
    if reply.status == 416:
        return _cut_off(what, f" ({problem})")
    if reply.status == 403:
        return JobFailed(
            "url-expired",
            f"{what}: the store refused a fresh URL ({problem})",
            hint="compare the clocks of the orchestrator and the store, and the key's permissions",
        )
    return JobFailed("network", f"{what}: the store refused the request ({problem})")
