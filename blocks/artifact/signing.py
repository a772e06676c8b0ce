"""Ed25519 signatures of documents, and keys as text that fits in a plan or a vault."""

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from blocks.errors import PermanentError

PUBLIC = "ed25519:"
SECRET = "ed25519-secret:"


class KeyMalformed(PermanentError):
    """A text is not a signing key. The message never repeats the text: it may be a secret."""


class SignatureRefused(PermanentError):
    """A signature does not belong to these bytes and this key."""


def generate_signing_key() -> str:
    """A new private key as text, `ed25519-secret:BASE64`."""
    return SECRET + base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key_of(private_key: str) -> str:
    """The public key, `ed25519:BASE64`, of a private one. Raises KeyMalformed."""
    raw = _private(private_key).public_key().public_bytes_raw()
    return PUBLIC + base64.b64encode(raw).decode()


def parse_public_key(text: str) -> Ed25519PublicKey:
    """The key in `ed25519:BASE64`. Raises KeyMalformed."""
    return Ed25519PublicKey.from_public_bytes(_raw(text, PUBLIC))


def key_id(public_key: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the raw public key. Raises KeyMalformed."""
    return hashlib.sha256(_raw(public_key, PUBLIC)).hexdigest()[:16]


def sign_bytes(data: bytes, private_key: str) -> bytes:
    """The detached signature (64 bytes) of `data`. Raises KeyMalformed."""
    return _private(private_key).sign(data)


def verify_bytes(data: bytes, signature: bytes, public_key: str) -> None:
    """Returns if `signature` is the key's for `data`. Raises SignatureRefused, KeyMalformed."""
    key = parse_public_key(public_key)
    try:
        key.verify(signature, data)
    except InvalidSignature:
        raise SignatureRefused(
            f"the signature is not that of key {key_id(public_key)}",
            hint="compare the public key pinned in the plan with the key that signed",
        ) from None


def _private(text: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_raw(text, SECRET))


def _raw(text: str, prefix: str) -> bytes:
    text = text.strip()
    if text.startswith(prefix):
        try:
            raw = base64.b64decode(text[len(prefix) :], validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) == 32:
            return raw
    raise KeyMalformed(f"not a signing key: {prefix} and the base64 of 32 bytes were expected")
