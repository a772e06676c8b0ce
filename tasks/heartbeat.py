"""The heartbeat's ledger: what its clients were told is committed, one line each, for years."""

from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20
_LINE = 4096
"""The longest line that can be one of a ledger."""


def acknowledged_after(ledger: Path, newest: int) -> int:
    """How many rows with an id above `newest` were acknowledged.

    Read from its end until a whole block holds none: a year of heartbeats is gigabytes. The writer
    may have been killed in the middle of its last line, which then does not count. Raises OSError,
    and ValueError for what is no ledger.
    """
    lost = seen = 0
    for lines in _blocks(ledger):
        above = sum(1 for line in lines if _id(ledger, line) > newest)
        seen += len(lines)
        lost += above
        if lines and not above:
            break
    if not seen:
        raise ValueError(f"{ledger} holds no acknowledged row")
    return lost


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


def _id(ledger: Path, line: bytes) -> int:
    number, tab, _ = line.partition(b"\t")
    if not tab or not number.isdigit():
        raise ValueError(f"{ledger} holds {line[:80]!r}, which is no id, a tab and a time")
    return int(number)
