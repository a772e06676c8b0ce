"""The heartbeat's ledger: what its clients were told is committed, one line each, for years."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_BLOCK = 1 << 20
_LINE = 4096
"""The longest line that can be one of a ledger."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Acknowledged rows that were not restored, and when the last of them was acknowledged."""

    rows: int
    last: datetime | None


def acknowledged_after(ledger: Path, newest: int, until: datetime | None = None) -> Lost:
    """What was acknowledged of rows with an id above `newest`, not later than `until`.

    A source that goes on behind a fence acknowledges more: that is not lost.

    Read from its end until a whole block holds none: a year of heartbeats is gigabytes. The writer
    may have been killed in the middle of its last line, which then does not count. Raises OSError,
    and ValueError for what is no ledger.
    """
    seen = rows = 0
    last: datetime | None = None
    for lines in _blocks(ledger):
        above = [at for number, at in (_row(ledger, line) for line in lines) if number > newest]
        seen += len(lines)
        for at in above:
            if until is None or at <= until:
                rows += 1
                last = at if last is None else max(last, at)
        if lines and not above:
            break
    if not seen:
        raise ValueError(f"{ledger} holds no acknowledged row")
    return Lost(rows, last)


def _blocks(ledger: Path) -> Iterator[list[bytes]]:
    """Whole lines, block by block, the last block first."""
    with ledger.open("rb") as file:
        end = file.seek(0, 2)
        rest = b""
        whole = False  # whether what follows the block's last line break is a whole line
        while end > 0:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            data = file.read(end - begin) + rest
            head, *lines = data.split(b"\n")
            if not whole:
                if not lines:
                    head = b""  # all of it is the torn last line
                lines = lines[:-1]
                whole = True
            rest = head + b"\n" if begin else b""
            if len(rest) > _LINE:
                raise ValueError(f"{ledger} holds a line that is too long to be one of a ledger")
            end = begin
            yield [line for line in ([] if begin else [head]) + lines if line]


def _row(ledger: Path, line: bytes) -> tuple[int, datetime]:
    number, _, text = line.partition(b"\t")
    try:
        at = datetime.fromisoformat(text.decode().strip())
    except ValueError:
        at = None
    if at is None or not number.isdigit():
        raise ValueError(f"{ledger} holds {line[:80]!r}, which is no id, a tab and a time")
    return int(number), at if at.tzinfo else at.replace(tzinfo=UTC)
