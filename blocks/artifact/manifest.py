"""What a backup set consists of, signed: the first thing that is checked after the gap.

A signed document is an envelope, JSON with the base64 of the document's canonical JSON
(`payload`), an Ed25519 `signature` of exactly those bytes, and the signer's `key_id`.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from blocks.artifact import wire
from blocks.artifact.objects import Part, SealedObject, Volume
from blocks.artifact.signing import (
    KeyMalformed,
    SignatureRefused,
    generate_signing_key,
    key_id,
    parse_public_key,
    public_key_of,
    sign_bytes,
    verify_bytes,
)
from blocks.errors import PermanentError

__all__ = [
    "KeyMalformed",
    "LogIndex",
    "Manifest",
    "ManifestForged",
    "ManifestMalformed",
    "Part",
    "SealedObject",
    "SetHeader",
    "SignatureRefused",
    "Volume",
    "digest_of",
    "generate_signing_key",
    "header_of",
    "key_id",
    "parse_public_key",
    "public_key_of",
    "sign",
    "sign_bytes",
    "signer_of",
    "verify",
    "verify_bytes",
]

SCHEMA_VERSION = 1
_KEY_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


class ManifestForged(PermanentError):
    """The signature is not the pinned key's: the document was changed, or signed by another key."""

    finding = "manifest-forged"


class ManifestMalformed(PermanentError):
    """The document cannot be read: cut off, not ours, or of a newer schema."""

    finding = "manifest-forged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One backup set. Times in UTC; `objects` in the order in which they are restored.

    `taken_at` is when the backup began, `completed_at` when its last byte was stored;
    `recipients` are the age recipients that can open it; `engine_facts` are the engine's own.
    """

    document: Literal["manifest"] = "manifest"
    schema_version: int = SCHEMA_VERSION
    set_id: str
    rehearsal_id: str
    plan: str
    engine: str
    source: str
    taken_at: datetime
    completed_at: datetime
    recipients: tuple[str, ...]
    objects: tuple[SealedObject, ...]
    engine_facts: Mapping[str, Any]
    farside_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHeader:
    """What a list of sets shows of one: its manifest without objects and facts, which are long.

    `sealed_bytes` is what is stored of its objects, `manifest_bytes` the size of its manifest.
    """

    document: Literal["header"] = "header"
    schema_version: int = SCHEMA_VERSION
    set_id: str
    plan: str
    engine: str
    source: str
    taken_at: datetime
    recipients: tuple[str, ...]
    sealed_bytes: int
    manifest_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIndex:
    """The log (WAL, binlog) stored for a set so far; a higher `sequence` replaces a lower one."""

    document: Literal["log-index"] = "log-index"
    schema_version: int = SCHEMA_VERSION
    set_id: str
    sequence: int
    updated_at: datetime
    objects: tuple[SealedObject, ...]


@dataclass(frozen=True, slots=True)
class _Envelope:
    payload: str
    signature: str
    key_id: str


Document = Manifest | LogIndex | SetHeader


def header_of(manifest: Manifest, manifest_bytes: int) -> SetHeader:
    """The header of a set whose signed manifest takes so many bytes."""
    return SetHeader(
        set_id=manifest.set_id,
        plan=manifest.plan,
        engine=manifest.engine,
        source=manifest.source,
        taken_at=manifest.taken_at,
        recipients=manifest.recipients,
        sealed_bytes=sum(item.sealed_bytes for item in manifest.objects),
        manifest_bytes=manifest_bytes,
    )


def digest_of(document: Document) -> str:
    """SHA-256 of a document, as it is signed."""
    return hashlib.sha256(wire.dumps(document).encode()).hexdigest()


def sign(document: Document, private_key: str) -> bytes:
    """The signed envelope, as stored. Raises KeyMalformed."""
    payload = wire.dumps(document).encode()
    envelope = _Envelope(
        payload=base64.b64encode(payload).decode(),
        signature=base64.b64encode(sign_bytes(payload, private_key)).decode(),
        key_id=key_id(public_key_of(private_key)),
    )
    return wire.dumps(envelope).encode() + b"\n"


def signer_of(envelope: bytes) -> str:
    """The key id that an envelope claims; a claim, not yet proven. Raises ManifestMalformed."""
    return _open(envelope).key_id


def verify(envelope: bytes, *public_keys: str) -> Document:
    """The document inside, if one of `public_keys` signed it.

    Raises ManifestForged, ManifestMalformed, KeyMalformed.
    """
    outer = _open(envelope)
    pinned = [key_id(key) for key in public_keys]
    known = [key for key, pin in zip(public_keys, pinned, strict=True) if pin == outer.key_id]
    try:
        payload = base64.b64decode(outer.payload, validate=True)
        signature = base64.b64decode(outer.signature, validate=True)
    except (binascii.Error, ValueError):
        raise ManifestMalformed("the envelope's payload or signature is not base64") from None
    try:
        verify_bytes(payload, signature, (known or public_keys)[0])
    except SignatureRefused:
        raise ManifestForged(
            f"changed after key {outer.key_id} signed it"
            if known
            else f"signed by key {outer.key_id}; the plan pins {', '.join(pinned)}",
            operation="verify manifest",
            hint="do not restore this set; choose another, and find out who wrote to the store",
        ) from None
    return _document(payload)


def _open(envelope: bytes) -> _Envelope:
    try:
        outer = wire.loads(_Envelope, envelope)
        if not _KEY_ID.fullmatch(outer.key_id):
            raise wire.WireError("its key_id is not 16 hexadecimal digits")
    except PermanentError as error:
        raise ManifestMalformed(
            f"not a signed document: {error.message}",
            operation="verify manifest",
            hint="the object may be cut off: compare its size in both stores",
        ) from None
    return outer


def _document(payload: bytes) -> Document:
    try:
        raw = wire.loads(dict[str, Any], payload)
        version = raw.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ManifestMalformed(
                f"schema version {version}; this farside reads up to {SCHEMA_VERSION}",
                hint="install the farside that wrote it, or a newer one",
            )
        document: Document = wire.decode(Document, raw)
    except wire.WireError as error:
        raise ManifestMalformed(f"the signed document is not ours: {error.message}") from None
    if not isinstance(document, SetHeader):
        for item in document.objects:
            if wrong := item.mistake():
                raise ManifestMalformed(f"object {item.name[:100]!r}: {wrong}")
    return document
