"""The source's clock against the rehearsal's: a recovery point bears the time of the former."""

import time
from collections.abc import Iterator

from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.hosts.host import Host
from tasks.context import Rehearsal, SourceClock
from tasks.inspect.hosts import SKEW_SECONDS
from tasks.inspect.inspection import STAGE

_EXCHANGES = 5
_PATIENCE = 15.0
_RESOLUTION = 0.05
_TELL = "import sys, time\nfor _ in sys.stdin: print(repr(time.time()), flush=True)"


def measure(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Measure it, for a retained set as well, and note it in the rehearsal; nothing is written.

    Of several hosts the one whose clock is furthest ahead counts: it would hide the most. Yields
    a finding for a clock that is far off. One that cannot be asked stays unknown.
    """
    plan = rehearsal.plan
    names = dict.fromkeys(name for _, name in plan.engine.source_hosts)
    measured = []
    for host in (plan.source.host(name) for name in names):
        try:
            clock = _difference(rehearsal, host)
        except (FarsideError, ValueError):
            continue
        measured.append(clock)
        if abs(clock.ahead) > SKEW_SECONDS:
            text = f"its clock is {clock.ahead:+.1f} s away from here"
            yield finding(FindingId.CLOCK_SKEW, f"{plan.source.name}/{host.name}", text, STAGE)
    rehearsal.source_clock = max(measured, key=lambda clock: clock.ahead, default=None)


def _difference(rehearsal: Rehearsal, host: Host) -> SourceClock:
    """The quickest of a few exchanges tells best. Raises FarsideError, ValueError."""
    best: SourceClock | None = None
    with host.start([host.python, "-c", _TELL]) as process:
        told = process.lines(idle=_PATIENCE)
        for _ in range(_EXCHANGES):
            asked, began = rehearsal.clock.now().timestamp(), time.monotonic()
            process.write_line("")
            there = float(next(told, ""))
            took = time.monotonic() - began
            exact = SourceClock(there - asked - took / 2, took / 2 + _RESOLUTION)
            best = exact if best is None or exact.within < best.within else best
    assert best is not None
    return best
