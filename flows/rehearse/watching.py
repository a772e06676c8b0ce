"""Who is told of a rehearsal: the terminal, or a drill, that runs it in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path

import pandas as pd

from blocks.engines.restored import Restored
from blocks.evidence.record import Record
from tasks.reporting.clock import Listener, Silence


class Watcher:
    """Has a rehearsal's progress told to `listener`, and is given its outcome."""

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener or Silence()
        self.record: Record | None = None
        self.path: Path | None = None
        self.lifecycle: pd.DataFrame | None = None
        self.warning = ""
        self.service: Restored | None = None
        self.kept_until: datetime | None = None


_watching: ContextVar[Watcher | None] = ContextVar("watching", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[Watcher]:
    """Have `watcher` told of the rehearsals that are run inside."""
    token = _watching.set(watcher)
    try:
        yield watcher
    finally:
        _watching.reset(token)


def present() -> Watcher:
    """The watcher of what runs here; one that nobody looks at where none was set."""
    return _watching.get() or Watcher()
