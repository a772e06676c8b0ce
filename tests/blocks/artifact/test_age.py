"""The age format against its two oracles, and against malformed files."""

import base64
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.artifact import age
from blocks.artifact.age import header as age_header
from blocks.artifact.age.keys import AgeKeyMalformed, without_comments

IDENTITY = age.generate_identity()
RECIPIENT = age.recipient_of(IDENTITY)
OTHER = age.generate_identity()
CHUNK = 64 * 1024
EDGES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 1, 17 * CHUNK, 33 * CHUNK + 5]

sizes = st.one_of(
    st.integers(0, 300),
    st.builds(lambda n, d: max(0, n * CHUNK + d), st.integers(0, 20), st.integers(-17, 17)),
)
few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def seal(data: bytes, piece: int = 70_001, *identities: str) -> bytes:
    keys = [age.parse_recipient(age.recipient_of(i)) for i in identities or (IDENTITY,)]
    pieces = (data[i : i + piece] for i in range(0, len(data), piece))
    return b"".join(age.encrypt(pieces, keys))


def unseal(data: bytes, piece: int = 70_001, identity: str = IDENTITY) -> bytes:
    pieces = (data[i : i + piece] for i in range(0, len(data), piece))
    return b"".join(age.decrypt(pieces, [age.parse_identity(identity)]))


@pytest.fixture(scope="session")
def reference() -> str:
    """The reference command."""
    found = shutil.which("age")
    if found is None:
        pytest.skip("the reference command age is not installed")
    return found


@pytest.fixture
def identity_file(tmp_path: Path) -> Path:
    path = tmp_path / "identity"
    path.write_text(f"# a comment\n\n{IDENTITY}\n")
    return path


def command(*arguments: str, data: bytes) -> "subprocess.CompletedProcess[bytes]":
    argv = [sys.executable, "-m", "blocks.artifact.age", *arguments]
    return subprocess.run(argv, input=data, capture_output=True, timeout=60)


@few
@given(size=sizes, into=st.integers(1, 200_000), out=st.integers(1, 200_000))
def test_any_size_in_pieces_of_any_size_comes_back(size: int, into: int, out: int) -> None:
    if size > 10_000:
        into, out = max(into, 500), max(out, 500)
    data = os.urandom(size)
    assert unseal(seal(data, into), out) == data


@few
@given(size=sizes)
def test_pyrage_opens_what_we_seal_and_we_open_what_it_seals(size: int) -> None:
    data = os.urandom(size)
    assert pyrage.decrypt(seal(data), [pyrage.x25519.Identity.from_str(IDENTITY)]) == data
    theirs = pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(RECIPIENT)])
    assert unseal(theirs) == data


@pytest.mark.parametrize("size", EDGES)
def test_reference_command_both_ways(size: int, reference: str, identity_file: Path) -> None:
    data = os.urandom(size)
    ours = command("-r", RECIPIENT, data=data).stdout
    argv = [reference, "-d", "-i", str(identity_file)]
    assert subprocess.run(argv, input=ours, capture_output=True, check=True).stdout == data
    argv = [reference, "-r", age.recipient_of(OTHER), "-r", RECIPIENT]
    theirs = subprocess.run(argv, input=data, capture_output=True, check=True).stdout
    opened = command("-d", "-i", str(identity_file), data=theirs)
    assert (opened.returncode, opened.stdout) == (0, data)


def test_several_recipients_each_open() -> None:
    sealed = seal(b"for both", 100, IDENTITY, OTHER)
    assert unseal(sealed) == unseal(sealed, identity=OTHER) == b"for both"


def test_keys_are_those_of_pyrage() -> None:
    theirs = pyrage.x25519.Identity.generate()
    assert age.recipient_of(str(theirs)) == str(theirs.to_public())


@pytest.mark.parametrize(
    "text",
    [
        "",
        RECIPIENT,
        IDENTITY.lower(),
        IDENTITY[:-1],
        IDENTITY[:-1] + ("Q" if IDENTITY[-1] != "Q" else "P"),
        IDENTITY[:20] + IDENTITY[20:].lower(),
        IDENTITY + "A",
    ],
    ids=["empty", "recipient", "small", "short", "checksum", "mixed", "long"],
)
def test_malformed_identity_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(AgeKeyMalformed) as refusal:
        age.parse_identity(text)
    assert not text or text not in str(refusal.value)


# --- malformed files: each is a change to a good one ---------------------------------------------


def lines_of(sealed: bytes) -> tuple[list[bytes], bytes]:
    """The header's lines, and the payload."""
    length = age_header.header_length(sealed)
    assert length is not None
    return sealed[:length].split(b"\n")[:-1], sealed[length:]


