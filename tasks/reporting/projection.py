"""Projection: how long recovery would take at production's size, from what was measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Record, Stage
from blocks.evidence.stages import StageName
from blocks.plan.model import Plan
from tasks.reporting.units import duration, size


@dataclass(frozen=True, slots=True)
class Measured:
    """One recovery: `rta` and the part of it that grows with the size, seconds; `bytes` raw."""

    rta: float
    growing: float
    bytes: int

    def at(self, size: int) -> float:
        """Seconds of the same recovery at another size, in proportion."""
        return self.rta - self.growing + self.growing * size / self.bytes

    def bytes_in(self, seconds: float) -> float:
        """The size that is recovered in so many seconds."""
        return (seconds - self.rta + self.growing) * self.bytes / self.growing


def measured(stages: Iterable[Stage], rta: float | None, size: int | None) -> Measured | None:
    """What a rehearsal measured; None if it did not get so far, or nothing that grows was timed."""
    longest: dict[str, float] = {}
    for stage in stages:
        for step in stage.steps if stage.name in (StageName.RESTORE, StageName.VERIFY) else ():
            if step.grows:
                # `NODE: step` is done for several nodes side by side: the slowest counts.
                name = step.name.rpartition(": ")[2]
                longest[name] = max(longest.get(name, 0.0), step.seconds or 0.0)
    growing = sum(longest.values())
    return Measured(rta, growing, size) if rta and size and growing else None


def of_records(records: Iterable[Record]) -> list[Measured]:
    """What earlier rehearsals measured."""
    found = (
        measured(r.stages, r.rta_seconds, r.backup_set.raw_bytes if r.backup_set else None)
        for r in records
    )
    return [item for item in found if item is not None]


def at_production(plan: Plan, runs: Sequence[Measured]) -> list[Finding]:
    """The finding, if the slowest of the runs measured would miss the RTO at production's size."""
    if plan.production is None or not runs:
        return []
    wanted, rto = plan.production.size, plan.objectives.rto.total_seconds()
    times = sorted(run.at(wanted) for run in runs)
    if times[-1] <= rto:
        return []
    between = duration(times[0])
    if len(times) > 1:
        between += f" to {duration(times[-1])}"
    breaks = min(run.bytes_in(rto) for run in runs)
    text = (
        f"{size(wanted)} would be recovered in {between} (from {len(runs)}"
        f" rehearsal{'s' if len(runs) > 1 else ''} of up to"
        f" {size(max(run.bytes for run in runs))}), objective {duration(rto)};"
        f" it breaks above {size(int(max(breaks, 0)))}"
    )
    if plan.production.link is not None:
        copy = timedelta(seconds=round(wanted / plan.production.link))
        text += f"; a full copy over the link takes up to {copy}"
    return [finding(FindingId.BANDWIDTH_INSUFFICIENT, plan.name, text, StageName.VERIFY)]
