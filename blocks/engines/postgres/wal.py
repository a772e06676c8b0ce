"""Names and places in the write-ahead log (PostgreSQL docs, 28.6 and xlogdefs.h)."""

import re
from collections.abc import Iterable, Mapping

from blocks.agent.protocol.parts import LogFiles
from blocks.artifact.manifest import SealedObject

FILES = LogFiles(
    folder="wal",
    segment="[0-9A-F]{24}",
    growing=".partial",
    beside=r"[0-9A-F]{8}\.history",
    magic_bytes=2,
)
"""What pg_receivewal writes."""
_NAME = re.compile(
    rf"{FILES.folder}/(?P<file>(?P<segment>{FILES.segment})|{FILES.beside})"
    r"(?:\.partial-(?P<count>\d+))?\.zst\.age"
)

MOST_GAPS = 100
"""A name in an index may lie as far away as there are numbers: no more gaps are counted."""


def parse_lsn(text: str) -> int:
    """`16/B374D848` as a byte position."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def format_lsn(position: int) -> str:
    """A byte position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def segment_of(position: int, timeline: int, segment_size: int) -> str:
    """The name of the segment file that holds the byte at `position`."""
    return _named(f"{timeline:08X}", position // segment_size, segment_size)


def following(segment: str, segment_size: int) -> str:
    """The segment after `segment` on the same timeline."""
    return _named(segment[:8], _number(segment, segment_size) + 1, segment_size)


def _number(segment: str, segment_size: int) -> int:
    return int(segment[8:16], 16) * (0x100000000 // segment_size) + int(segment[16:], 16)


def _named(timeline: str, number: int, segment_size: int) -> str:
    per_id = 0x100000000 // segment_size
    return f"{timeline}{number // per_id:08X}{number % per_id:08X}"


def runs(
    files: Mapping[str, SealedObject], segment_size: int
) -> tuple[list[tuple[str, int, int]], dict[str, SealedObject]]:
    """Timeline, first and last number of segments in a row, each stored whole under its own name;
    and the other files.
    """
    found, others = list[tuple[str, int, int]](), dict[str, SealedObject]()
    for file, item in sorted(files.items()):
        if (
            item.name != f"{FILES.folder}/{file}.zst.age"
            or not item.plain
            or not is_complete(item.name, file)
        ):
            others[file] = item
            continue
        timeline, number = file[:8], _number(file, segment_size)
        if _named(timeline, number, segment_size) != file:
            others[file] = item
        elif found and found[-1][::2] == (timeline, number - 1):
            found[-1] = timeline, found[-1][1], number
        else:
            found.append((timeline, number, number))
    return found, others


def partial_count(name: str) -> int | None:
    """The running number of a partial segment's object; None for a complete one."""
    match = _NAME.fullmatch(name)
    return int(match["count"]) if match and match["count"] else None


def holds(name: str, segment: str) -> bool:
    """Whether an object holds some state of `segment`, or of a later one."""
    match = _NAME.fullmatch(name)
    return bool(match and match["segment"] and match["segment"][8:] >= segment[8:])


def is_complete(name: str, segment: str) -> bool:
    """Whether an object's being stored shows that all of `segment` is: they come in order."""
    return holds(name, segment) and partial_count(name) is None


def needed(objects: Iterable[SealedObject], from_segment: str = "") -> dict[str, SealedObject]:
    """File name -> the object to replay it from: the complete one, else the newest partial.

    Segments before `from_segment` are left out; timeline history files are all kept.
    """
    best: dict[str, SealedObject] = {}
    for item in objects:
        match = _NAME.fullmatch(item.name)
        if match is None or (match["segment"] and match["segment"][8:] < from_segment[8:]):
            continue
        known = best.get(match["file"])
        if known is None or _rank(item.name) > _rank(known.name):
            best[match["file"]] = item
    return dict(sorted(best.items()))


def _rank(name: str) -> float:
    count = partial_count(name)
    return float("inf") if count is None else count


def gaps(files: Iterable[str], first: str, last: str, segment_size: int) -> list[str]:
    """Segments missing from `first` to `last`, and on to the newest file; the first MOST_GAPS.

    A later timeline's segment stands in for the same position of an earlier one.
    """
    positions = {name[8:] for name in files if len(name) == 24}
    missing, here, end = list[str](), first, max({last[8:], *positions})
    while here[8:] <= end and len(missing) < MOST_GAPS:
        if here[8:] not in positions:
            missing.append(here)
        here = following(here, segment_size)
    return missing
