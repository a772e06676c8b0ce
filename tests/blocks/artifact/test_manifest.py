"""Signed documents and signing keys."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from blocks.artifact import wire
from blocks.artifact.manifest import (
    KeyMalformed,
    LogIndex,
    Manifest,
    ManifestForged,
    ManifestMalformed,
    Part,
    SealedObject,
    Volume,
    generate_signing_key,
    key_id,
    public_key_of,
    sign,
    signer_of,
    verify,
)

SECRET = generate_signing_key()
PUBLIC = public_key_of(SECRET)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
OBJECT = SealedObject(
    name="base.tar.zst.age",
    raw_bytes=10,
    sealed_bytes=20,
    volumes=(Volume(key="base.tar.zst.age.000", bytes=20, parts=(Part(20, "ab" * 32),)),),
)
MANIFEST = Manifest(
    set_id="s",
    rehearsal_id="r",
    plan="p",
    engine="postgres",
    source="east",
    taken_at=NOW,
    completed_at=NOW,
    recipients=("age1x",),
    objects=(OBJECT,),
    engine_facts={"extensions": ["a", {"b": None}], "version": 18.1},
    farside_version="0.1.0",
)
INDEX = LogIndex(set_id="s", sequence=3, updated_at=NOW, objects=(OBJECT,))


@pytest.mark.parametrize(
    "key_id", ["\x1b[2J\x1b]0;VERIFIED\x07", "A" * 16, "a" * 17, "", "a" * 15 + "\n"]
)
def test_a_key_id_is_one_or_the_envelope_is_none(key_id: str) -> None:
    """It is not proven, and yet told to the operator."""
    outer = json.loads(sign(MANIFEST, SECRET)) | {"key_id": key_id}
    for read in (signer_of, lambda data: verify(data, PUBLIC)):
        with pytest.raises(ManifestMalformed, match="key_id is not 16 hexadecimal digits") as no:
            read(json.dumps(outer).encode())
        assert "\x1b" not in str(no.value)


@pytest.mark.parametrize("document", [MANIFEST, INDEX])
def test_signed_documents_come_back(document: Manifest | LogIndex) -> None:
    envelope = sign(document, SECRET)
    assert verify(envelope, PUBLIC) == document
    assert signer_of(envelope) == key_id(PUBLIC)
    assert sign(document, SECRET) == envelope


def test_another_key_is_a_forgery() -> None:
    with pytest.raises(ManifestForged, match=key_id(PUBLIC)):
        verify(sign(MANIFEST, generate_signing_key()), PUBLIC)


def test_a_changed_document_is_a_forgery() -> None:
    envelope = json.loads(sign(MANIFEST, SECRET))
    changed = wire.dumps(replace(MANIFEST, set_id="other")).encode()
    envelope["payload"] = base64.b64encode(changed).decode()
    with pytest.raises(ManifestForged):
        verify(json.dumps(envelope).encode(), PUBLIC)


def test_every_cut_is_malformed() -> None:
    envelope = sign(INDEX, SECRET).rstrip()
    for length in range(len(envelope)):
        with pytest.raises(ManifestMalformed):
            verify(envelope[:length], PUBLIC)


def test_a_newer_schema_is_named() -> None:
    envelope = sign(replace(MANIFEST, schema_version=2), SECRET)
    with pytest.raises(ManifestMalformed, match="schema version 2"):
        verify(envelope, PUBLIC)


@pytest.mark.parametrize(
    "text",
    ["", PUBLIC, SECRET[:-4], SECRET + "AAAA", "ed25519-secret:*"],
    ids=["empty", "public", "short", "long", "alphabet"],
)
def test_a_malformed_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(KeyMalformed) as refusal:
        sign(MANIFEST, text)
    assert not text or text not in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Part, '{"bytes":1}'),
        (Part, '{"bytes":true,"sha256":""}'),
        (Part, '{"bytes":1.0,"sha256":""}'),
        (Part, '{"bytes":1,"sha256":"","more":1}'),
        (Part, "[]"),
        (Part, "{"),
        (tuple[int, str], "[1]"),
        (datetime, '"2026-01-01T00:00:00"'),
        (Manifest | LogIndex, '{"document":"other"}'),
    ],
)
def test_what_does_not_fit_its_dataclass_is_refused(kind: type, text: str) -> None:
    with pytest.raises(wire.WireError):
        wire.loads(kind, text)
