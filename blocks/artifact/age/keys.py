"""age's X25519 keys: recipients `age1...` (public), identities `AGE-SECRET-KEY-1...` (private)."""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from blocks.artifact.age import bech32
from blocks.errors import PermanentError

_RECIPIENT = "age"
_IDENTITY = "age-secret-key-"


class AgeKeyMalformed(PermanentError):
    """A text is not an age key. The message never repeats the text: it may be a secret."""


def generate_identity() -> str:
    """A new private key, `AGE-SECRET-KEY-1...`."""
    return bech32.encode(_IDENTITY, X25519PrivateKey.generate().private_bytes_raw()).upper()


def recipient_of(identity: str) -> str:
    """The recipient, `age1...`, of an identity. Raises AgeKeyMalformed."""
    return bech32.encode(_RECIPIENT, parse_identity(identity).public_key().public_bytes_raw())


def parse_recipient(text: str) -> X25519PublicKey:
    """The public key in `age1...`. Raises AgeKeyMalformed."""
    return X25519PublicKey.from_public_bytes(
        _raw(text, _RECIPIENT, str.islower, "an age recipient (age1...)")
    )


def parse_identity(text: str) -> X25519PrivateKey:
    """The private key in `AGE-SECRET-KEY-1...`. Raises AgeKeyMalformed."""
    return X25519PrivateKey.from_private_bytes(
        _raw(text, _IDENTITY, str.isupper, "an age identity (AGE-SECRET-KEY-1...)")
    )


def read_identities(text: str) -> list[X25519PrivateKey]:
    """The keys of an identity file: one a line, empty lines and # comments aside.

    Raises AgeKeyMalformed, with the line's number, also if there is none.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            found.append(parse_identity(entry))
        except AgeKeyMalformed as error:
            raise AgeKeyMalformed(f"line {number}: {error.message}") from None
    if not found:
        raise AgeKeyMalformed("no identity in the file")
    return found


def without_comments(text: str) -> str:
    """An identity file without its empty lines and # comments, which age-keygen writes."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def _raw(text: str, prefix: str, cased: Callable[[str], bool], what: str) -> bytes:
    text = text.strip()
    try:
        found, raw = bech32.decode(text)
    except ValueError as error:
        raise AgeKeyMalformed(f"not {what}: {error}") from None
    if found != prefix or len(raw) != 32 or not cased(text):
        raise AgeKeyMalformed(f"not {what}: another kind of key")
    return raw
