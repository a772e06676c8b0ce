"""Every host of a plan, looked at at once: what it has, what is in the way, where it looks to."""

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from blocks.artifact.job import FactsJob, FactsResult, ToolFacts
from blocks.artifact.mentions import Belongings
from blocks.domain import FailureDomain
from blocks.engines.base import Requirements
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, Severity, finding
from blocks.helper import facts_of, work_folder
from blocks.hosts import Host
from tasks import dependence
from tasks.diagnose import diagnose, unreachable
from tasks.inspection import STAGE, Inspection
from tasks.rehearsal import Rehearsal, running_plan

SKEW_SECONDS = 5.0
"""Clocks may disagree by this much: signatures bear minutes, recovery points only seconds."""


_Needs = Mapping[str, Requirements]
"""Name of a recovery host -> what it needs."""


@dataclass(frozen=True, slots=True)
class _Seen:
    host: Host
    domain: FailureDomain
    facts: FactsResult
    skew: float

    @property
    def where(self) -> str:
        """The host, as findings call it."""
        return f"{self.domain.name}/{self.host.name}"


def inspect_hosts(
    rehearsal: Rehearsal, requirements: Iterable[Requirements], into: Inspection
) -> None:
    """Look at every host; what cannot be reached is a finding.

    Those that nothing is required of are looked at only in general.
    """
    plan = rehearsal.plan
    needs = {item.host: item for item in requirements}
    targets = {f"{plan.recovery.name}/{host}" for host in needs}
    places = [(plan.recovery, host) for host in plan.recovery.hosts]
    if rehearsal.fresh:
        places += [(plan.source, host) for host in plan.source.hosts]
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="preflight") as pool:
        for seen in pool.map(lambda place: _look(rehearsal, place[0], place[1], needs), places):
            if isinstance(seen, _Seen):
                _note(rehearsal, seen, needs, into)
            else:
                lacking = [item for item in seen if item.subject in targets]
                into.blockers += lacking
                into.found += [item for item in seen if item not in lacking]


def _note(rehearsal: Rehearsal, seen: _Seen, needs: _Needs, into: Inspection) -> None:
    into.found += _general(seen)
    for item, runs in _others(rehearsal, seen):
        (into.ends if runs else into.found).append(item)
    if seen.domain is not rehearsal.recovery:
        return
    into.found += dependence.mentions(rehearsal, seen.host, seen.facts.mentions)
    into.found += dependence.names(rehearsal, seen.host, seen.facts)
    into.unseen += [
        f"addresses of the source in {seen.where} {path}: not readable"
        for path in seen.facts.unread
    ]
    into.unseen += [
        f"where {name.name} leads: {seen.where} does not resolve it"
        for name in seen.facts.names
        if not name.addresses
    ]
    if seen.host.name in needs:
        for item in _of_target(rehearsal, seen, needs[seen.host.name]):
            critical = item.severity is Severity.CRITICAL
            (into.blockers if critical else into.found).append(item)


def _look(
    rehearsal: Rehearsal, domain: FailureDomain, host: Host, needs: _Needs
) -> "_Seen | tuple[Finding, ...]":
    plan = rehearsal.plan
    recovering = domain is plan.recovery
    target = needs.get(host.name) if recovering else None
    job = FactsJob(
        directories=(*target.directories, host.work_dir) if target else (),
        ports=target.ports if target else (),
        tools=target.programs if target else (),
        work_dir=host.work_dir,
        names=tuple(plan.names) if recovering else (),
        files=(*dependence.SEARCHED, *plan.files) if recovering else (),
        foreign=plan.source.belongings if recovering else Belongings(),
    )
    before = time.time()
    try:
        work_folder(host, rehearsal.id)
        rehearsal.claimed.add(f"{domain.name}/{host.name}")
        facts = facts_of(host, rehearsal.id, job)
    except FarsideError as error:
        needed = recovering and host.name in (*needs, plan.transfer.host)
        if needed:
            return diagnose(error, STAGE, plan.source.name, subject=f"{domain.name}/{host.name}")
        return (unreachable(error, host, STAGE),)
    return _Seen(host, domain, facts, facts.time - (before + time.time()) / 2)


def _general(seen: _Seen) -> Iterator[Finding]:
    lacking = [name for name, version in seen.facts.modules.items() if version is None]
    if lacking:
        yield finding(
            "tool-missing",
            seen.where,
            f"Python {seen.facts.python} there lacks {', '.join(lacking)}",
            STAGE,
            remedy=f"Install {' and '.join(lacking)} for {seen.host.python} on {seen.where}.",
        )
    if abs(seen.skew) > SKEW_SECONDS:
        yield finding(
            "clock-skew", seen.where, f"its clock is {seen.skew:+.1f} s away from here", STAGE
        )


def _of_target(rehearsal: Rehearsal, seen: _Seen, needs: Requirements) -> Iterator[Finding]:
    where = seen.where
    if any(version is None for version in seen.facts.modules.values()):
        yield from (item for item in _general(seen) if item.id == "tool-missing")
    for tool in seen.facts.tools:
        if tool.path is None:
            yield finding("tool-missing", f"{where} {tool.name}", "it is not there", STAGE)
        elif origin := _origin_in(rehearsal.source, tool):
            text = f"{tool.name} is {tool.real or tool.path}, which is lost with {origin}"
            subject = f"{seen.host.name}:{tool.name}"
            yield finding(
                "tool-fetched-from-source", subject, text, STAGE, severity=Severity.CRITICAL
            )
    for port in seen.facts.ports:
        if not port.free:
            place = f"{where} {port.address}:{port.port}"
            yield finding("port-taken", place, f"it cannot be bound: {port.reason}", STAGE)
    for directory in seen.facts.directories:
        place = f"{where} {directory.path}"
        own = directory.path == seen.host.work_dir
        if directory.exists and not directory.empty and not own:
            yield finding("target-occupied", place, "it is not empty", STAGE)
        elif not directory.writable:
            text = f"{seen.facts.user} may not write there"
            yield finding("target-occupied", place, text, STAGE)
        need = needs.work_bytes if own else needs.directories[directory.path]
        if need > directory.free_bytes:
            text = f"{need:,} bytes needed, {directory.free_bytes:,} free"
            yield finding("disk-too-small", place, text, STAGE)


def _origin_in(source: FailureDomain, tool: ToolFacts) -> str:
    """The directory or server of the source that a program comes from; empty for none."""
    own = source.belongings
    where = f"{tool.path} {tool.real}"
    return next(iter([*own.paths_in(where), *own.places_in(tool.real)]), "")


def _others(rehearsal: Rehearsal, seen: _Seen) -> Iterator[tuple[Finding, bool]]:
    """Other rehearsals that are there: dead ones left something, living ones are in the way.

    With each, whether it runs now.
    """
    for left in seen.facts.leftovers:
        if left.rehearsal_id == rehearsal.id:
            continue
        plan = running_plan(seen.host, left.rehearsal_id)
        if plan == rehearsal.plan.name:
            text = f"rehearsal {left.rehearsal_id} of this plan runs there now"
            remedy = "Wait for its end; what must be gone at once is removed by flows.sweep --all."
            yield finding("target-occupied", seen.where, text, STAGE, remedy=remedy), True
        elif plan is None:
            text = f"rehearsal {left.rehearsal_id} was not cleared away: "
            text += ", ".join([*left.paths, *left.processes][:4])
            yield finding("leftovers", seen.where, text, STAGE), False
