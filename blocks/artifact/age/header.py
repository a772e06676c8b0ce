"""The header of an age v1 file: who can open it, and a MAC over that.

The rules are age's, applied strictly: canonical unpadded base64, lines of 64 columns, line feeds
alone, printable ASCII, one space between arguments.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from blocks.errors import PermanentError

INTRO = b"age-encryption.org/v1\n"
ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
FILE_KEY_BYTES = 16
_LABEL = b"age-encryption.org/v1/X25519"
_COLUMNS = 64
_LIMIT = 2**20  # a header of a thousand recipients is a tenth of this
_ARGUMENT = re.compile(rb"[\x21-\x7e]+")


class AgeMalformed(PermanentError):
    """Not an age v1 file, or cut off, or changed since it was sealed."""


class AgeNoIdentity(PermanentError):
    """The file is not sealed to any of the identities given."""


@dataclass(frozen=True, slots=True)
class Stanza:
    """One recipient's line of the header, and the wrapped file key."""

    arguments: tuple[bytes, ...]
    body: bytes


def write_header(file_key: bytes, recipients: Sequence[X25519PublicKey]) -> bytes:
    """The header, through the line feed after the MAC."""
    text = bytearray(INTRO)
    for recipient in recipients:
        stanza = _wrap(file_key, recipient)
        body = _encode(stanza.body)
        text += b"-> " + b" ".join(stanza.arguments) + b"\n"
        # A body always ends with a line shorter than 64 columns, be it empty.
        for start in range(0, len(body) + 1, _COLUMNS):
            text += body[start : start + _COLUMNS] + b"\n"
    text += b"---"
    return bytes(text) + b" " + _encode(_mac(file_key, text)) + b"\n"


def header_length(data: bytes | bytearray) -> int | None:
    """How long the header at the start of `data` is; None if more data is needed.

    Raises AgeMalformed as soon as the data cannot become a header.
    """
    if data.startswith(ARMOR):
        raise AgeMalformed(
            "an armored age file (PEM); only the binary format is read",
            hint="strip the armor with the reference command: age -d | age -r ...",
        )
    if not INTRO.startswith(data[: len(INTRO)]):
        raise AgeMalformed("not an age v1 file")
    mac = data.find(b"\n---")
    end = data.find(b"\n", mac + 1) if mac >= 0 else -1
    if end >= 0:
        return end + 1
    if len(data) > _LIMIT:
        raise AgeMalformed("a header without an end")
    return None


def open_header(header: bytes, identities: Iterable[X25519PrivateKey]) -> bytes:
    """The file key in a whole header. Raises AgeMalformed, AgeNoIdentity."""
    stanzas, mac = _parse(header)
    file_key = _unwrap_any(stanzas, list(identities))
    if file_key is None:
        raise AgeNoIdentity(
            f"sealed to {len(stanzas)} recipients, none of which is this identity",
            hint="fetch the private key of a recipient that the manifest names",
        )
    signed = header[: header.rindex(b"\n---") + len(b"\n---")]
    if not hmac.compare_digest(_mac(file_key, signed), mac):
        raise AgeMalformed("the header was changed: its MAC is wrong")
    return file_key


def _parse(header: bytes) -> tuple[list[Stanza], bytes]:
    lines = header.removeprefix(INTRO).split(b"\n")
    if not header.startswith(INTRO) or lines.pop() != b"":
        raise AgeMalformed("not an age v1 header")
    footer = lines.pop()
    if not footer.startswith(b"--- "):
        raise AgeMalformed("the header's last line is malformed")
    stanzas = []
    while lines:
        stanzas.append(_parse_stanza(lines))
    if not stanzas:
        raise AgeMalformed("a header without recipients")
    if len(stanzas) > 1 and any(stanza.arguments[0] == b"scrypt" for stanza in stanzas):
        raise AgeMalformed("a passphrase next to other recipients")
    mac = _decode(footer[4:])
    if len(mac) != hashlib.sha256().digest_size:
        raise AgeMalformed("the header's MAC has a wrong length")
    return stanzas, mac


def _parse_stanza(lines: list[bytes]) -> Stanza:
    """Takes one stanza off the front of `lines`."""
    start = lines.pop(0)
    arguments = start.removeprefix(b"-> ").split(b" ")
    if not start.startswith(b"-> ") or not all(map(_ARGUMENT.fullmatch, arguments)):
        raise AgeMalformed("a recipient's line is malformed")
    body = bytearray()
    while lines:
        line = lines.pop(0)
        if len(line) > _COLUMNS:
            raise AgeMalformed("a line of more than 64 columns")
        body += _decode(line)
        if len(line) < _COLUMNS:
            return Stanza(tuple(arguments), bytes(body))
    raise AgeMalformed("a recipient without an end")


def _wrap(file_key: bytes, recipient: X25519PublicKey) -> Stanza:
    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    try:
        secret = ephemeral.exchange(recipient)
    except ValueError:
        raise AgeMalformed("the recipient is a point of low order: no key") from None
    key = _derive(secret, share + recipient.public_bytes_raw(), _LABEL)
    body = ChaCha20Poly1305(key).encrypt(bytes(12), file_key, None)
    return Stanza((b"X25519", _encode(share)), body)


def _unwrap_any(stanzas: list[Stanza], identities: list[X25519PrivateKey]) -> bytes | None:
    found = None
    for stanza in stanzas:
        if stanza.arguments[0] != b"X25519":
            continue
        share = _share(stanza)  # malformed ones are refused, also behind the one that matches
        for identity in identities:
            found = found or _unwrap(stanza.body, share, identity)
    return found


def _share(stanza: Stanza) -> bytes:
    if len(stanza.arguments) != 2:
        raise AgeMalformed("an X25519 recipient with a wrong number of arguments")
    share = _decode(stanza.arguments[1])
    if len(share) != 32:
        raise AgeMalformed("an X25519 share of a wrong length")
    if len(stanza.body) != FILE_KEY_BYTES + 16:
        raise AgeMalformed("an X25519 body of a wrong length")
    return share


def _unwrap(body: bytes, share: bytes, identity: X25519PrivateKey) -> bytes | None:
    try:
        secret = identity.exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError:
        raise AgeMalformed("an X25519 share of low order") from None
    key = _derive(secret, share + identity.public_key().public_bytes_raw(), _LABEL)
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), body, None)
    except InvalidTag:
        return None


def payload_key(file_key: bytes, nonce: bytes) -> bytes:
    """The key of the chunks that follow the header and its 16-byte nonce."""
    return _derive(file_key, nonce, b"payload")


def new_file_key() -> bytes:
    """A random file key."""
    return os.urandom(FILE_KEY_BYTES)


def _mac(file_key: bytes, signed: bytes | bytearray) -> bytes:
    return hmac.digest(_derive(file_key, None, b"header"), signed, "sha256")


def _derive(secret: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def _encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    """Unpadded canonical base64: no padding, no white space, no bits to spare."""
    if b"=" in text:
        raise AgeMalformed("padded base64")
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise AgeMalformed("not base64") from None
    if _encode(data) != text:
        raise AgeMalformed("base64 that is not canonical")
    return data
