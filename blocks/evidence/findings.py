"""Findings: assumptions that broke, or that would have, on the way to the other side.

The catalogue holds every assumption that farside knows by a stable id, with what to do about it.
One cause is one finding: its identity is its id and its subject, however often it was met.
"""

import threading
from dataclasses import dataclass, field, replace
from datetime import date

from blocks.evidence.catalogue import LOADED, Category, Severity
from blocks.evidence.schema import DESCRIBED


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Why the plan's owner lives with a finding, and the last day (UTC) on which that holds."""

    __pydantic_config__ = DESCRIBED

    reason: str
    """The owner's reason."""
    until: date
    """The last day on which it counts."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An assumption that broke, met at `stage`.

    Two findings are equal if id and subject are: a subject is the same in every rehearsal that
    meets the cause, and what varies (ids, times, processes) is evidence. A finding that is
    `accepted` counts neither for the verdict nor for the exit code.
    """

    __pydantic_config__ = DESCRIBED

    id: str
    """Its id in the catalogue."""
    category: Category = field(compare=False)
    """What kind of assumption broke."""
    severity: Severity = field(compare=False)
    """How bad it is in a real disaster."""
    subject: str
    """What it is about: a host, an object, an address."""
    evidence: str = field(compare=False)
    """What was seen."""
    remedy: str = field(compare=False)
    """What to do about it."""
    stage: str = field(compare=False)
    """The stage that met it."""
    accepted: Acceptance | None = field(default=None, compare=False)
    """Why it does not count, if the plan accepts it."""

    def at(self, stage: str) -> "Finding":
        """The same, met at `stage`."""
        return replace(self, stage=stage)

    @property
    def title(self) -> str:
        """The broken assumption in a few words; the id, if this version does not know it."""
        known = LOADED.get(self.id)
        return known.title if known else self.id

    @property
    def stops(self) -> bool:
        """Whether preflight ends the rehearsal on it; see Assumption."""
        known = LOADED.get(self.id)
        return known is not None and known.stops


def finding(  # noqa: PLR0913 (each is a field of a finding)
    finding_id: str,
    subject: str,
    evidence: str,
    stage: str = "",
    *,
    severity: Severity | None = None,
    remedy: str | None = None,
) -> Finding:
    """A finding from the catalogue; `finding_id` is a FindingId, or an id of an engine's own.

    Severity and remedy are the catalogue's unless more is known about this very case. What knows
    no stage, as an engine, leaves it to its caller: see `Finding.at`.

    Raises:
        KeyError: there is no such id in the catalogue (a mistake in farside).
    """
    known = LOADED[finding_id]
    return Finding(
        id=str(known.id),
        category=known.category,
        severity=severity or known.severity,
        subject=subject,
        evidence=evidence,
        remedy=remedy or known.remedy,
        stage=str(stage),
    )


class Findings:
    """Collects findings; what is met again adds to the evidence of the first. Thread-safe."""

    _EVIDENCE_KEPT = 5

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Finding, list[Finding]] = {}

    def add(self, *findings: Finding) -> None:
        """Note findings."""
        with self._lock:
            for item in findings:
                self._found.setdefault(item, []).append(item)

    def all(self) -> tuple[Finding, ...]:
        """Every finding once, the worst first, then in the order in which they were met."""
        with self._lock:
            merged = [self._merge(group) for group in self._found.values()]
        return tuple(sorted(merged, key=lambda item: item.severity.rank))

    def _merge(self, group: list[Finding]) -> Finding:
        evidence = list(dict.fromkeys(item.evidence for item in group))
        shown = "; ".join(evidence[: self._EVIDENCE_KEPT])
        if len(evidence) > self._EVIDENCE_KEPT:
            shown += f"; and {len(evidence) - self._EVIDENCE_KEPT} more"
        worst = min((item.severity for item in group), key=lambda severity: severity.rank)
        return replace(group[0], severity=worst, evidence=shown)
