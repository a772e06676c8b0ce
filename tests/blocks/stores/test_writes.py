"""What a store refuses of a backup's requests is said before a backup is taken."""

import base64
import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from blocks.stores.store import AccessDenied
from blocks.stores.writes import StoreNotWritable, try_writing

_STARTED = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
_DONE = b'<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>'


class Strict(http.server.BaseHTTPRequestHandler):
    """A bucket with Object Lock: no body without a checksum. Refuses what a test wants."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        checksum = base64.b64encode(hashlib.md5(body).digest()).decode()
        if self.headers["Content-MD5"] != checksum:
            self.say(400, b"<Error><Code>InvalidRequest</Code></Error>")
            return
        self.do("part" if "partNumber" in parse_qs(urlsplit(self.path).query) else "object")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        begins = self.path.endswith("?uploads")
        self.do("begin" if begins else "complete", _STARTED if begins else _DONE)

    def do_DELETE(self) -> None:
        self.do("delete")

    def do(self, what: str, body: bytes = b"") -> None:
        self.server.asked.append(what)  # type: ignore[attr-defined]
        refused = self.server.refused  # type: ignore[attr-defined]
        if what in refused:
            status, code = refused[what]
            self.say(status, f"<Error><Code>{code}</Code></Error>".encode())
        else:
            self.say(200, body)

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def strict(s3_server: Any) -> Iterator[Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strict)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(s3_server.folder / "cert.pem", s3_server.folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.asked, server.refused = [], {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    store = s3_server.store(endpoint=f"https://127.0.0.1:{server.server_port}")
    yield server, store
    store.close()
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_request_has_a_checksum(strict: Any) -> None:
    server, store = strict
    try_writing(store, "sets/p/r1/write-test")
    assert server.asked == ["object", "begin", "part", "complete", "delete"]
    store.put("sets/p/r1/manifest.json", b"{}")
    assert server.asked[-1] == "object"


def test_a_store_of_another_kind_takes_it_too(s3_server: Any) -> None:
    store = s3_server.store()
    try_writing(store, "sets/p/r1/write-test")
    assert store.head("sets/p/r1/write-test") is None
    store.close()


@pytest.mark.parametrize("what", ["object", "begin", "part", "complete", "delete"])
def test_what_is_refused_is_named(strict: Any, what: str) -> None:
    server, store = strict
    server.refused[what] = (400, "InvalidArgument")
    with pytest.raises(StoreNotWritable, match="InvalidArgument"):
        try_writing(store, "sets/p/r1/write-test")
    if what in ("part", "complete"):
        assert server.asked[-1] == "delete"  # the upload is not left open


@pytest.mark.parametrize("what", ["object", "begin"])
def test_a_refused_credential_is_another_matter(strict: Any, what: str) -> None:
    server, store = strict
    server.refused[what] = (403, "AccessDenied")
    with pytest.raises(AccessDenied, match="AccessDenied"):
        try_writing(store, "sets/p/r1/write-test")
