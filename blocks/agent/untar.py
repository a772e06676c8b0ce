"""A tar from elsewhere, checked member by member before `tar` sees any of it.

What is handed on is written anew from what was understood: a header that two programs read in two
ways does not get through. Directories and plain files below the target are all that a backup of a
data directory needs; a link is where an archive that lies would lead out of it.
"""

import re
import tarfile
from collections.abc import Callable

from blocks.agent.failure import JobFailed

_BLOCK = tarfile.BLOCKSIZE
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PLAIN_BITS = 0o777


class CheckedTar:
    """Takes a tar in pieces and gives `write` a clean one.

    Symbolic links whose whole path matches the pattern `left_out` are not handed on. The bytes of
    files are passed on as they are, without a copy.
    """

    def __init__(
        self, write: Callable[[memoryview], object], name: str, left_out: str = ""
    ) -> None:
        self._write = write
        self._name = name
        self._left_out = left_out
        self._header = bytearray()
        self._body = 0  # bytes of the current member still to come, padding included
        self._ended = False

    def write(self, data: bytes | memoryview) -> int:
        """Takes the next piece. Raises JobFailed."""
        rest = memoryview(data)
        while rest:
            if self._body:
                piece = rest[: self._body]
                self._write(piece)
                self._body -= len(piece)
            else:
                piece = rest[: _BLOCK - len(self._header)]
                self._header += piece
                if len(self._header) == _BLOCK:
                    self._member(bytes(self._header))
                    self._header.clear()
            rest = rest[len(piece) :]
        return len(data)

    def finish(self) -> None:
        """Raises JobFailed if the archive was cut off."""
        if not self._ended or self._body or self._header:
            raise self._refused("the archive is cut off")

    def _member(self, header: bytes) -> None:
        if not any(header):
            self._ended = True
            self._write(memoryview(header))
            return
        if self._ended:
            raise self._refused("something follows the archive's end")
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise self._refused(f"not a header of a tar: {error}") from None
        path = _below(info.name)
        if path is None:
            raise self._refused(f"{info.name!r} leads out of the directory")
        if info.type == tarfile.SYMTYPE and not info.size and self._is_left_out(path):
            return
        if info.type not in (*_FILES, tarfile.DIRTYPE):
            raise self._refused(f"{info.name!r} is a {_kind(info)}")
        # A directory may have the group of the one above it; a file that runs as another may not.
        special = info.mode & ~_PLAIN_BITS and not info.isdir()
        if special or info.size < 0 or (info.isdir() and info.size):
            raise self._refused(f"{info.name!r} has mode {info.mode:o} and {info.size} bytes")
        clean = tarfile.TarInfo(path or ".")
        clean.type = tarfile.DIRTYPE if info.isdir() else tarfile.REGTYPE
        clean.mode = info.mode & _PLAIN_BITS
        clean.size, clean.mtime = info.size, max(info.mtime, 0)
        self._body = -(-info.size // _BLOCK) * _BLOCK
        self._write(memoryview(clean.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")))

    def _is_left_out(self, path: str) -> bool:
        return self._left_out != "" and re.fullmatch(self._left_out, path) is not None

    def _refused(self, text: str) -> JobFailed:
        return JobFailed(
            "object-corrupt",
            f"{self._name}: {text}",
            hint="no backup holds this: find out what the source has become, and do not restore"
            " this set",
        )


def _below(name: str) -> str | None:
    """The path of a member below the target; None if it does not stay there."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        return None
    return "/".join(part for part in parts if part not in ("", "."))


def _kind(info: tarfile.TarInfo) -> str:
    known = {
        tarfile.LNKTYPE: "hard link",
        tarfile.SYMTYPE: "link",
        tarfile.CHRTYPE: "device",
        tarfile.BLKTYPE: "device",
        tarfile.FIFOTYPE: "named pipe",
    }
    return known.get(info.type, f"member of type {info.type!r}")
