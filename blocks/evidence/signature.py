"""The signature of a record: a file next to it, REHEARSAL_ID.json.sig, 64 bytes of Ed25519."""

from pathlib import Path

from pydantic import SecretStr

from blocks.artifact.signing import sign_bytes, verify_bytes
from blocks.errors import PermanentError
from blocks.evidence.files import write_atomically
from blocks.evidence.record import Record


class RecordUnsigned(PermanentError):
    """There is no signature next to the record."""


def signature_path(path: Path) -> Path:
    """Where the signature of the record at `path` lies."""
    return path.with_name(f"{path.name}.sig")


def sign(path: Path, private_key: SecretStr) -> Path:
    """Sign the record at `path` as it is on disk; returns the signature's path.

    Raises:
        KeyMalformed: `private_key` is not a signing key.
        PermanentError: a file cannot be read or written.
    """
    signed = signature_path(path)
    write_atomically(signed, sign_bytes(_read(path), private_key.get_secret_value()))
    return signed


def load_signed(path: Path, public_key: str) -> Record:
    """The record at `path`, if the signature next to it is that of `public_key`.

    Raises:
        RecordUnsigned: there is no signature.
        SignatureRefused: record or signature are not what was signed with this key.
        PermanentError: a file cannot be read, or is no record (see `Record.from_json`).
    """
    document, signed = _read(path), signature_path(path)
    signature = _read(signed) if signed.exists() else None
    return proven(document, signature, public_key, str(path))


def proven(document: bytes, signature: bytes | None, public_key: str, origin: str) -> Record:
    """The record in `document`, if `signature` is that of `public_key`; `origin` is its name.

    Raises RecordUnsigned, SignatureRefused, and as `Record.from_json`.
    """
    if signature is None:
        raise RecordUnsigned(
            "there is no signature",
            operation=f"reading {origin}.sig",
            hint="compare the record with the copy in the recovery domain's store",
        )
    verify_bytes(document, signature, public_key)
    return Record.from_json(document, origin)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PermanentError(
            error.strerror or str(error),
            operation=f"reading {path}",
            hint="check the path and its permissions",
        ) from error
