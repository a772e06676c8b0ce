"""Sets are a plan's own: signed, of this plan, and no older than they were."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from blocks.artifact.manifest import (
    LogIndex,
    Manifest,
    ManifestForged,
    ManifestMalformed,
    Part,
    SealedObject,
    SetHeader,
    Volume,
    digest_of,
    generate_signing_key,
    header_of,
    public_key_of,
    sign,
)
from blocks.domain import FailureDomain
from blocks.engines.command.facts import CommandFacts
from blocks.engines.engine import Captured
from blocks.hosts.local import LocalHost
from blocks.repositories.farside.binding import Binding, ForeignSet, KnownState
from blocks.repositories.farside.layout import HEADER, LOG, MANIFEST
from blocks.repositories.farside.listing import NoSuchSet, choose, headers, set_ids
from blocks.repositories.farside.reader import SetReader
from blocks.repositories.farside.writer import Load, SetWriter
from blocks.stores.s3 import DOCUMENT_BYTES, S3Store
from blocks.stores.store import StoreRefused
from tests.conftest import Hanging

KEY, OLD_KEY, OTHER_KEY = (generate_signing_key() for _ in range(3))
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
BINDING = Binding("shop", "postgres", "east", (public_key_of(KEY), public_key_of(OLD_KEY)))


def manifest(set_id: str, **more: Any) -> Manifest:
    values: dict[str, Any] = {
        "set_id": set_id,
        "rehearsal_id": set_id,
        "plan": "shop",
        "engine": "postgres",
        "source": "east",
        "taken_at": NOW,
        "completed_at": NOW,
        "recipients": ("age1x",),
        "objects": (),
        "engine_facts": {},
        "farside_version": "0",
    }
    return Manifest(**(values | more))


class Sets:
    """A store, and sets in it."""

    def __init__(self, store: S3Store) -> None:
        self.store = store

    def add(self, set_id: str, key: str = KEY, sequence: int = 1, **more: Any) -> Manifest:
        made = manifest(**({"set_id": set_id} | more))
        log = LogIndex(set_id=set_id, sequence=sequence, updated_at=NOW, objects=())
        envelope = sign(made, key)
        self.store.put(f"sets/shop/{set_id}/{LOG}", sign(log, key))
        self.store.put(f"sets/shop/{set_id}/{HEADER}", sign(header_of(made, len(envelope)), key))
        self.store.put(f"sets/shop/{set_id}/{MANIFEST}", envelope)
        return made

    def reader(self, set_id: str) -> SetReader:
        recovery = FailureDomain(name="west", hosts=[LocalHost(name="db1")], store=self.store)
        return SetReader(recovery, BINDING, set_id, set_id)


@pytest.fixture
def sets(s3_server: Any) -> Iterator[Sets]:
    store = s3_server.store(prefix=uuid4().hex)
    yield Sets(store)
    store.close()


def test_a_set_of_this_plan(sets: Sets) -> None:
    made = sets.add("r1", sequence=7)
    assert sets.reader("r1").manifest() == made
    assert sets.reader("r1").log().sequence == 7


@pytest.mark.parametrize(
    "differs",
    [{"plan": "staging"}, {"engine": "etcd"}, {"source": "south"}, {"set_id": "r2"}],
    ids=lambda item: next(iter(item)),
)
def test_a_signed_set_of_something_else(sets: Sets, differs: dict[str, str]) -> None:
    sets.add("r1")
    envelope = sign(replace(manifest("r1"), **differs), KEY)  # type: ignore[arg-type]
    sets.store.put(f"sets/shop/r1/{MANIFEST}", envelope)
    with pytest.raises(ForeignSet, match=str(next(iter(differs.values())))) as caught:
        sets.reader("r1").manifest()
    assert caught.value.finding == "set-of-another-plan"
    with pytest.raises(ForeignSet):
        choose(sets.store, BINDING, "latest")


def test_the_log_of_another_set_and_a_document_of_another_kind(sets: Sets) -> None:
    sets.add("r1")
    sets.add("r2")
    sets.store.put(f"sets/shop/r1/{LOG}", sets.store.get(f"sets/shop/r2/{LOG}"))
    with pytest.raises(ForeignSet):
        sets.reader("r1").log()
    sets.store.put(f"sets/shop/r1/{LOG}", sets.store.get(f"sets/shop/r1/{MANIFEST}"))
    with pytest.raises(ManifestMalformed, match="another kind"):
        sets.reader("r1").log()


def test_sets_of_before_a_change_of_key(sets: Sets) -> None:
    sets.add("r1", OLD_KEY)
    sets.add("r2")
    sets.add("r3", OTHER_KEY)
    sets.reader("r1").manifest()
    with pytest.raises(ManifestForged):
        sets.reader("r3").manifest()


def test_names_that_anyone_can_write_block_nothing(sets: Sets) -> None:
    """`latest`, `oldest` and `random` are chosen among proven sets."""
    sets.add("r1")
    sets.add("r2")
    sets.store.put(f"sets/shop/zzz/{MANIFEST}", b"not signed")
    sets.store.put(f"sets/shop/zzz/deeper/{MANIFEST}", b"not signed")
    sets.add("r9", OTHER_KEY)
    sets.add("r0", plan="staging")
    latest = choose(sets.store, BINDING, "latest")
    assert latest.set_id == "r2"
    assert [error.subject for error in latest.passed_over] == ["set zzz", "set r9"]
    assert choose(sets.store, BINDING, "oldest").set_id == "r1"
    assert {choose(sets.store, BINDING, "random").set_id for _ in range(12)} <= {"r1", "r2"}
    with pytest.raises(ManifestMalformed):
        choose(sets.store, BINDING, "zzz")
    with pytest.raises(NoSuchSet):
        choose(sets.store, BINDING, "deeper")
    found = dict(headers(sets.store, BINDING))
    assert list(found) == set_ids(sets.store, "shop") == ["r0", "r1", "r2", "r9", "zzz"]
    kinds = {set_id: type(item).__name__ for set_id, item in found.items()}
    assert kinds == {
        "r0": "ForeignSet",
        "r1": "SetHeader",
        "r2": "SetHeader",
        "r9": "ManifestForged",
        "zzz": "ManifestMalformed",
    }


def test_lists_read_headers_not_manifests(sets: Sets) -> None:
    """A manifest of terabytes has megabytes: a hundred of them are not read to list sets."""
    made = sets.add("r1", recipients=("age1y",))
    size = len(sets.store.get(f"sets/shop/r1/{MANIFEST}"))
    sets.store.put(f"sets/shop/r1/{MANIFEST}", bytes(size))
    ((_, header),) = headers(sets.store, BINDING)
    assert header == header_of(made, size)
    sets.store.put(f"sets/shop/r1/{MANIFEST}", bytes(size + 1))
    ((_, header),) = headers(sets.store, BINDING)
    assert isinstance(header, ManifestForged)


def test_a_set_without_a_header_is_listed_by_its_manifest(sets: Sets) -> None:
    sets.add("r1")
    sets.store.remove([f"sets/shop/r1/{HEADER}"])
    ((_, header),) = headers(sets.store, BINDING)
    assert isinstance(header, SetHeader)


def test_an_interruption_does_not_wait_for_a_header_that_hangs(
    sets: Sets, monkeypatch: pytest.MonkeyPatch, hanging: Hanging
) -> None:
    sets.add("r1")
    sets.add("r2")

    def get(_: S3Store, key: str) -> bytes:
        if "/r2/" in key:
            hanging.hang()
        hanging.interrupt()

    monkeypatch.setattr(S3Store, "get", get)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(headers(sets.store, BINDING))
    assert time.monotonic() - began < 10


def test_an_older_state_is_noticed() -> None:
    written = manifest("r1")
    known = KnownState("r1", 5, digest_of(written))
    known.compare(digest_of(written), 5)
    known.compare(digest_of(written), 6)
    with pytest.raises(ForeignSet, match="number 4; number 5"):
        known.compare(digest_of(written), 4)
    with pytest.raises(ForeignSet, match="not the one that was written"):
        known.compare(digest_of(manifest("r1", engine_facts={"bytes": 2})), 5)
    KnownState("r1", 5).compare("any", 5)


def part(size: int) -> Part:
    return Part(size, "0" * 64)


@pytest.mark.parametrize(
    "hostile",
    [
        SealedObject("../x", 1, 0, ()),
        SealedObject("$(id)", 1, 0, ()),
        SealedObject("a\n", 1, 0, ()),
        SealedObject("/etc/x", 1, 0, ()),
        SealedObject("x", -1, 0, ()),
        SealedObject("x", 1, 5, ()),
        SealedObject("x", 1, 1, (Volume("../y", 1, (part(1),)),)),
        SealedObject("x", 1, 1, (Volume("x", 1, (part(2),)),)),
        SealedObject("x", 1, 2**40, (Volume("x", 2**40, (part(2**40),)),)),
        SealedObject("x", 1, 0, (Volume("x", 0, (part(0),)),)),
        SealedObject("x", 1, 1, (Volume("x", 1, (Part(1, "$(id)"),)),)),
    ],
)
def test_objects_whose_names_or_sizes_are_no_objects(sets: Sets, hostile: SealedObject) -> None:
    assert hostile.mistake()
    sets.add("r1", objects=(hostile,))
    with pytest.raises(ManifestMalformed):
        sets.reader("r1").manifest()


def test_a_document_without_an_end(
    sets: Sets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del tmp_path
    assert DOCUMENT_BYTES >= 2**26
    monkeypatch.setattr("blocks.stores.s3.DOCUMENT_BYTES", 1000)
    sets.store.put("large", bytes(1001))
    with pytest.raises(StoreRefused, match="larger than 1,000"):
        sets.store.get("large")


def test_what_a_set_is_read_by_survives_its_pruning(sets: Sets) -> None:
    """Its header, too: without it every list would read its manifest."""
    source = FailureDomain(name="east", hosts=[LocalHost(name="db1")], store=sets.store)
    writer = SetWriter(source, "shop", "r1", ["age1x"], "postgres", Load())
    writer.finish(Captured(NOW, NOW, CommandFacts("7.0", 1)), SecretStr(KEY))
    sets.store.put("sets/shop/r1/wal/of-an-attempt-before.zst.age", b"x")
    writer.prune(sets.store)
    there = {info.key.rpartition("/")[2] for info in sets.store.objects("sets/shop/r1/")}
    assert there == {HEADER, LOG, MANIFEST}
    assert sets.reader("r1").manifest().plan == "shop"