def with_lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    def changed(sealed: bytes) -> bytes:
        lines, payload = lines_of(sealed)
        return b"\n".join(change(lines)) + b"\n" + payload

    return changed


def line(number: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(lines: list[bytes]) -> list[bytes]:
        lines[number] = change(lines[number])
        return lines

    return with_lines(changed)


def payload(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(sealed: bytes) -> bytes:
        lines, rest = lines_of(sealed)
        return b"\n".join(lines) + b"\n" + change(rest)

    return changed


def with_stanzas(*stanzas: bytes) -> Callable[[bytes], bytes]:
    """Stanzas put before the good one, under a MAC that is right."""

    def changed(sealed: bytes) -> bytes:
        lines, rest = lines_of(sealed)
        header = b"\n".join(lines) + b"\n"
        key = age_header.open_header(header, [age.parse_identity(IDENTITY)])
        signed = b"\n".join([lines[0], *stanzas, *lines[1:3], b"---"])
        mac = age_header._encode(age_header._mac(key, signed))
        return signed + b" " + mac + b"\n" + rest

    return changed


def uncanonical(text: bytes) -> bytes:
    """The same bytes in base64 with a bit set that does not count."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return text[:-1] + bytes([alphabet[alphabet.index(text[-1]) ^ 1]])


def append_empty_chunk(rest: bytes) -> bytes:
    """The one chunk is sealed again as not the last, and an empty one put behind it."""
    nonce, chunk = rest[:16], rest[16:]
    key = ChaCha20Poly1305(age_header.payload_key(FILE_KEY, nonce))
    plain = key.decrypt(bytes(11) + b"\1", chunk, None)
    return (
        nonce
        + key.encrypt(bytes(12), plain, None)
        + key.encrypt((1).to_bytes(11, "big") + b"\1", b"", None)
    )


FILE_KEY = b"sixteen bytes !!"
ZERO = base64.b64encode(bytes(32)).rstrip(b"=")
BODY = base64.b64encode(bytes(32)).rstrip(b"=")
GREASE = [b"-> x-grease a b", b"AAAA"]

MALFORMED = {
    "empty": lambda _: b"",
    "armored": lambda _: b"-----BEGIN AGE ENCRYPTED FILE-----\n",
    "plain text": lambda _: b"hello, this is no age file",
    "another version": line(0, lambda _: b"age-encryption.org/v2"),
    "CRLF after the version": line(0, lambda text: text + b"\r"),
    "CRLF after a recipient": line(1, lambda text: text + b"\r"),
    "CRLF everywhere": lambda sealed: with_lines(lambda x: [i + b"\r" for i in x])(sealed),
    "two spaces": line(1, lambda text: text.replace(b" X", b"  X")),
    "space at the end": line(1, lambda text: text + b" "),
    "no argument": line(1, lambda _: b"->"),
    "lower-case type": line(1, lambda text: text.replace(b"X25519", b"x25519")),
    "one argument too many": line(1, lambda text: text + b" more"),
    "share padded": line(1, lambda text: text + b"="),
    "share not canonical": line(1, uncanonical),
    "share too short": line(1, lambda text: text[:-4]),
    "share of low order": line(1, lambda _: b"-> X25519 " + ZERO),
    "body padded": line(2, lambda text: text + b"="),
    "body not canonical": line(2, uncanonical),
    "body too short": line(2, lambda text: text[:-4]),
    "body too long": line(2, lambda text: text + b"AAAA"),
    "body of more than 64 columns": line(2, lambda text: text + b"A" * 40),
    "body missing": with_lines(lambda x: [*x[:2], *x[3:]]),
    "no recipient": with_lines(lambda x: [x[0], x[3]]),
    "MAC wrong": line(3, lambda _: b"--- " + base64.b64encode(bytes(32)).rstrip(b"=")),
    "MAC padded": line(3, lambda text: text + b"="),
    "MAC too short": line(3, lambda text: text[:-4]),
    "MAC missing": line(3, lambda _: b"---"),
    "no space before MAC": line(3, lambda text: text.replace(b"--- ", b"---")),
    "header only": lambda sealed: sealed[: age_header.header_length(sealed)],
    "cut off in the header": lambda sealed: sealed[:60],
    "nonce cut off": payload(lambda rest: rest[:10]),
    "no chunk": payload(lambda rest: rest[:16]),
    "last chunk cut off": payload(lambda rest: rest[:-1]),
    "last chunk missing": lambda _: seal(b"x" * (CHUNK + 10))[: -(10 + 16)],
    "less than a tag": payload(lambda rest: rest[:30]),
    "one byte more": lambda sealed: sealed + b"\0",
    "two files": lambda sealed: sealed + sealed,
    "a bit of the nonce": payload(lambda rest: bytes([rest[0] ^ 1]) + rest[1:]),
    "a bit of the chunk": payload(lambda rest: rest[:20] + bytes([rest[20] ^ 1]) + rest[21:]),
    "a bit of the tag": lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]),
    "chunks exchanged": lambda _: exchange_chunks(seal(b"x" * 3 * CHUNK)),
    "passphrase beside a key": with_stanzas(b"-> scrypt AAAAAAAAAAAAAAAAAAAAAA 10", BODY),
    "a stanza with a control character": with_stanzas(b"-> x\x01", b""),
    "a stanza not in ASCII": with_stanzas(b"-> \xc3\xa9", b""),
    "a stanza without an end": with_stanzas(b"-> x-grease", b"A" * 64),
}


def exchange_chunks(sealed: bytes) -> bytes:
    lines, rest = lines_of(sealed)
    size = CHUNK + 16
    nonce, chunks = rest[:16], rest[16:]
    first, second, last = chunks[:size], chunks[size : 2 * size], chunks[2 * size :]
    return b"\n".join(lines) + b"\n" + nonce + second + first + last


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_refused(name: str) -> None:
    sealed = MALFORMED[name](seal(b"a secret of the database"))
    with pytest.raises((age.AgeMalformed, age.AgeNoIdentity)):
        unseal(sealed)
    with pytest.raises((age.AgeMalformed, age.AgeNoIdentity)):
        unseal(sealed, 1)


def test_empty_last_chunk_after_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age, "new_file_key", lambda: FILE_KEY)
    sealed = payload(append_empty_chunk)(seal(b"x" * CHUNK))
    with pytest.raises(age.AgeMalformed, match="empty last chunk"):
        unseal(sealed)


def test_unknown_stanzas_are_skipped() -> None:
    assert unseal(with_stanzas(*GREASE)(seal(b"data"))) == b"data"


def test_recipient_of_low_order_is_refused() -> None:
    nobody = X25519PublicKey.from_public_bytes(bytes(32))
    with pytest.raises(age.AgeMalformed):
        age.Encryptor([nobody])


def test_wrong_identity() -> None:
    with pytest.raises(age.AgeNoIdentity):
        unseal(seal(b"data"), identity=OTHER)


@few
@given(data=st.data())
def test_any_flipped_bit_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(seal(b"y" * (CHUNK + 100)))
    place = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[place // 8] ^= 1 << place % 8
    with pytest.raises((age.AgeMalformed, age.AgeNoIdentity)):
        unseal(bytes(sealed))


@few
@given(data=st.data())
def test_a_file_cut_off_anywhere_gives_a_true_prefix_and_an_error(data: st.DataObject) -> None:
    plain = os.urandom(3 * CHUNK + 7)
    sealed = seal(plain)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    out = io.BytesIO()
    with pytest.raises(age.AgeMalformed):  # noqa: PT012
        for piece in age.decrypt([sealed[:cut]], [age.parse_identity(IDENTITY)]):
            out.write(piece)
    assert plain.startswith(out.getvalue())


# --- the command ---------------------------------------------------------------------------------


def test_command_refuses_a_cut_off_file_and_writes_only_what_it_authenticated(
    identity_file: Path,
) -> None:
    plain = os.urandom(3 * CHUNK)
    sealed = seal(plain)
    ended = command("-d", "-i", str(identity_file), data=sealed[:-1])
    assert ended.returncode == 1
    assert ended.stdout == plain[: 2 * CHUNK]
    assert b"cut off" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "data", "code", "words"),
    [
        (["-r", "age1nobody"], b"x", 1, b"not an age recipient"),
        ([], b"x", 2, b"-r RECIPIENT"),
        (["-d"], b"x", 2, b"-i FILE"),
        (["-d", "-i", "/nonexistent"], b"x", 1, b"/nonexistent: No such file"),
    ],
)
def test_command_refusals(arguments: list[str], data: bytes, code: int, words: bytes) -> None:
    ended = command(*arguments, data=data)
    assert (ended.returncode, ended.stdout) == (code, b"")
    assert words in ended.stderr


def test_command_refuses_armor_and_a_wrong_identity(tmp_path: Path, identity_file: Path) -> None:
    armored = b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n"
    ended = command("-d", "-i", str(identity_file), data=armored)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"armored" in ended.stderr
    other = tmp_path / "other"
    other.write_text(OTHER)
    ended = command("-d", "-i", str(other), data=seal(b"secret"))
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"none of which" in ended.stderr


def test_an_identity_file_as_age_keygen_writes_it() -> None:
    identity = age.generate_identity()
    text = f"# created: 2026-01-01T00:00:00Z\n# public key: age1...\n{identity}\n"
    assert without_comments(text) == identity
    assert age.recipient_of(without_comments(text)) == age.recipient_of(identity)
