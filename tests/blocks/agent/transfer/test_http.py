"""Requests to a store that is not at its best."""

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from blocks.agent.failure import JobFailed
from blocks.agent.transfer.http import Web

BODY = bytes(range(256)) * 4


class Moody(http.server.BaseHTTPRequestHandler):
    """Does what its server's list says next: a status, `drop` the connection, `short`, `slow`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        span = self.headers["Range"].removeprefix("bytes=").split("-")
        self.server.spans.append(tuple(map(int, span)))  # type: ignore[attr-defined]
        self.answer(BODY)

    def do_PUT(self) -> None:
        self.server.puts += 1  # type: ignore[attr-defined]
        self.server.got = self.rfile.read(int(self.headers["Content-Length"]))  # type: ignore[attr-defined]
        self.answer(b"")

    def answer(self, body: bytes) -> None:
        moods: list[Any] = self.server.moods  # type: ignore[attr-defined]
        mood = moods.pop(0) if moods else 200
        if mood == "drop":
            self.close_connection = True
            return
        if mood == "slow":
            time.sleep(1)
            mood = 200
        first = self.server.spans[-1][0] if self.command == "GET" and self.server.ranges else 0  # type: ignore[attr-defined]
        body = body[first:]
        self.send_response(mood if isinstance(mood, int) else 206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.end_headers()
        self.wfile.write(body[:10] if mood == "short" else body)
        self.close_connection = mood == "short"

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def moody(s3: Any) -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = s3.ca_file.parent
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.spans, server.ranges, server.puts = [], True, 0  # type: ignore[attr-defined]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url_of(server: Any) -> Any:
    return lambda _renew: f"https://127.0.0.1:{server.server_port}/it?signature=sesame"


@pytest.mark.parametrize("moods", [[], ["drop"], [503, 500], [429], ["drop", "drop", 502]])
def test_what_passes_is_waited_for(moody: Any, s3: Any, moods: list[Any]) -> None:
    web = Web(s3.ca_pem)
    moody.moods = list(moods)
    assert web.put(url_of(moody), memoryview(BODY), "it") == '"e"'
    assert moody.got == BODY
    moody.moods = [*moods, "short"]
    into = bytearray(len(BODY))
    web.get(url_of(moody), 0, memoryview(into), "it")
    assert into == BODY


@pytest.mark.parametrize(
    ("mood", "code", "transient"),
    [(400, "network", False), (404, "object-missing", False), (403, "url-expired", False)],
)
def test_what_does_not_pass_is_said_at_once(
    moody: Any, s3: Any, mood: int, code: str, transient: bool
) -> None:
    moody.moods = [mood] * 9
    with pytest.raises(JobFailed) as failure:
        Web(s3.ca_pem).put(url_of(moody), memoryview(BODY), "it")
    assert (failure.value.code, failure.value.transient) == (code, transient)
    assert len(moody.moods) >= 7
    assert "sesame" not in str(failure.value)


def test_what_broke_off_goes_on_where_it_was(moody: Any, s3: Any) -> None:
    moody.moods = ["short"] * 20  # more than a row of failures may have, but each moves something
    into = bytearray(len(BODY))
    Web(s3.ca_pem).get(url_of(moody), 0, memoryview(into), "it")
    assert into == BODY
    last = len(BODY) - 1
    assert moody.spans == [(10 * number, last) for number in range(21)]


def test_a_server_that_cannot_go_on_in_the_middle(moody: Any, s3: Any) -> None:
    moody.moods, moody.ranges = ["short", 200, 200], False
    into = bytearray(len(BODY))
    Web(s3.ca_pem).get(url_of(moody), 0, memoryview(into), "it")
    assert into == BODY
    assert [first for first, _ in moody.spans] == [0, 10, 0]


def test_silence_is_not_waited_for_again_and_again(
    moody: Any, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocks.agent.transfer.http._PATIENCE", -1.0)
    moody.moods = [503] * 99
    with pytest.raises(JobFailed, match="again and again"):
        Web(s3.ca_pem).put(url_of(moody), memoryview(BODY), "it")
    assert len(moody.moods) == 98


def test_a_store_that_writes_slowly_is_given_a_part_once(
    moody: Any, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = Web(s3.ca_pem)
    moody.moods = []
    web.put(url_of(moody), memoryview(BODY), "it")
    monkeypatch.setattr("blocks.agent.transfer.http._TIMEOUT", 0.2)
    moody.moods = ["slow"]
    web.put(url_of(moody), memoryview(BODY), "it")
    assert moody.puts == 2
    moody.moods = ["slow"]
    web.get(url_of(moody), 0, memoryview(bytearray(len(BODY))), "it")
    assert len(moody.spans) == 2, "one that is only to be read from is taken for lost"


def test_patience_ends(moody: Any, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.agent.transfer.http.time.sleep", lambda _: None)
    moody.moods = [503] * 99
    with pytest.raises(JobFailed, match="503") as failure:
        Web(s3.ca_pem).put(url_of(moody), memoryview(BODY), "it")
    assert failure.value.transient


def test_a_store_without_tls_is_refused(s3: Any) -> None:
    with pytest.raises(JobFailed, match="not https"):
        Web(s3.ca_pem).put(lambda _: "http://127.0.0.1/it", memoryview(BODY), "it")


@pytest.mark.parametrize("pem", ["", "\n", "no certificate"])
def test_no_authority_is_not_the_systems(pem: str) -> None:
    with pytest.raises(JobFailed, match="not PEM"):
        Web(pem)
