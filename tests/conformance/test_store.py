"""What `blocks/stores/store.py` says of every store: objects, uploads in parts, URLs, errors."""

import http.client
import os
import socket
import ssl
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.uses import new_ledger
from blocks.stores.store import (
    AccessDenied,
    ObjectMissing,
    ObjectStore,
    StoreUnavailable,
    StoreUntrusted,
)
from tests.conformance.table import STORES, Implementation
from tests.conformance.worlds import StoreUnderTest

PART = 5 * 2**20


@pytest.fixture(params=STORES, ids=str)
def world(request: pytest.FixtureRequest) -> StoreUnderTest:
    kind: Implementation = request.param
    made = kind.made(request)
    assert isinstance(made, StoreUnderTest)
    assert isinstance(made.store, kind.block)
    return made


@pytest.fixture
def store(world: StoreUnderTest) -> Iterator[ObjectStore]:
    yield world.store
    world.store.close()


def send(
    store: ObjectStore, method: str, url: str, body: bytes | None = None
) -> tuple[int, str, bytes]:
    """One request as the agent makes it: http.client, the store's CA, nothing else."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cadata=store.ca_pem)
    connection = http.client.HTTPSConnection(parts.netloc, context=context, timeout=20)
    connection.request(method, f"{parts.path}?{parts.query}", body)
    answer = connection.getresponse()
    return answer.status, answer.getheader("ETag") or "", answer.read()


class TestObjects:
    def test_put_head_get_remove(self, store: ObjectStore) -> None:
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

    def test_its_own_clock(self, store: ObjectStore) -> None:
        assert abs((store.now() - datetime.now(UTC)).total_seconds()) < 60
        store.put("x", b"x")
        age = store.age("x")
        assert age is not None
        assert -2 < age < 60
        assert store.age("no-such-key") is None

    def test_what_is_missing(self, world: StoreUnderTest, store: ObjectStore) -> None:
        with pytest.raises(ObjectMissing, match=r"get s3://one/.*nothing"):
            store.get("nothing")
        with pytest.raises(ObjectMissing, match="make the bucket"):
            world.no_bucket.get("nothing")

    def test_listing(self, store: ObjectStore) -> None:
        keys = [f"sets/a/{n:04d}" for n in range(30)]
        for key in [*keys, "sets/ab", "zoo"]:
            store.put(key, b"x")
        found = list(store.objects("sets/a/"))
        assert [info.key for info in found] == keys
        assert {(info.size, info.storage_class) for info in found} == {(1, "STANDARD")}
        assert [info.key for info in store.objects()] == [*keys, "sets/ab", "zoo"]
        assert list(store.objects("nothing/")) == []
        store.remove(key for key in keys)
        assert [info.key for info in store.objects()] == ["sets/ab", "zoo"]

    def test_keys_are_below_its_prefix(self, world: StoreUnderTest) -> None:
        place = uuid.uuid4().hex
        whole = world.folder(place)
        for prefix in (f"{place}/team", f"/{place}/team", f"{place}/team/"):
            folder = world.folder(prefix)
            folder.put("x", b"x")
            assert whole.get("team/x") == b"x"
            assert [info.key for info in folder.objects()] == ["x"]
            folder.remove(["x"])
            assert list(whole.objects()) == []

    def test_close_and_use_again(self, store: ObjectStore) -> None:
        for _ in range(2):
            store.put("x", b"x")
            store.close()
            store.close()


class TestUploads:
    def test_parts_through_presigned_urls(self, store: ObjectStore) -> None:
        parts = [os.urandom(PART), os.urandom(PART), b"the rest"]
        upload = store.create_upload("big.000")
        etags = {}
        for number in (2, 1, 3):  # as they come: the numbers tell the order
            url = store.presign_part("big.000", upload, number)
            status, etags[number], _ = send(store, "PUT", url, parts[number - 1])
            assert status == 200
        assert store.head("big.000") is None, "before it is complete there is nothing"
        store.complete_upload("big.000", upload, [etags[number] for number in (1, 2, 3)])
        status, _, body = send(store, "GET", store.presign_get("big.000"))
        assert (status, body) == (200, b"".join(parts))

    def test_how_long_presigned_urls_work(self, store: ObjectStore) -> None:
        """One that writes must not outlive its rehearsal by hours: it would replace objects."""

        def seconds(url: str) -> int:
            (given,) = parse_qs(urlsplit(url).query)["X-Amz-Expires"]
            return int(given)

        assert seconds(store.presign_put("wal/x")) == 900
        assert seconds(store.presign_part("big.000", "u", 1)) == 900
        assert seconds(store.presign_get("big.000")) == 6 * 3600
        assert seconds(store.presign_get("big.000", 60)) == 60

    def test_put_through_a_presigned_url(self, store: ObjectStore) -> None:
        assert send(store, "PUT", store.presign_put("wal/x y+z"), b"data")[0] == 200
        assert store.get("wal/x y+z") == b"data"

    def test_a_url_opens_nothing_else(self, world: StoreUnderTest, store: ObjectStore) -> None:
        if world.refused is None:
            return  # this service lets everyone in, with any URL
        store.put("a", b"a")
        store.put("b", b"b")
        url = store.presign_get("a")
        assert send(store, "GET", url.replace("/a?", "/b?"))[0] == 403
        assert send(store, "PUT", url, b"changed")[0] == 403
        assert send(store, "GET", store.presign_get("a", expires=-5))[0] in (400, 403)

    def test_abort(self, world: StoreUnderTest, store: ObjectStore) -> None:
        upload = store.create_upload("big")
        for _ in range(2):
            store.abort_upload("big", upload)
        with pytest.raises(StoreUnavailable if world.fails_at_aborted_uploads else ObjectMissing):
            store.complete_upload("big", upload, ['"x"'])
        assert store.head("big") is None

    def test_listing_uploads_never_fails(self, store: ObjectStore) -> None:
        upload = store.create_upload("big")
        assert [found.upload_id for found in store.uploads()] in ([], [upload])
        store.abort_upload("big", upload)
        assert store.uploads() == []


METHODS: dict[str, Callable[[ObjectStore], object]] = {
    "put": lambda store: store.put("x", b"x"),
    "get": lambda store: store.get("x"),
    "head": lambda store: store.head("x"),
    "now": lambda store: store.now(),
    "age": lambda store: store.age("x"),
    "objects": lambda store: list(store.objects()),
    "remove one": lambda store: store.remove(["x"]),
    "remove many": lambda store: store.remove(["x", "y"]),
    "create_upload": lambda store: store.create_upload("x"),
    "complete_upload": lambda store: store.complete_upload("x", "u", ['"x"']),
    "abort_upload": lambda store: store.abort_upload("x", "u"),
    "uploads": lambda store: store.uploads(),
}


class TestErrors:
    @pytest.mark.parametrize("method", METHODS)
    def test_of_a_service_that_is_not_trusted(self, world: StoreUnderTest, method: str) -> None:
        world.untrusted.join("west")
        with pytest.raises(StoreUntrusted) as caught:
            METHODS[method](world.untrusted)
        assert (caught.value.domain, caught.value.finding) == ("west", "ca-unknown")
        assert "ca_file" in caught.value.hint

    def test_of_a_service_that_does_not_answer(self, world: StoreUnderTest) -> None:
        world.unreachable.join("west")
        with pytest.raises(StoreUnavailable, match="is the store up") as caught:
            world.unreachable.get("x")
        assert isinstance(caught.value, TransientError)
        assert (caught.value.domain, caught.value.finding) == ("west", "store-unreachable")

    def test_of_credentials_that_are_refused(self, world: StoreUnderTest) -> None:
        if world.refused is None:
            return  # this service lets everyone in
        for method in ("put", "get", "objects", "create_upload"):
            with pytest.raises(AccessDenied, match="credentials") as caught:
                METHODS[method](world.refused)
            assert isinstance(caught.value, PermanentError)

    def test_no_secret_is_shown(self, store: ObjectStore) -> None:
        secret = "a/secret+with=signs"
        assert secret not in repr(store)
        with pytest.raises(FarsideError) as caught:
            store.get("nothing")
        assert secret not in str(caught.value)


def test_uses_are_noted(store: ObjectStore) -> None:
    store.join("west")
    with new_ledger() as uses:
        url = store.presign_get("base.000")
    noted = {(use.kind, use.name) for use in uses.uses() if use.domain == "west"}
    assert ("object", f"s3:/{urlsplit(url).path}") in noted
    assert {kind for kind, _ in noted} == {"object", "address", "credential", "certificate"}
    assert {name for kind, name in noted if kind == "credential"} == store.credentials()


def test_it_answers_where_it_says(store: ObjectStore) -> None:
    for place in store.endpoints():
        socket.create_connection(place, timeout=20).close()


def test_a_plan_keeps_it_as_it_is(store: ObjectStore) -> None:
    document = store.model_dump(mode="json")
    assert type(store).model_validate(document).model_dump(mode="json") == document


def test_what_it_names_are_fields_of_a_plan(store: ObjectStore) -> None:
    fields = type(store).model_fields
    assert store.address_field in fields
    for file in store.own_files():
        assert (file.field in fields, Path(file.path).is_file()) == (True, True)
    assert store.short_name


def test_what_its_login_says_holds_no_secret(store: ObjectStore) -> None:
    for line in store.login_lines():
        assert "secret" not in line.text
        assert line.file.read_text().splitlines()[line.number - 1].endswith(line.text)


def test_a_runbook_can_be_run_by_a_shell(store: ObjectStore) -> None:
    script = "\n".join(store.fetch_commands("sets/one/"))
    subprocess.run(["sh", "-n"], input=script.encode(), check=True)
    assert "fetch()" in script
