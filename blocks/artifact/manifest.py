"""What a backup set consists of, signed: the first thing that is checked after the gap.

A signed document is an envelope, JSON with the base64 of the document's canonical JSON
(`payload`), an Ed25519 `signature` of exactly those bytes, and the signer's `key_id`.
"""

import base64
import binascii
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
    "SignatureRefused",
    "Volume",
    "generate_signing_key",
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


class ManifestForged(PermanentError):
    """The signature is not the pinned key's: the document was changed, or somebody else signed."""

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


def sign(document: Manifest | LogIndex, private_key: str) -> bytes:
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


def verify(envelope: bytes, public_key: str) -> Manifest | LogIndex:
    """The document inside, if `public_key` signed it.

    Raises ManifestForged, ManifestMalformed, KeyMalformed.
    """
    outer = _open(envelope)
    try:
        payload = base64.b64decode(outer.payload, validate=True)
        signature = base64.b64decode(outer.signature, validate=True)
    except (binascii.Error, ValueError):
        raise ManifestMalformed("the envelope's payload or signature is not base64") from None
    try:
        verify_bytes(payload, signature, public_key)
    except SignatureRefused:
        pinned = key_id(public_key)
        raise ManifestForged(
            f"changed after key {pinned} signed it"
            if outer.key_id == pinned
            else f"signed by key {outer.key_id}; the plan pins {pinned}",
            operation="verify manifest",
            hint="do not restore this set; choose another, and find out who wrote to the store",
        ) from None
    return _document(payload)


def _open(envelope: bytes) -> _Envelope:
    try:
        return wire.loads(_Envelope, envelope)
    except PermanentError as error:
        raise ManifestMalformed(
            f"not a signed document: {error.message}",
            operation="verify manifest",
            hint="the object may be cut off: compare its size in both stores",
        ) from None


def _document(payload: bytes) -> Manifest | LogIndex:
    try:
        raw = wire.loads(dict[str, Any], payload)
        version = raw.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ManifestMalformed(
                f"schema version {version}; this farside reads up to {SCHEMA_VERSION}",
                hint="install the farside that wrote it, or a newer one",
            )
        return wire.decode(Manifest | LogIndex, raw)  # type: ignore[no-any-return]
    except wire.WireError as error:
        raise ManifestMalformed(f"the signed document is not ours: {error.message}") from None
