"""How far the log was replayed, and whether anything that crossed was left out."""

import json
from collections.abc import Iterable
from functools import partial

from blocks.artifact import wire
from blocks.engines.checks import Answer, CheckSpec, judged, unknown
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.postgres.wal import format_lsn
from blocks.hosts.host import Host

# Runs on the host: the archive, the segment size, the position where replay ended, and, on
# standard input, the names of the segments. PostgreSQL ends recovery at the first record that is
# not valid, and says nothing more: what lies behind that place must be no whole record.
# Layout: xlogdefs.h, xlog_internal.h, xlogrecord.h.
_LEFT = r"""
import json, os, struct, sys
archive, size, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PAGE = 8192
per_id = 0x100000000 // size
segments = {}
for name in sorted(json.load(sys.stdin)):
    segments[int(name[8:16], 16) * per_id + int(name[16:], 16)] = os.path.join(archive, name)

def page(start):
    path = segments.get(start // size)
    if path is None:
        return b""
    with open(path, "rb") as file:
        file.seek(start % size)
        return file.read(PAGE)

def header(start):
    return 40 if start % size == 0 else 24

def written(position):
    # The last byte behind a position that is not zero, plus one; 0 if all are.
    for number in sorted(segments, reverse=True):
        if (number + 1) * size <= position:
            return 0
        floor = max(number * size, position)
        start = number * size + os.path.getsize(segments[number]) - 1
        start -= start % PAGE
        while start + PAGE > floor:
            data = page(start)
            if start < floor:
                data = bytes(floor - start) + data[floor - start:]
            if stripped := data.rstrip(b"\0"):
                return start + len(stripped)
            start -= PAGE
    return 0

def left():
    # What was left out, in words; empty if nothing was.
    if (last := written(end)) <= end:
        return ""
    here = end + header(end) if end % PAGE == 0 else end
    if last <= here:
        return ""  # a page of which the header alone has come
    start = here - here % PAGE
    field = page(start)[here - start:here - start + 4]
    length = struct.unpack("<I", field)[0] if len(field) == 4 else 0
    if not 24 <= length <= 1 << 30:
        return "what follows is no record"
    # The record may not have come whole: then all that follows is its continuation.
    rest, start = length - (start + PAGE - here), start + PAGE
    while rest > 0:
        data = page(start)
        if len(data) < 24 or last <= start + header(start):
            return ""  # it ends behind what has come
        flags, remaining = struct.unpack("<H", data[2:4])[0], struct.unpack("<I", data[16:20])[0]
        if not flags & 1 or remaining != rest:
            return "what follows is no continuation of the record there"
        rest -= PAGE - header(start)
        start += PAGE
    whole = start + rest
    return "" if whole > last else "a whole record follows, and more behind it"

print(json.dumps({"left": left(), "last": written(end)}))
"""


def check(
    host: Host, archive: str, segments: Iterable[str], size: int, end: int | None
) -> CheckSpec:
    """Everything of the log that crossed was replayed, up to the end of its last whole record.

    `segments` are the files of `archive`, `size` is a segment's, `end` where replay ended.
    """
    return CheckSpec(
        "log",
        "the log that crossed is replayed to its last whole record",
        partial(_replayed, host, archive, segments, size, end),
        PostgresFinding.LOG_REPLAY_SHORT,
    )


def _replayed(
    host: Host, archive: str, segments: Iterable[str], size: int, end: int | None
) -> Answer:
    if end is None:
        return unknown("the server does not say how far it has replayed")
    argv = [host.python, "-c", _LEFT, archive, str(size), str(end)]
    names = json.dumps([item for item in segments if len(item) == 24]).encode()
    said = host.run(argv, input=names, timeout=600).text
    found = wire.parsed(said.rpartition("\n")[2])  # start-up files may print something before
    wrong = list[str]()
    if found["left"]:
        bytes_left = found["last"] - end
        wrong.append(f"replay ended at {format_lsn(end)}, {bytes_left:,} B early: {found['left']}")
    right = f"replayed to {format_lsn(end)}, where the log ends"
    return judged(wrong, right)
