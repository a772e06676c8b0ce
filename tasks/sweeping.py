"""Sweep: find what dead rehearsals left, from any process, and remove it."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from blocks.domain import FailureDomain
from blocks.errors import FarsideError
from blocks.helper import sweep_host
from blocks.hosts import Host
from blocks.plan import Plan
from blocks.sets import discard_unfinished, unfinished
from tasks.rehearsal import running_plan


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed, left alone because it still lives, and could not remove."""

    removed: tuple[str, ...]
    alive: tuple[str, ...]
    remaining: tuple[str, ...]


def sweep_plan(plan: Plan, *, everything: bool) -> Swept:
    """Sweep both domains of a plan; `everything` takes living and kept rehearsals, too.

    A fence that still stands is lifted first, unless it is of one that lives: it hides the source.
    """
    removed: list[str] = []
    remaining: list[str] = []
    found = {**_found(plan.recovery, remaining)}
    alive = {} if everything else {id: text for id, text in found.items() if _alive(plan, id)}
    try:
        plan.fence.lift(replace(plan.gap(), living=frozenset(alive)))
    except FarsideError as error:
        remaining.append(f"the fence: {error}")
    # While a rehearsal lives its source may be lost, and to look there would be a call to it.
    domains = (plan.recovery,) if alive else (plan.recovery, plan.source)
    left = {*found, *_in_stores(plan, domains)}
    if not alive:
        left |= {*_found(plan.source, remaining), *_in_server(plan)}
    for id in sorted(left - set(alive)):
        removed += _clear(plan, domains, id, remaining)
    return Swept(tuple(removed), tuple(sorted(alive)), tuple(dict.fromkeys(remaining)))


def _found(domain: FailureDomain, problems: list[str]) -> dict[str, str]:
    """Rehearsal ids with something on a host of the domain."""
    ids: dict[str, str] = {}
    for host in domain.hosts:
        try:
            for left in sweep_host(host, None, remove=False).found:
                ids[left.rehearsal_id] = left.rehearsal_id
        except FarsideError as error:
            problems.append(f"{domain.name}/{host.name} could not be looked at: {error.message}")
    return ids


def _alive(plan: Plan, id: str) -> bool:
    for host in plan.recovery.hosts:
        with suppress(FarsideError):
            if running_plan(host, id) is not None:
                return True
    return False


def _in_stores(plan: Plan, domains: Iterable[FailureDomain]) -> set[str]:
    ids: set[str] = set()
    for domain in domains:
        with suppress(FarsideError):
            ids |= set(unfinished(domain.store, plan.name))
    return ids


def _in_server(plan: Plan) -> set[str]:
    with suppress(FarsideError):
        return set(plan.engine.remains(plan.source))
    return set()


def _clear(
    plan: Plan, domains: Collection[FailureDomain], id: str, remaining: list[str]
) -> Iterable[str]:
    removed: list[str] = []
    for domain in domains:
        for host in domain.hosts:
            removed += _clear_host(domain, host, id, remaining)
        try:
            keys = discard_unfinished(domain.store, plan.name, id)
        except FarsideError as error:
            remaining.append(f"{domain.name} store: {error.message}")
        else:
            removed += [f"{domain.name} store: {len(keys)} objects of {id}"] if keys else []
    if plan.source not in domains:
        return removed
    try:
        removed += [f"{plan.source.name}: {what}" for what in plan.engine.withdraw(plan.source, id)]
    except FarsideError as error:
        remaining.append(f"{plan.source.name} server: {error.message}")
    return removed


def _clear_host(domain: FailureDomain, host: Host, id: str, remaining: list[str]) -> Iterable[str]:
    where = f"{domain.name}/{host.name}"
    try:
        swept = sweep_host(host, id, remove=True)
    except FarsideError as error:
        remaining.append(f"{where}: {error.message}")
        return
    for left in swept.found:
        yield from (f"{where}: {what}" for what in (*left.processes, *left.paths))
    for left in swept.remaining:
        remaining.extend(f"{where}: {what}" for what in (*left.processes, *left.paths))
