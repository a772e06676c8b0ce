"""The age v1 file format (https://age-encryption.org/v1), X25519 recipients.

A file is a header (see `header`), a nonce of 16 bytes, and the plaintext in chunks of 64 KiB,
each sealed with ChaCha20-Poly1305; the last is marked, so that a cut-off file is noticed.
`python -m blocks.artifact.age` is a filter that works as the reference command does.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from blocks.artifact.age.header import (
    AgeMalformed,
    AgeNoIdentity,
    header_length,
    new_file_key,
    open_header,
    payload_key,
    write_header,
)
from blocks.artifact.age.keys import (
    AgeKeyMalformed,
    generate_identity,
    parse_identity,
    parse_recipient,
    read_identities,
    recipient_of,
)

__all__ = [
    "CHUNK",
    "SEALED_CHUNK",
    "AgeKeyMalformed",
    "AgeMalformed",
    "AgeNoIdentity",
    "Decryptor",
    "Encryptor",
    "decrypt",
    "encrypt",
    "generate_identity",
    "parse_identity",
    "parse_recipient",
    "read_identities",
    "recipient_of",
]

CHUNK: Final = 64 * 1024
TAG: Final = 16
SEALED_CHUNK: Final = CHUNK + TAG
_NONCE: Final = 16
_BATCH: Final = 16  # chunks of plaintext handed out at once
# Older `cryptography`, as on hosts with a distribution's Python, cannot write into a buffer.
_INTO: Final = hasattr(ChaCha20Poly1305, "encrypt_into")

Buffer: TypeAlias = bytes | bytearray | memoryview


class Encryptor:
    """Seals chunks, one after the other. `header` comes before the first."""

    def __init__(self, recipients: Sequence[X25519PublicKey]) -> None:
        """Raises AgeKeyMalformed without recipients, AgeMalformed for one of low order."""
        if not recipients:
            raise AgeKeyMalformed("no recipient was given")
        file_key, nonce = new_file_key(), os.urandom(_NONCE)
        self.header = write_header(file_key, recipients) + nonce
        self._cipher = ChaCha20Poly1305(payload_key(file_key, nonce))
        self._count = 0

    def seal_into(self, chunk: Buffer, out: memoryview, *, last: bool = False) -> None:
        """Seal `chunk` into `out`, which is 16 bytes longer; all but the last are CHUNK bytes."""
        nonce = _nonce(self._count, last)
        self._count += 1
        if _INTO:
            self._cipher.encrypt_into(nonce, chunk, None, out)
        else:
            out[:] = self._cipher.encrypt(nonce, bytes(chunk), None)

    def seal(self, chunk: Buffer, *, last: bool = False) -> bytes:
        """As `seal_into`, into new bytes."""
        out = bytearray(len(chunk) + TAG)
        self.seal_into(chunk, memoryview(out), last=last)
        return bytes(out)


class Decryptor:
    """Opens a file pushed in, in pieces of any size; hands out authenticated plaintext only."""

    def __init__(self, identities: Iterable[X25519PrivateKey], *, keep: int = 1) -> None:
        """`keep` is how many of the pieces handed out last are valid at a time."""
        self._identities = list(identities)
        self._cipher: ChaCha20Poly1305 | None = None
        self._count = 0
        self._kept = bytearray()
        self._outs = itertools.cycle([bytearray(_BATCH * CHUNK) for _ in range(keep)])

    def update(self, data: Buffer) -> Iterator[memoryview]:
        """Plaintext as it becomes known. Each piece is valid until `keep` more were taken.

        Exhaust the iterator before the next call. Raises AgeMalformed, AgeNoIdentity.
        """
        view = memoryview(data)
        if self._cipher is None:
            self._kept += view
            if not self._start():
                return
            view = memoryview(bytes(self._kept))
            self._kept.clear()
        # A chunk is opened only when a byte after it is known: until then it may be the last.
        if self._kept:
            need = SEALED_CHUNK - len(self._kept)
            self._kept += view[:need]
            view = view[need:]
            if not view:
                return
            yield self._open(memoryview(bytes(self._kept)))
            self._kept.clear()
        while len(view) > SEALED_CHUNK:
            whole = min((len(view) - 1) // SEALED_CHUNK, _BATCH) * SEALED_CHUNK
            yield self._open(view[:whole])
            view = view[whole:]
        self._kept += view

    def finish(self) -> memoryview:
        """The last chunk's plaintext. Raises AgeMalformed if the file was cut off."""
        if self._cipher is None:
            self._start()
            raise AgeMalformed("cut off inside the header")
        if len(self._kept) < TAG:
            raise AgeMalformed("cut off: the last chunk is missing")
        if len(self._kept) == TAG and self._count:
            raise AgeMalformed("an empty last chunk after others")
        return self._open(memoryview(bytes(self._kept)), last=True)

    def _start(self) -> bool:
        """Reads header and nonce off the front of what is kept; False if they are not all there."""
        length = header_length(self._kept)
        if length is None or len(self._kept) < length + _NONCE:
            return False
        file_key = open_header(bytes(self._kept[:length]), self._identities)
        nonce = bytes(self._kept[length : length + _NONCE])
        self._cipher = ChaCha20Poly1305(payload_key(file_key, nonce))
        del self._kept[: length + _NONCE]
        return True

    def _open(self, sealed: memoryview, *, last: bool = False) -> memoryview:
        out = memoryview(next(self._outs))
        size = 0
        for start in range(0, len(sealed), SEALED_CHUNK):
            chunk = sealed[start : start + SEALED_CHUNK]
            self._open_into(chunk, out[size : size + len(chunk) - TAG], last)
            size += len(chunk) - TAG
        return out[:size]

    def _open_into(self, chunk: memoryview, out: memoryview, last: bool) -> None:
        assert self._cipher is not None
        nonce = _nonce(self._count, last)
        self._count += 1
        try:
            if _INTO:
                self._cipher.decrypt_into(nonce, chunk, None, out)
            else:
                out[:] = self._cipher.decrypt(nonce, bytes(chunk), None)
        except InvalidTag:
            what = "the last chunk" if last else "a chunk"
            raise AgeMalformed(
                f"{what}, number {self._count}, is not what was sealed: changed, or cut off"
            ) from None


def encrypt(pieces: Iterable[Buffer], recipients: Sequence[X25519PublicKey]) -> Iterator[bytes]:
    """The age file of what `pieces` hold together. Raises AgeKeyMalformed."""
    encryptor = Encryptor(recipients)
    yield encryptor.header
    kept = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while len(kept) + len(view) > CHUNK:
            taken = CHUNK - len(kept)
            yield encryptor.seal(kept + view[:taken] if kept else view[:taken])
            kept.clear()
            view = view[taken:]
        kept += view
    yield encryptor.seal(kept, last=True)


def decrypt(pieces: Iterable[Buffer], identities: Iterable[X25519PrivateKey]) -> Iterator[bytes]:
    """The plaintext of the age file in `pieces`, never a byte that is not authenticated.

    That the file is whole is known only when the iterator ends. Raises AgeMalformed, AgeNoIdentity.
    """
    decryptor = Decryptor(identities)
    for piece in pieces:
        for plain in decryptor.update(piece):
            yield bytes(plain)
    yield bytes(decryptor.finish())


def _nonce(count: int, last: bool) -> bytes:
    return count.to_bytes(11, "big") + (b"\1" if last else b"\0")
