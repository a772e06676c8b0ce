"""What runs on a host of etcd: a key space read there, in pages, whatever its size.

Two ways to the same digest: from a snapshot's file, which needs no server and burdens none, and
through etcdctl from a cluster that serves. The file is a B+ tree as bbolt writes it. Keys and
values never leave the host; of what mentions another domain, the key and the line do.
"""

import base64
import hashlib
import mmap
import re
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from blocks.agent.channel import Channel
from blocks.agent.child import printed
from blocks.agent.failure import JobFailed, no_space
from blocks.agent.protocol.results import Mention
from blocks.artifact import wire
from blocks.ownership import Belongings, hosts_in

LARGEST_KEY = 3 * 2**19
"""Bytes of a key with its value, where nothing is known of them: as many as etcd takes, unless its
`--max-request-bytes` says more."""
MENTIONS_KEPT = 100
"""Mentions that are told of each domain's addresses, and as many of its paths; others count."""
HOSTS_KEPT = 3000
"""Names of hosts that are told of."""
_ARGUMENT_BYTES = 2**14
"""So much of a key is an argument: Linux takes 128 KiB at most, with a shell's quotes."""
_PAGE_KEYS = 1000
_MOST_ALIKE = 100_000
_PAGE_BYTES = 2**26
"""What a page of the largest keys may hold: etcd, etcdctl and the agent each have it in memory."""
_MAGIC = 0xED0CDAED
_BRANCH, _LEAF, _META = 0x01, 0x02, 0x04
_HEAD = struct.Struct("<QHHI")
_META_HEAD = struct.Struct("<IIIIQQQQQ")
_ROOT = struct.Struct("<QQ")
_BRANCH_ITEM = struct.Struct("<IIQ")
_LEAF_ITEM = struct.Struct("<IIII")
_KUBERNETES = b"k8s\0"
_NUMBER, _BYTES, _FIXED = 0, 2, {1: 8, 5: 4}
"""Kinds of fields in a protobuf message; those of fixed size, with it."""
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")
_REVISION = struct.Struct(">QcQ")
_COMPACTED = (b"finishedCompactRev", b"scheduledCompactRev")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpace:
    """What is to be read: all keys of a snapshot, or of a cluster that serves.

    `snapshot` is the file of one; without it, `argv` (etcdctl and its options) asks a cluster for
    its keys at revision `at` (0: now), and reads `secret` as the first line of its input. No key
    with its value should be larger than `largest` bytes: it decides how many are asked for at once.
    """

    snapshot: str | None = None
    argv: tuple[str, ...] = ()
    at: int = 0
    largest: int = LARGEST_KEY
    secret: str | None = field(default=None, repr=False)
    foreign: Belongings = field(default_factory=Belongings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a key space holds: `keys` of them, as of `revision` (a snapshot's own, else 0).

    `compacted` is the revision up to which a snapshot is, or was to be, compacted: it may lie
    beyond `revision`, which is the newest that the snapshot still keeps.
    `digest` is the SHA-256 of all that etcd keeps of each key, in order; `lasting` that of those
    alone which no lease ends; `largest` are the bytes of the largest key with its value. Of the
    mentions of `foreign` (the key as `path`) there are so many `more` addresses and paths. `hosts`
    are names, none plainly `foreign`, with the first key that uses each; `more_hosts` says whether
    there are others.
    """

    revision: int
    keys: int
    digest: str
    lasting: str
    compacted: int = 0
    largest: int = 0
    mentions: tuple[Mention, ...] = ()
    more: dict[str, int] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    more_hosts: bool = False


@dataclass(frozen=True, slots=True)
class _Key:
    name: bytes
    value: bytes
    created: int
    revision: int
    version: int
    lease: int


def run(space: KeySpace, _channel: Channel) -> Keys:
    """Raises JobFailed: the file is no snapshot, etcdctl failed, or the disk is full."""
    try:
        return _read(space)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise no_space("temporary files (TMPDIR, /var/tmp or /tmp)") from None
        raise JobFailed("internal", f"the keys could not be put in order: {error}") from None


def _read(space: KeySpace) -> Keys:
    if space.snapshot is not None:
        revision, compacted, keys = _of_file(Path(space.snapshot))
    else:
        revision, compacted, keys = 0, 0, _served(space)
    every, lasting, count, largest = hashlib.sha256(), hashlib.sha256(), 0, 0
    mentions, more, hosts = list[Mention](), Counter[str](), dict[str, str]()
    for key in keys:
        numbers = (len(key.name), len(key.value), key.created, key.revision, key.version)
        text = f"{numbers} {key.lease} ".encode() + key.name + key.value
        every.update(text)
        if not key.lease:
            lasting.update(text)
        count += 1
        largest = max(largest, len(key.name) + len(key.value))
        _search(space.foreign, key, mentions, more, hosts)
    told = dict(islice(hosts.items(), HOSTS_KEPT))
    return Keys(
        revision=revision,
        keys=count,
        digest=every.hexdigest(),
        lasting=lasting.hexdigest(),
        compacted=compacted,
        largest=largest,
        mentions=tuple(mentions),
        more={kind: total - MENTIONS_KEPT for kind, total in more.items() if total > MENTIONS_KEPT},
        hosts=told,
        more_hosts=len(hosts) > HOSTS_KEPT,
    )


def _search(
    foreign: Belongings,
    key: _Key,
    mentions: list[Mention],
    seen: Counter[str],
    hosts: dict[str, str],
) -> None:
    if not (foreign.networks or foreign.suffixes or foreign.places or foreign.paths):
        return
    name = key.name.decode(errors="replace")
    text = f"{name} {readable(key.value)}"
    for line, found in foreign.lines(text):
        kind = "path" if found in foreign.paths else "address"
        seen[kind] += 1
        if seen[kind] <= MENTIONS_KEPT:
            mentions.append(Mention(path=name, line=line, text=found))
    for host in hosts_in(text) if len(hosts) <= HOSTS_KEPT else ():
        if not foreign.owns_name(host):
            hosts.setdefault(host, f"key {name}")


def readable(value: bytes) -> str:
    """A value as text: of one that Kubernetes has encoded, all its strings.

    In a message, the tag and the length of a field may look like a part of the text next to them.
    """
    if value.startswith(_KUBERNETES):
        with suppress(ValueError, IndexError):
            value = b" ".join(_strings(value[len(_KUBERNETES) :]))
    return value.decode(errors="replace")


def _strings(message: bytes) -> list[bytes]:
    """What a protobuf message holds as strings, in the messages in it as well.

    Raises ValueError, or IndexError, for what is none.
    """
    found, at = list[bytes](), 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind in (_NUMBER, _BYTES) and tag >> 3:
            number, at = _varint(message, at)
            if kind == _BYTES:
                part, at = message[at : at + number], at + number
                inner = list[bytes]()
                with suppress(ValueError, IndexError):
                    inner = _strings(part)
                # What reads as a message may be a string all the same, if it looks like one.
                found += inner if inner and not _TEXT.fullmatch(part) else [part, *inner]
        else:
            raise ValueError(tag)
        if at > len(message):
            raise ValueError(at)
    return found


# -- from a cluster that serves -------------------------------------------------------------------


def _served(space: KeySpace) -> Iterator[_Key]:
    """All keys in order, page by page.

    A page has as many as fit into `_PAGE_BYTES` if each is the largest, but two at least, for it
    begins with the last of the one before: sizes cannot be asked for, and the next may be any.
    """
    most = max(2, _PAGE_BYTES // max(1, space.largest))
    last, seen, limit = "", b"", min(_PAGE_KEYS, most)
    while True:
        page = _page(space, last, limit)
        fresh = [key for key in page if key.name > seen]
        yield from fresh
        if len(page) < limit:
            return
        if not fresh:
            # All that begins like the last key, as an argument has it, has to fit into one page.
            limit = _larger(limit, min(_MOST_ALIKE, most))
            continue
        seen = page[-1].name
        last, limit = _argument(seen), min(_PAGE_KEYS, most)


def _argument(key: bytes) -> str:
    """A key as an argument, which is no longer than some, and has no NUL: else its beginning."""
    return key.partition(b"\0")[0][:_ARGUMENT_BYTES].decode("utf-8", "surrogateescape")


def _larger(limit: int, most: int) -> int:
    if limit >= most:
        text = (
            f"{limit:,} keys are alike up to a NUL byte, or for {_ARGUMENT_BYTES:,} bytes:"
            " etcdctl asks for none behind them"
        )
        raise JobFailed("child-failed", text)
    return min(4 * limit, most)


def _page(space: KeySpace, first: str, limit: int) -> list[_Key]:
    """Keys from `first` on: no argument can hold what follows it."""
    words = ["get", "--from-key", f"--limit={limit}", f"--rev={space.at}", "--write-out=json"]
    said = printed([*space.argv, *words, "--", first], space.secret or "")
    try:
        # etcdctl asks for the password on standard output, and ends that line.
        answer = wire.parsed(said[said.index(b"{") :])
        return [
            _Key(
                base64.b64decode(item["key"]),
                base64.b64decode(item.get("value", "")),
                int(item["create_revision"]),
                int(item["mod_revision"]),
                int(item["version"]),
                int(item.get("lease", 0)),
            )
            for item in answer.get("kvs", ())
        ]
    except (wire.WireError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobFailed(
            "child-failed", f"etcdctl printed no keys: {type(error).__name__}"
        ) from None


# -- from the file of a snapshot ------------------------------------------------------------------


def _of_file(path: Path) -> tuple[int, int, Iterator[_Key]]:
    """The snapshot's newest revision, the compacted one, and its keys in order as of then.

    Where they lie is kept in a table without a name on the disk: there may be ten million.
    """
    newest, latest = 0, sqlite3.connect("", isolation_level=None)
    latest.execute("PRAGMA journal_mode = OFF")
    latest.execute("CREATE TABLE keys (name BLOB PRIMARY KEY, start INT, end INT) WITHOUT ROWID")
    latest.execute("BEGIN")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        size, root = _newest_meta(data)
        compacted = _compacted(data, size, root)
        for name, start, end in _leaves(data, size, _bucket(data, size, root, b"key")):
            main, _, _ = _REVISION.unpack_from(name)
            newest = max(newest, main)
            key = _parsed(data, start, end, with_value=False)
            if len(name) > _REVISION.size:  # a tombstone
                latest.execute("DELETE FROM keys WHERE name = ?", (key.name,))
            else:
                place = (key.name, start, end)
                latest.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", place)
    except (struct.error, ValueError, IndexError, RecursionError):
        raise JobFailed("internal", f"{path.name} is no snapshot that can be read here") from None
    places = latest.execute("SELECT start, end FROM keys ORDER BY name")
    return newest, compacted, (_parsed(data, start, end) for start, end in places)


def _compacted(data: mmap.mmap, size: int, root: int) -> int:
    """Up to which revision the history is compacted, or is to be once a member has it."""
    return max(
        (
            int(_REVISION.unpack_from(data, start)[0])
            for name, start, end in _leaves(data, size, _bucket(data, size, root, b"meta"))
            if name in _COMPACTED and end - start >= _REVISION.size
        ),
        default=0,
    )


def _bucket(data: mmap.mmap, size: int, root: int, wanted: bytes) -> int:
    """Where the first page of a bucket begins: a small one lies within its parent's."""
    for name, start, end in _leaves(data, size, root * size):
        if name == wanted and end - start >= _ROOT.size:
            page = int(_ROOT.unpack_from(data, start)[0])
            return page * size if page else start + _ROOT.size
    raise ValueError(wanted)


def _newest_meta(data: mmap.mmap) -> tuple[int, int]:
    """The size of a page, and the page of the tree's root, as the last transaction left them."""
    size = int(_META_HEAD.unpack_from(data, _HEAD.size)[2])
    if not 512 <= size <= 2**16:
        raise ValueError(size)
    found = []
    for page in (0, 1):
        _, flags, _, _ = _HEAD.unpack_from(data, page * size)
        magic, _, _, _, root, _, _, _, transaction = _META_HEAD.unpack_from(
            data, page * size + _HEAD.size
        )
        if magic == _MAGIC and flags & _META:
            found.append((transaction, root))
    return size, int(max(found)[1])


def _leaves(data: mmap.mmap, size: int, page: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, and the place of the value, of all that lies below the page that begins there."""
    _, flags, count, _ = _HEAD.unpack_from(data, page)
    at = page + _HEAD.size
    if flags & _BRANCH:
        for number in range(count):
            _, _, below = _BRANCH_ITEM.unpack_from(data, at + number * _BRANCH_ITEM.size)
            yield from _leaves(data, size, below * size)
        return
    if not flags & _LEAF:
        raise ValueError(flags)
    for number in range(count):
        place = at + number * _LEAF_ITEM.size
        _, offset, name, value = _LEAF_ITEM.unpack_from(data, place)
        start = place + offset
        if start + name + value > len(data):
            raise ValueError(start)
        yield data[start : start + name], start + name, start + name + value


def _parsed(data: mmap.mmap, start: int, end: int, *, with_value: bool = True) -> _Key:
    """A key as etcd stores it: a protobuf message of six fields."""
    numbers, texts, at = {2: 0, 3: 0, 4: 0, 6: 0}, {1: b"", 5: b""}, start
    while at < end:
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        number, at = _varint(data, at)
        if kind == 2:
            if at + number > end:
                raise ValueError(at)
            if field == 1 or with_value:
                texts[field] = data[at : at + number]
            at += number
        elif kind == 0:
            # int64: a negative one, as the id of a lease may be, is written as 2^64 more.
            numbers[field] = number - 2**64 if number >= 2**63 else number
        else:
            raise ValueError(kind)
    return _Key(texts[1], texts[5], numbers[2], numbers[3], numbers[4], numbers[6])


def _varint(data: mmap.mmap | bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
