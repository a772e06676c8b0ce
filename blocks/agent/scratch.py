"""Files that exist while a job runs, and are gone however it ends."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_present: set[Path] = set()
_lock = threading.Lock()


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """`path`, a file or directory that may come to exist, is removed at the end of the block."""
    with _lock:
        _present.add(path)
    try:
        yield path
    finally:
        _remove(path)
        with _lock:
            _present.discard(path)


def remove_all() -> None:
    """Remove what any block still guards: the agent is about to end at once."""
    with _lock:
        paths = list(_present)
    for path in paths:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
