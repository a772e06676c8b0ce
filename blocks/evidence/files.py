"""Files that are whole or absent: write, fsync, rename."""

import os
from pathlib import Path
from uuid import uuid4

from blocks.errors import PermanentError


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`, making its folder; a reader never sees half of it.

    Only its owner may change either, whatever the account's umask allows.

    Raises:
        PermanentError: the folder cannot be made or written.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        _make(path.parent)
        try:
            with open(temporary, "xb", opener=_open) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise PermanentError(
            error.strerror or str(error),
            operation=f"writing {path}",
            hint="name a folder that can be written and has space",
        ) from error


def _make(folder: Path) -> None:
    missing = [item for item in (folder, *folder.parents) if not item.exists()]
    for item in reversed(missing):
        item.mkdir(mode=0o755, exist_ok=True)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags, 0o644)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
