"""Expiry: remove from both stores the backup sets that a plan's retention does not keep."""

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from blocks.artifact.manifest import SetHeader
from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.plan.model import Plan
from blocks.repositories.farside.listing import discard_unfinished, headers, retract
from blocks.repositories.farside.retention import Retention, judge
from tasks.evidence import Evidence, evidence
from tasks.lease import mark, store_key
from tasks.liveness import Seen, look
from tasks.reporting.units import size


@dataclass(slots=True)
class Expired:
    """What an expiry removed, kept, left alone, and could not remove, in words."""

    expired: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)


def expire_sets(plan: Plan, retention: Retention, results: Path, now: datetime) -> Expired:
    """Apply a retention to each store of a plan, to each for itself.

    Nothing is removed while a rehearsal of the plan runs, or may run, nor where it cannot be told
    which sets are verified; in the source nothing while any rehearsal runs, or is kept.
    """
    told = Expired()
    work = _Expiry(plan, retention, now, told)
    seen = look(plan, (plan.recovery,))
    if work.hindered(seen):
        return told
    domains, held = work.domains(seen), set(seen.known)
    if plan.source in domains:
        held |= set(look(plan, (plan.source,)).known)
    try:
        known = evidence(plan, results)
    except FarsideError as error:
        told.remaining.append(f"nothing was expired: which sets are verified is unknown: {error}")
        return told
    work.say_evidence(known)
    marked = [(domain, work.mark(domain, work.choose(domain, known, held))) for domain in domains]
    ours = {item.set_id for _, sets in marked for item in sets}
    # A rehearsal that has begun meanwhile may have chosen one of them.
    free = not ours or not work.hindered(look(plan, (plan.recovery,)), ours)
    for domain, sets in marked:
        if free:
            work.remove(domain, sets)
        else:
            with suppress(FarsideError):  # a mark runs out, and a sweep removes it
                domain.store.remove([store_key(item.set_id) for item in sets])
    return told


@dataclass(frozen=True, slots=True)
class _Expiry:
    plan: Plan
    retention: Retention
    now: datetime
    told: Expired

    def hindered(self, seen: Seen, marked: Collection[str] = ()) -> bool:
        """Whether a rehearsal that uses a set of the plan runs, or may run."""
        if seen.recovery_unseen:
            why = "; ".join(seen.problems)
            text = f"nothing was expired: whether a rehearsal runs is unknown: {why}"
            self.told.remaining.append(text)
            return True
        for rehearsal_id in sorted(set(seen.known) - set(marked)):
            sightings, state = seen.known[rehearsal_id], seen.state(rehearsal_id)
            ours = any(item.plan in (self.plan.name, "") for item in sightings)
            restored = any(item.kept for item in sightings)  # it needs its set no more
            if state != "dead" and ours and not restored:
                why = seen.why(rehearsal_id)
                text = f"nothing was expired while {rehearsal_id} may use a set: {why}"
                (self.told.alone if state == "alive" else self.told.remaining).append(text)
                return True
        return False

    def domains(self, seen: Seen) -> tuple[FailureDomain, ...]:
        """Where to look: while a rehearsal may have lost the source, to look there is to call it.

        Such a one is of another plan, or kept.
        """
        living = [
            rehearsal_id
            for rehearsal_id in sorted(seen.known)
            if seen.state(rehearsal_id) != "dead"
        ]
        if not living:
            return (self.plan.recovery, self.plan.source)
        text = f"sets in {self.plan.source.name}: {living[0]} may have lost it: "
        self.told.alone.append(text + seen.why(living[0]))
        return (self.plan.recovery,)

    def say_evidence(self, known: Evidence) -> None:
        """What the choice of verified sets rests on, where that is less than all."""
        if known.left_out:
            text = f"{len(known.left_out)} records, which do not count: {known.left_out[0]}"
            self.told.alone.append(text)
        if not known.verified:
            text = "the newest set of each store, for no record that counts proves any"
            self.told.kept.append(text)
        elif self.plan.keys.record_signer is None:
            text = "verified sets by records as they are: the plan pins no record_signer"
            self.told.kept.append(text)

    def choose(
        self, domain: FailureDomain, known: Evidence, held: Collection[str]
    ) -> list[SetHeader]:
        """The sets of one store that are expired, newest first; those that are kept are told.

        Kept are also the sets of rehearsals of which something is there: `held`.
        """
        sets: list[SetHeader] = []
        try:
            for set_id, header in headers(domain.store, self.plan.binding):
                if isinstance(header, SetHeader):
                    sets.append(header)
                else:
                    self.told.alone.append(f"set {set_id} in {domain.name}: {header.message}")
        except FarsideError as error:
            text = f"sets in {domain.name}: nothing was expired there: {error}"
            self.told.remaining.append(text)
            return []
        chosen: list[SetHeader] = []
        reasons: Counter[str] = Counter()
        for item in judge(sets, self.retention, known.verified, self.now):
            if item.kept is not None:
                reasons[item.kept] += 1
            elif item.header.set_id in held:
                reasons["as their rehearsals are kept, or not cleared away"] += 1
            else:
                chosen.append(item.header)
        if reasons:
            why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            self.told.kept.append(f"sets in {domain.name}: {why}")
        return chosen

    def mark(self, domain: FailureDomain, sets: Sequence[SetHeader]) -> list[SetHeader]:
        """Mark sets as being removed, so that a sweep ends what this process does not come to."""
        marked: list[SetHeader] = []
        try:
            for item in sets:
                mark(domain.store, item.set_id, self.plan.name)
                marked.append(item)
        except FarsideError as error:
            self.told.remaining.append(f"sets in {domain.name}, not all removed: {error}")
        return marked

    def remove(self, domain: FailureDomain, sets: Sequence[SetHeader]) -> None:
        """Remove marked sets: all manifests at once, then what they named, oldest first."""
        store = domain.store
        try:
            retract(store, self.plan.name, [item.set_id for item in sets])
            for item in reversed(sets):
                discard_unfinished(store, self.plan.name, item.set_id)
                store.remove([store_key(item.set_id)])
                taken = f"taken {item.taken_at:%Y-%m-%d %H:%M} UTC, {size(item.sealed_bytes)}"
                self.told.expired.append(f"set {item.set_id} ({taken}) from {domain.name}")
        except FarsideError as error:
            text = f"sets in {domain.name}, not all removed; the next sweep goes on: {error}"
            self.told.remaining.append(text)
