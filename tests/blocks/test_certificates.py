"""Whose authority issued the certificates that are met."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks import certificates
from blocks.evidence.findings import Finding
from blocks.ownership import Belongings
from blocks.stores.s3 import S3Store
from deployments.lab.certificates import Authority, Issued, authority
from tasks.inspect import issuers as inspect_issuers
from tasks.inspect.inspection import Inspection

EAST = Belongings(suffixes=("east.lab",))


class Store:
    """A TLS server with a certificate, and the store that a plan would have of it."""

    def __init__(self, folder: Path, name: str, ca: Authority, issued: Issued) -> None:
        self.server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        leaf, key = folder / f"{name}.pem", folder / f"{name}.key"
        leaf.write_text(issued.certificate + ca.pem)
        key.write_text(issued.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.ca = folder / f"{name}-ca.pem"
        self.ca.write_text(ca.pem)

    def store(self) -> S3Store:
        port = self.server.server_port
        return S3Store(endpoint=f"https://127.0.0.1:{port}", bucket="b", ca_file=self.ca)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    made: list[Store] = []

    def start(name: str, ca: Authority, issued: Issued) -> S3Store:
        made.append(Store(tmp_path, name, ca, issued))
        return made[-1].store()

    yield start
    for item in made:
        item.server.shutdown()
        item.server.server_close()


def rehearsal(east: S3Store, west: S3Store) -> Any:
    return SimpleNamespace(
        source=SimpleNamespace(name="east", store=east, belongings=EAST),
        recovery=SimpleNamespace(name="west", store=west),
        plan=SimpleNamespace(engine=SimpleNamespace(model_dump=lambda **_: {})),
        fresh=True,
    )


def issuers(east: S3Store, west: S3Store) -> list[Finding]:
    return list(inspect_issuers.issuers(rehearsal(east, west), Inspection()))


def test_one_authority_for_both(serve: Any) -> None:
    one = authority("one CA")
    east, west = (serve(name, one, one.issue(f"{name}.x", "127.0.0.1")) for name in "ab")
    (found,) = issuers(east, west)
    assert (found.id, found.subject) == ("ca-in-source", "west store")
    assert found.evidence.startswith("one CA (key ")
    assert found.evidence.endswith("issued the certificates of both east and west")


def test_a_source_that_does_not_answer_is_known_by_what_it_is_trusted_by(serve: Any) -> None:
    one = authority("one CA")
    west = serve("b", one, one.issue("b.x", "127.0.0.1"))
    east = S3Store(endpoint="https://127.0.0.1:1", bucket="b", ca_file=west.ca_file)
    seen = Inspection()
    (found,) = inspect_issuers.issuers(rehearsal(east, west), seen)
    assert found.id == "ca-in-source"
    assert seen.unseen == ["who issued the certificate of east's store: none was met"]


def test_an_authority_each_though_both_trust_both(serve: Any) -> None:
    first, second = authority("same name CA"), authority("same name CA")
    east = serve("a", first, first.issue("a.x", "127.0.0.1"))
    west = serve("b", second, second.issue("b.x", "127.0.0.1"))
    for store in (east, west):
        assert store.ca_file is not None
        store.ca_file.write_text(first.pem + second.pem)
    assert issuers(east, west) == []


def test_an_authority_that_names_the_source(serve: Any) -> None:
    sources, other = authority("pki.east.lab CA"), authority("other CA")
    east = serve("a", other, other.issue("a.x", "127.0.0.1"))
    (found,) = issuers(east, serve("b", sources, sources.issue("b.x", "127.0.0.1")))
    assert "pki.east.lab" in found.evidence


def test_a_store_that_does_not_answer() -> None:
    store = S3Store(endpoint="https://127.0.0.1:1", bucket="b")
    assert certificates.met(store) == ()
