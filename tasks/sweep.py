"""Sweep: find what dead rehearsals left, from any process, and remove it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from blocks.agent.lease import FILE, Lease
from blocks.domain import FailureDomain
from blocks.engines.engine import LeftElsewhere
from blocks.errors import FarsideError
from blocks.hosts.host import Host
from blocks.plan.model import Plan
from blocks.remote.jobs import end_processes, sweep_host
from blocks.repositories.farside.listing import discard_unfinished, unfinished
from blocks.workers import Workers
from tasks.journal import recover
from tasks.lease import store_key
from tasks.liveness import Seen, look


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed, left alone because it still lives, and could not remove."""

    removed: tuple[str, ...]
    alive: tuple[str, ...]
    remaining: tuple[str, ...]
    recorded: tuple[str, ...] = ()
    """Records written of rehearsals that were killed."""
    expired: tuple[str, ...] = ()
    """Backup sets that retention does not keep, and what of the others it does."""
    kept: tuple[str, ...] = ()


def sweep_plan(plan: Plan, *, everything: bool, results: Path) -> Swept:
    """Sweep both domains of a plan; `everything` takes living and kept rehearsals, too.

    What was seen of a rehearsal that was killed becomes its record, in `results` and the store.
    Of one that lives, or may live for all that is known, nothing is touched: no fence is lifted,
    no process ended, nothing dropped in the source's server. A fence is lifted only for those who
    have raised it, once nothing that they restored runs: where that cannot be told, it stays.
    """
    removed: list[str] = []
    remaining: list[str] = []
    alone: list[str] = []
    seen = look(plan, (plan.recovery,))
    chosen = {
        rehearsal_id
        for rehearsal_id in seen.known
        if everything or seen.state(rehearsal_id) == "dead"
    }
    running = _end_processes(plan, seen, chosen, remaining)
    spared = frozenset(seen.known.keys() - chosen)
    ended = None if everything else frozenset(chosen)
    standing = _lift_fence(plan, seen, spared, ended, running, remaining, alone)
    domains: tuple[FailureDomain, ...] = (plan.recovery,)
    # While a rehearsal lives its source may be lost, and to look there would be a call to it.
    if not spared and not (seen.recovery_unseen and not everything):
        domains = (plan.recovery, plan.source)
        seen = look(plan, domains)
    left = {*seen.known, *_in_stores(plan, domains, remaining)}
    if plan.source in domains:
        left |= _in_server(plan, remaining)
    recorded: list[str] = []
    for rehearsal_id in sorted(left):
        state = seen.state(rehearsal_id)
        if state != "dead" and everything:
            alone.append(f"{rehearsal_id}: nothing; removed although {seen.why(rehearsal_id)}")
        elif state == "alive":
            alone.append(f"{rehearsal_id}: {seen.why(rehearsal_id)}")
            continue
        elif state == "unknown":
            why = seen.why(rehearsal_id)
            remaining.append(
                f"{rehearsal_id}: whether it runs is unknown ({why}); --all removes it"
            )
            continue
        before = len(remaining)
        recorded += _record(plan, rehearsal_id, results, remaining)
        removed += _clear(plan, domains, rehearsal_id, remaining, alone)
        # Its lease in the store is the only note that a fence is up for it.
        if len(remaining) == before and rehearsal_id not in standing:
            _end_lease(domains, rehearsal_id, remaining)
    remaining += seen.problems
    unique = tuple(dict.fromkeys(remaining))
    return Swept(tuple(removed), tuple(dict.fromkeys(alone)), unique, tuple(recorded))


def _end_processes(
    plan: Plan, seen: Seen, ids: Collection[str], remaining: list[str]
) -> frozenset[str]:
    """End what rehearsals started on the recovery hosts; returns those of which some may run."""

    def end(rehearsal_id: str, host: Host) -> tuple[str, ...]:
        try:
            return end_processes(host, rehearsal_id)
        except FarsideError as error:
            return (f"what runs there could not be told: {error.message}",)

    pairs = [
        (rehearsal_id, host)
        for rehearsal_id in sorted(ids)
        for host in plan.recovery.hosts
        if seen.on(host, rehearsal_id)
    ]
    with Workers(8, "end") as pool:
        ended = [pool.submit(end, *pair) for pair in pairs]
    running = set()
    for (rehearsal_id, host), future in zip(pairs, ended, strict=True):
        for what in future.result():
            remaining.append(f"{host.domain}/{host.name}: {what}")
            running.add(rehearsal_id)
    return frozenset(running)


