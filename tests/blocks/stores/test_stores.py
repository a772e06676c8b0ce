"""S3 against a real server over TLS, and the URLs it signs with a plain HTTP client."""

import http.client
import os
import socket
import ssl
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from blocks.errors import FarsideError, PermanentError
from blocks.evidence.uses import new_ledger
from blocks.stores.s3 import S3Store, _kind_of_refusal
from blocks.stores.store import (
    AccessDenied,
    ObjectArchived,
    ObjectMissing,
    StoreRefused,
    StoreUnavailable,
    StoreUntrusted,
)

PART = 5 * 2**20


@pytest.fixture
def store(s3_server: Any) -> Iterator[S3Store]:
    store = s3_server.store(prefix=uuid.uuid4().hex)
    yield store
    store.close()


def send(
    store: S3Store, method: str, url: str, body: bytes | None = None
) -> tuple[int, str, bytes]:
    """One request as the agent makes it: http.client, the store's CA, nothing else."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cadata=store.ca_pem)
    connection = http.client.HTTPSConnection(parts.netloc, context=context, timeout=20)
    connection.request(method, f"{parts.path}?{parts.query}", body)
    answer = connection.getresponse()
    return answer.status, answer.getheader("ETag") or "", answer.read()


class TestObjects:
    def test_put_head_get_remove(self, store: S3Store) -> None:
        assert store.head("sets/a/manifest.json") is None
        for data in (b"", b"one", os.urandom(3_000_000)):
            store.put("sets/a/manifest.json", data)
            assert store.get("sets/a/manifest.json") == data
            info = store.head("sets/a/manifest.json")
            assert info is not None
            assert (info.key, info.size) == ("sets/a/manifest.json", len(data))
            assert info.storage_class == "STANDARD"
            assert info.modified.tzinfo is not None
        for _ in range(2):
            store.remove(["sets/a/manifest.json", "no-such-key"])
            assert store.head("sets/a/manifest.json") is None

    def test_its_own_clock(self, store: S3Store) -> None:
        assert abs((store.now() - datetime.now(UTC)).total_seconds()) < 60

    def test_what_is_missing(self, store: S3Store) -> None:
        with pytest.raises(ObjectMissing, match=r"get s3://one/.*nothing"):
            store.get("nothing")
        with pytest.raises(ObjectMissing, match="make the bucket"):
            store.model_copy(update={"bucket": "no-such"}).get("nothing")

    def test_listing(self, store: S3Store) -> None:
        keys = [f"sets/a/{n:04d}" for n in range(1100)]
        for key in [*keys[:30], "sets/ab", "zoo"]:
            store.put(key, b"x")
        assert [info.key for info in store.objects("sets/a/")] == keys[:30]
        assert [info.key for info in store.objects()] == [*keys[:30], "sets/ab", "zoo"]
        assert list(store.objects("nothing/")) == []

    @pytest.mark.parametrize("prefix", ["team", "/team", "team/"])
    def test_a_prefix_is_a_folder(self, s3_server: Any, prefix: str) -> None:
        s3_server.store(prefix=prefix).put("x", b"x")
        assert s3_server.store(prefix="").get("team/x") == b"x"
        assert [info.key for info in s3_server.store(prefix=prefix).objects()] == ["x"]


class TestUploads:
    def test_parts_through_presigned_urls(self, store: S3Store) -> None:
        parts = [os.urandom(PART), os.urandom(PART), b"the rest"]
        upload = store.create_upload("big.000")
        etags = []
        for number, part in enumerate(parts, 1):
            status, etag, _ = send(
                store, "PUT", store.presign_part("big.000", upload, number), part
            )
            assert status == 200
            etags.append(etag)
        store.complete_upload("big.000", upload, etags)
        status, _, body = send(store, "GET", store.presign_get("big.000"))
        assert (status, body) == (200, b"".join(parts))

    def test_how_long_presigned_urls_work(self, store: S3Store) -> None:
        """One that writes must not outlive its rehearsal by hours: it would replace objects."""

        def seconds(url: str) -> int:
            (given,) = parse_qs(urlsplit(url).query)["X-Amz-Expires"]
            return int(given)

        assert seconds(store.presign_put("wal/x")) == 900
        assert seconds(store.presign_part("big.000", "u", 1)) == 900
        assert seconds(store.presign_get("big.000")) == 6 * 3600

    def test_put_through_a_presigned_url(self, store: S3Store) -> None:
        assert send(store, "PUT", store.presign_put("wal/x y+z"), b"data")[0] == 200
        assert store.get("wal/x y+z") == b"data"

    def test_a_url_opens_nothing_else(self, store: S3Store) -> None:
        store.put("a", b"a")
        store.put("b", b"b")
        url = store.presign_get("a")
        assert send(store, "GET", url.replace("/a?", "/b?"))[0] == 403
        assert send(store, "PUT", url, b"changed")[0] == 403
        assert send(store, "GET", store.presign_get("a", expires=-5))[0] in (400, 403)

    def test_abort(self, store: S3Store) -> None:
        upload = store.create_upload("big")
        for _ in range(2):
            store.abort_upload("big", upload)
        with pytest.raises((ObjectMissing, StoreRefused)):
            store.complete_upload("big", upload, ['"x"'])
        assert store.head("big") is None

    def test_listing_uploads_never_fails(self, store: S3Store) -> None:
        upload = store.create_upload("big")
        assert [found.upload_id for found in store.uploads()] in ([], [upload])
        store.abort_upload("big", upload)


class TestErrors:
    def test_wrong_secret(self, s3_server: Any) -> None:
        with pytest.raises(AccessDenied, match="credentials"):
            s3_server.store(profile="stranger").put("x", b"x")

    def test_credentials_come_from_the_file_alone(
        self, s3_server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ambient")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient")
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such/file")
        s3_server.store().put("x", b"x")
        with pytest.raises(AccessDenied, match="nobody"):
            s3_server.store(profile="nobody").get("x")

    def test_certificate_of_another_authority(self, s3_server: Any) -> None:
        with pytest.raises(StoreUntrusted, match="ca_file"):
            s3_server.store(ca_file=s3_server.folder / "other-certificate.pem").get("x")

    @pytest.mark.parametrize("field", ["ca_file", "credentials_file"])
    def test_files_that_are_missing(self, s3_server: Any, field: str, tmp_path: Path) -> None:
        with pytest.raises(PermanentError, match=f"{field} .*No such file"):
            s3_server.store(**{field: tmp_path / "nothing"}).get("x")

    def test_nobody_listens(self, s3_server: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(StoreUnavailable, match="is the store up"):
            s3_server.store(endpoint=f"https://127.0.0.1:{port}").get("x")

    def test_no_secret_is_shown(self, s3_server: Any) -> None:
        store = s3_server.store()
        secret = "a/secret+with=signs"
        assert secret not in repr(store)
        with pytest.raises(FarsideError) as caught:
            store.get("nothing")
        assert secret not in str(caught.value)

    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("SlowDown", 503, StoreUnavailable),
            ("", 502, StoreUnavailable),
            ("NotImplemented", 501, StoreRefused),
            ("InvalidObjectState", 403, ObjectArchived),
            ("RequestTimeTooSkewed", 403, AccessDenied),
            ("", 403, AccessDenied),
            ("404", 404, ObjectMissing),
            ("EntityTooLarge", 400, StoreRefused),
        ],
    )
    def test_kinds(self, code: str, status: int, kind: type[FarsideError]) -> None:
        assert _kind_of_refusal(code, status)[0] is kind


def test_uses_are_noted(s3_server: Any) -> None:
    store = s3_server.store()
    store.join("west")
    with new_ledger() as uses:
        store.presign_get("base.000")
    noted = {(use.kind, use.name) for use in uses.uses() if use.domain == "west"}
    assert ("object", "s3://one/base.000") in noted
    assert {kind for kind, _ in noted} == {"object", "address", "credential", "certificate"}


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://x", "https://", "https://x/path"])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="endpoint"):
        S3Store(endpoint=endpoint, bucket="b")


def test_endpoint_addresses() -> None:
    assert S3Store(endpoint="https://s3.east", bucket="b").endpoints() == [("s3.east", 443)]
    assert S3Store(bucket="b", region="eu-north-1").endpoints() == [
        ("s3.eu-north-1.amazonaws.com", 443)
    ]
