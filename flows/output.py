"""Standard output and error that may be closed: by `| head`, a terminal that is gone, a full disk.

What is written to them is for whoever looks on; the record holds it all. It never ends a rehearsal.
"""

import contextlib
import io
import os
import sys
from typing import TextIO


def tolerate_closed() -> None:
    """Write on as if nothing had happened when standard output or error cannot be written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed from the start: the next file that is opened would take its place.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _tolerant(sys.stdout, 1)
    sys.stderr = _tolerant(sys.stderr, 2)


def _tolerant(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(_Tolerant(number)), "utf-8", "replace")
    # What stands in for a file, as in tests, is not ours to replace.
    if type(stream) is not io.TextIOWrapper or isinstance(stream.buffer, _Buffer):
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    buffer = _Buffer(_Tolerant(number))
    return io.TextIOWrapper(
        buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering
    )


class _Buffer(io.BufferedWriter):
    """Marks a stream as tolerant."""


class _Tolerant(io.FileIO):
    """A file descriptor that leads nowhere once it cannot be written to."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)

    def write(self, data: object) -> int | None:  # type: ignore[override]
        """See FileIO."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BlockingIOError:
            raise
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes  # type: ignore[arg-type]
