"""A restored heartbeat out of its rows."""

from collections.abc import Callable, Collection
from datetime import datetime

from blocks.engines.checks import Ticks


def ticks_of(ids: Collection[int], time_of: Callable[[int], datetime]) -> Ticks:
    """What rows with these ids amount to; `time_of` is asked for the newest one's time alone."""
    if not ids:
        return Ticks(0, None, None, None)
    newest = max(ids)
    missing = next((tick for tick in range(1, newest) if tick not in ids), None)
    return Ticks(len(ids), newest, time_of(newest), missing)
