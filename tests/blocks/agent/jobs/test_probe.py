"""A probe tells a refusal from what it could not try."""

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.agent.channel import Channel
from blocks.agent.jobs import probe
from blocks.agent.protocol.jobs import ProbeJob
from blocks.stores.s3 import S3Store


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def status(address: str, port: int, patience: float = 0.3) -> str:
    job = ProbeJob(endpoints=((address, port),), timeout=1.0, patience=patience)
    return probe.run(job, Channel.__new__(Channel)).endpoints[0].status


def test_what_listens_is_open_and_what_does_not_is_refused(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert status("127.0.0.1", port) == "open"
    assert status("localhost", port) == "open"
    listener.close()
    assert status("127.0.0.1", port) == "refused"


def test_a_name_that_does_not_resolve_is_unknown() -> None:
    assert status("no-such-name.invalid", 22) == "unknown"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EMFILE, "unknown"),
        (errno.EACCES, "unknown"),
        (errno.EPERM, "unknown"),
        (errno.ENOBUFS, "unknown"),
        (errno.EADDRNOTAVAIL, "unknown"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.ECONNRESET, "reset"),
    ],
)
def test_only_what_the_network_says_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "planted")

    monkeypatch.setattr(socket, "create_connection", fail)
    assert status("127.0.0.1", 1) == expected


def test_of_several_addresses_the_one_that_answers_counts(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    monkeypatch.setattr(probe, "_resolved", lambda *_: ("127.0.0.9", "127.0.0.1"))
    answer = probe.run(
        ProbeJob(endpoints=(("db", port),), timeout=1.0, patience=0.0), Channel.__new__(Channel)
    )
    (found,) = answer.endpoints
    assert (found.status, found.addresses) == ("open", ("127.0.0.9", "127.0.0.1"))


def test_a_url_that_nobody_serves_is_refused_or_not_tried() -> None:
    urls = ("https://no-such-name.invalid/b/k?x", "https://127.0.0.1:1/b/k?x")
    answer = probe.run(ProbeJob(endpoints=(), urls=urls), Channel.__new__(Channel))
    assert answer.urls == ("unknown", "refused")


def test_only_a_denial_is_one(s3: Any, tmp_path: Path) -> None:
    """An object that was removed meanwhile, or a URL that is too old, says nothing of a fence."""
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[default]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
    )
    store = S3Store(
        endpoint=s3.endpoint, bucket=s3.bucket, ca_file=s3.ca_file, credentials_file=credentials
    )
    store.put("probed", b"x")
    fresh, old, gone = (
        store.presign_get(key, seconds)
        for key, seconds in (("probed", 600), ("probed", 1), ("never", 600))
    )
    denied = fresh.replace("Signature=", "Signature=0")
    time.sleep(2)
    job = ProbeJob(endpoints=(), urls=(fresh, denied, old, gone), ca_pem=s3.ca_pem)
    answer = probe.run(job, Channel.__new__(Channel))
    assert answer.urls == ("open", "refused", "unknown", "unknown")
    store.remove(["probed"])
    store.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("<Code>AccessDenied</Code><Message>Access Denied</Message>", "refused"),
        ("<Code>AccessDenied</Code><Message>Request has expired</Message>", "unknown"),
        ("<Code>ExpiredToken</Code>", "unknown"),
        ("<Code>RequestTimeTooSkewed</Code>", "unknown"),
    ],
)
def test_what_is_too_old_is_no_denial(said: str, status: str) -> None:
    assert probe._meant(403, said.encode()) == status
