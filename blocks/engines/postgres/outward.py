"""What replaying a log would do outside of the directories that a restore was given.

The creation of a tablespace is replayed at the path that it had in the source, whatever the plan
says: the server makes, and later removes, files there, be they another server's.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blocks.artifact import wire
from blocks.hosts.host import Host

HOURS = 6 * 3600.0

# Runs on the host: the archive, the segment size, where replay begins, and, on standard input, the
# names of the segments. Records begin at multiples of eight bytes, and go on behind the headers of
# pages, whose sizes are such multiples, too. Looked for is the end of a record's header by the
# resource manager of tablespaces; the rest of the record then shows whether it is one.
# Layout: xlog_internal.h, xlogrecord.h, rmgrlist.h, tablespace.h.
_CREATED = r"""
import json, os, struct, sys
archive, size, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PAGE, HEADER, LONGEST = 8192, 24, 4096
SIGN = b"\x05\x00\x00"  # RM_TBLSPC_ID, and the padding behind it
MORE = {253: 2, 252: 4}  # an origin, a transaction above: an identifier, and so many bytes
found = []

def payload(path):
    # The records of a segment, without the headers of its pages.
    with open(path, "rb") as file:
        data = memoryview(file.read())
    starts = range(0, len(data), PAGE)
    return b"".join(data[at + (40 if at == 0 else 24):at + PAGE] for at in starts)

def created(data, at):
    # The oid and the path, if the record that begins there creates a tablespace.
    length, _, _, info = struct.unpack_from("<IIQB", data, at)
    if info & 0xF0 or not HEADER + 8 <= length <= LONGEST or at + length > len(data):
        return None
    place, end = at + HEADER, at + length
    while data[place] in MORE:
        place += 1 + MORE[data[place]]
    if data[place] == 255:
        main, place = data[place + 1], place + 2
    elif data[place] == 254:
        (main,) = struct.unpack_from("<I", data, place + 1)
        place += 5
    else:
        return None
    path = data[place + 4:end]
    if main < 5 or place + main != end or path.find(b"\0") != len(path) - 1:
        return None
    return struct.unpack_from("<I", data, place)[0], path[:-1].decode(errors="replace")

def position(first, offset):
    # Where in the log a record begins: so far behind the first byte of a segment's payload.
    if offset < 0:  # in the segment before
        first, offset = first - size, offset + size // PAGE * (PAGE - 24) - 16
    page, rest = divmod(offset + 16, PAGE - 24)
    return first + page * PAGE + rest + 24

before = b""
for name in sorted(json.load(sys.stdin)):
    number = int(name[8:16], 16) * (0x100000000 // size) + int(name[16:], 16)
    data = before + payload(os.path.join(archive, name))
    managers = data[17::8]  # one for each place at which a record may begin
    at = managers.find(SIGN[0])
    while at >= 0:
        begin = at * 8
        if data.startswith(SIGN, begin + 17):
            try:
                record = created(data, begin)
            except (IndexError, struct.error):
                record = None
            here = position(number * size, begin - len(before))
            if record and here >= start and record not in found:
                found.append(record)
        at = managers.find(SIGN[0], at + 1)
    before = data[-LONGEST:]
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Tablespace:
    """A tablespace that the log creates, and the path that it had in the source."""

    oid: int
    path: str


def created_tablespaces(
    host: Host, archive: str, segments: Iterable[str], size: int, start: int
) -> Iterator[Tablespace]:
    """Those that the segments in `archive` create from the position `start` on.

    `size` is a segment's. Raises as Host.run.

    One within the data directory has no path, and leads nowhere else.
    """
    argv = [host.python, "-c", _CREATED, archive, str(size), str(start)]
    names = json.dumps([item for item in segments if len(item) == 24]).encode()
    said = host.run(argv, input=names, timeout=HOURS).text
    for oid, path in wire.parsed(said.rpartition("\n")[2]):
        if path:
            yield Tablespace(int(oid), str(path))
