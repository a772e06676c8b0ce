"""A restored heartbeat out of its rows."""

from collections.abc import Mapping
from datetime import datetime

from blocks.engines.checks import Ticks


def ticks_of(rows: Mapping[int, datetime]) -> Ticks:
    """What rows, id by id with their times, amount to."""
    if not rows:
        return Ticks(0, None, None, None)
    newest = max(rows)
    missing = next((tick for tick in range(1, newest) if tick not in rows), None)
    return Ticks(len(rows), newest, rows[newest], missing)
