"""Which rehearsals are known in the places of a plan, and whether each still runs."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from blocks.agent import lease
from blocks.agent.protocol.results import Leftover
from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.fences.fence import Fence
from blocks.hosts.host import Host
from blocks.plan.model import Plan
from blocks.remote.jobs import sweep_host
from blocks.stores.store import ObjectMissing, ObjectStore
from blocks.workers import Workers
from tasks.lease import STORED, has_ended


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one place says of a rehearsal."""

    where: str
    recovery: bool
    plan: str
    state: lease.State
    kept: bool = False
    fences: tuple[str, ...] = ()


@dataclass(slots=True)
class Seen:
    """What a look at the places of a plan found."""

    plan: str
    known: dict[str, list[Sighting]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Places that could not be looked at, and why."""
    recovery_unseen: bool = False
    """Whether one of them is of the recovery domain, where a rehearsal renews until its end."""
    fences_unseen: bool = False
    """Whether who has raised a fence is unknown: that is in the recovery domain's store."""

    def state(self, rehearsal_id: str) -> lease.State:
        """Alive where any place says so; dead only if every place that would know was asked."""
        sightings = self.known.get(rehearsal_id, [])
        if any(item.state == "alive" for item in sightings):
            return "alive"
        if self.recovery_unseen:
            return "unknown"
        told = [item for item in sightings if item.state == "dead"]
        # Another plan's lease in the source ends at its declaration: its own sweep can tell.
        ours = any(item.recovery or item.plan == self.plan for item in told)
        return "dead" if ours else "unknown"

    def on(self, host: Host, rehearsal_id: str) -> bool:
        """Whether a rehearsal has something on a host."""
        return any(
            item.where == f"{host.domain}/{host.name}" for item in self.known.get(rehearsal_id, ())
        )

    def plans(self, rehearsal_id: str) -> str:
        """The plan that a rehearsal is of, as its leases say."""
        return ", ".join(
            sorted({item.plan for item in self.known.get(rehearsal_id, ()) if item.plan})
        )

    def raised(self, fence: Fence) -> dict[str, frozenset[str]]:
        """Rehearsal -> marks of what it has raised; without those that have raised nothing.

        One of this plan has raised `fence`, whatever its words were then: they may have been
        corrected since.
        """
        found = {}
        for rehearsal_id, sightings in self.known.items():
            marks = frozenset(mark for item in sightings for mark in item.fences)
            if marks:
                own = any(item.plan == self.plan for item in sightings)
                found[rehearsal_id] = marks | (fence.marks if own else frozenset())
        return found

    def why(self, rehearsal_id: str) -> str:
        """What `state` rests on, for people."""
        sightings = self.known.get(rehearsal_id, [])
        if any(item.kept for item in sightings):
            return "it is kept"
        if any(item.state == "alive" for item in sightings):
            return "it runs"
        if self.recovery_unseen:
            return "a place where it may run could not be looked at"
        plans = {item.plan for item in sightings if item.plan} - {self.plan}
        return f"it is of plan {', '.join(sorted(plans))}" if plans else "it left no lease"


def look(plan: Plan, domains: Iterable[FailureDomain]) -> Seen:
    """Look at every host and the store of the domains. Raises nothing of theirs: see `problems`."""
    seen = Seen(plan.name)
    for domain in domains:
        recovery = domain is plan.recovery
        with Workers(8, "look") as pool:
            hosts = [(host, pool.submit(_on_host, host)) for host in domain.machines()]
        for host, found in hosts:
            where = f"{domain.name}/{host.name}"
            try:
                for left in found.result():
                    state: lease.State = "dead" if has_ended(left.owner) else left.state
                    seen.known.setdefault(left.rehearsal_id, []).append(
                        Sighting(where, recovery, left.plan, state, left.kept, left.fences)
                    )
            except FarsideError as error:
                seen.problems.append(f"{where} could not be looked at: {error.message}")
                # Nothing that was restored runs on a vault's own machine.
                seen.recovery_unseen |= recovery and host in domain.hosts
        try:
            _in_store(domain.store, recovery=recovery, seen=seen)
        except FarsideError as error:
            seen.problems.append(f"{domain.name} store: {error.message}")
            seen.recovery_unseen |= recovery
            seen.fences_unseen |= recovery
    return seen


def others_running(plan: Plan, rehearsal_id: str) -> list[str]:
    """Rehearsals of the plan but this one that run now, by their leases in the recovery store.

    Raises what the store raises.
    """
    seen = Seen(plan.name)
    _in_store(plan.recovery.store, recovery=True, seen=seen)
    return [
        other
        for other, sightings in seen.known.items()
        if other != rehearsal_id  # preflight that is tried again finds its own
        and any(s.plan == plan.name and s.state == "alive" and not s.kept for s in sightings)
    ]


def _on_host(host: Host) -> tuple[Leftover, ...]:
    return sweep_host(host, None, remove=False).found


def _in_store(store: ObjectStore, *, recovery: bool, seen: Seen) -> None:
    for info in list(store.objects(STORED)):
        rehearsal_id = info.key.removeprefix(STORED).removesuffix(".json")
        state: lease.State = "unknown"
        told = None
        try:
            told = lease.loads(store.get(info.key))
            age = store.age(info.key)
            state = "unknown" if age is None else told.judge(age)
            if has_ended(told.owner):
                state = "dead"
        except ObjectMissing:
            continue  # it has just ended
        except ValueError:
            pass
        plan, kept, fences = (told.plan, told.kept, told.fences) if told else ("", False, ())
        sighting = Sighting(f"{store.domain} store", recovery, plan, state, kept, fences)
        seen.known.setdefault(rehearsal_id, []).append(sighting)