def _lift_fence(  # noqa: PLR0913 (what runs, what is spared, and two lists of what is told)
    plan: Plan,
    seen: Seen,
    spared: frozenset[str],
    ended: frozenset[str] | None,
    running: frozenset[str],
    remaining: list[str],
    alone: list[str],
) -> set[str]:
    """Lift what dead rehearsals raised of which nothing runs; those for which a fence stands."""
    raised = seen.raised(plan.fence)
    if seen.recovery_unseen:
        remaining.append(
            "the fence, if one stands: a place where something restored may run, or that may say "
            "who raised it, could not be looked at"
        )
        return set(raised)
    gap = replace(plan.gap(), spared=spared | running, ended=ended, raised=raised)
    try:
        holders = plan.fence.lift(gap)
    except FarsideError as error:
        remaining.append(f"the fence: {error}")
        return set(raised)
    for rehearsal_id in sorted(holders):
        why = (
            "something that it started still runs"
            if rehearsal_id in running
            else seen.why(rehearsal_id)
        )
        fine = rehearsal_id not in running and seen.state(rehearsal_id) == "alive"
        (alone if fine else remaining).append(f"the fence: {rehearsal_id} has raised it, and {why}")
    standing = set(holders)
    for rehearsal_id in sorted(raised.keys() - spared):
        if not raised[rehearsal_id] & plan.fence.marks:
            remaining.append(
                f"the fence that {rehearsal_id} raised: this plan has no command for it; "
                f"sweep plan {seen.plans(rehearsal_id)}, "
                f"or lift it by hand and remove {store_key(rehearsal_id)} from the store"
            )
            standing.add(rehearsal_id)
    for rehearsal_id in sorted(raised.keys() - spared - standing):
        _note_lifted(plan, seen, rehearsal_id, remaining)
    return standing


def _note_lifted(plan: Plan, seen: Seen, rehearsal_id: str, remaining: list[str]) -> None:
    """Take the fence out of a dead rehearsal's leases: what an operator raises later is not its."""
    told = Lease(seen.plans(rehearsal_id), 1.0, ended=True).dumps()
    try:
        plan.recovery.store.put(store_key(rehearsal_id), told)
        for host in plan.recovery.hosts:
            if seen.on(host, rehearsal_id):
                host.put(told, f"{host.work_root}/{rehearsal_id}/{FILE}")
    except FarsideError as error:
        remaining.append(f"the lease of {rehearsal_id}: {error.message}")


def _end_lease(domains: Iterable[FailureDomain], rehearsal_id: str, remaining: list[str]) -> None:
    for domain in domains:
        try:
            domain.store.remove([store_key(rehearsal_id)])
        except FarsideError as error:
            remaining.append(f"{domain.name} store: {error.message}")


def _record(plan: Plan, rehearsal_id: str, results: Path, problems: list[str]) -> list[str]:
    try:
        published = recover(plan, rehearsal_id, results)
    except FarsideError as error:
        problems.append(f"the record of {rehearsal_id}: {error.message}")
        return []
    if published is None:
        return []
    problems += [f"the record of {rehearsal_id}: {problem}" for problem in published.problems]
    return [f"{published.path} ({published.note})" if published.note else str(published.path)]


def _in_stores(plan: Plan, domains: Iterable[FailureDomain], remaining: list[str]) -> set[str]:
    """Ids of unfinished sets; a store that cannot be asked may hold some."""
    ids: set[str] = set()
    for domain in domains:
        try:
            ids |= set(unfinished(domain.store, plan.name))
        except FarsideError as error:
            remaining.append(f"{domain.name} store could not be looked at: {error.message}")
    return ids


def _in_server(plan: Plan, remaining: list[str]) -> set[str]:
    """Ids of what holds the source's server up; one that cannot be asked may be held up."""
    try:
        return set(plan.engine.leftovers(plan.source))
    except FarsideError as error:
        remaining.append(f"{plan.source.name} server could not be looked at: {error.message}")
        return set()


def _clear(
    plan: Plan,
    domains: Collection[FailureDomain],
    rehearsal_id: str,
    remaining: list[str],
    alone: list[str],
) -> Iterable[str]:
    """What burdens the source first; the leases on the hosts go with their directories, last."""
    removed: list[str] = []
    if plan.source in domains:
        name = plan.source.name
        try:
            removed += [
                f"{name}: {what}" for what in plan.engine.clean_source(plan.source, rehearsal_id)
            ]
        except LeftElsewhere as error:
            remaining.append(f"{error}; then remove {store_key(rehearsal_id)} from both stores")
        except FarsideError as error:
            remaining.append(f"{name} server: {error.message}")
    for domain in domains:
        try:
            keys = discard_unfinished(domain.store, plan.name, rehearsal_id)
        except FarsideError as error:
            remaining.append(f"{domain.name} store: {error.message}")
        else:
            removed += (
                [f"{domain.name} store: {len(keys)} objects of {rehearsal_id}"] if keys else []
            )
    for domain in reversed(list(domains)):
        for host in domain.machines():
            own_only = domain is plan.source
            removed += _clear_host(host, rehearsal_id, remaining, alone, own_only=own_only)
    return removed


def _clear_host(
    host: Host, rehearsal_id: str, remaining: list[str], alone: list[str], *, own_only: bool
) -> Iterable[str]:
    where = f"{host.domain}/{host.name}"
    try:
        swept = sweep_host(host, rehearsal_id, remove=True, own_only=own_only)
    except FarsideError as error:
        remaining.append(f"{where}: {error.message}")
        return
    stays = {what for left in swept.remaining for what in (*left.processes, *left.paths)}
    for left in swept.found:
        alone.extend(f"{where}: {what}" for what in left.left_alone)
        there = (*left.processes, *left.paths)
        yield from (f"{where}: {what}" for what in there if what not in stays)
    remaining.extend(f"{where}: {what}" for what in sorted(stays))
