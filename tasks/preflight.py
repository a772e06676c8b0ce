"""Preflight: look before anything is touched, and report everything that can be seen at once."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from blocks.artifact.job import FactsJob, FactsResult
from blocks.domain import FailureDomain
from blocks.engines.base import Facts, Requirements
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, finding
from blocks.helper import facts_of
from blocks.hosts import Host
from blocks.sets import SetReader, choose
from tasks.diagnose import diagnose, stop_if_critical
from tasks.rehearsal import Rehearsal, claim, running_plan, stage

STAGE = "preflight"
SKEW_SECONDS = 5.0
"""Clocks may disagree by this much: signatures bear minutes, recovery points only seconds."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What preflight learned: the facts that the restore must match, and the retained set."""

    facts: Facts
    set_id: str | None
    """The retained set to rehearse; None when a fresh one is to be taken."""
    selection: str


@dataclass(frozen=True, slots=True)
class _Seen:
    host: Host
    domain: FailureDomain
    facts: FactsResult
    skew: float


@stage(STAGE, retries=2, limit=300)
def preflight(rehearsal: Rehearsal) -> Survey:
    """Look at both domains. Raises FoundProblems with all that would make recovery impossible."""
    plan = rehearsal.plan
    with rehearsal.clock.stage(STAGE) as clock:
        found: list[Finding] = []
        claim(rehearsal)
        with clock.step("backup set"):
            try:
                survey = _survey(rehearsal)
            except FarsideError:
                # A fence that a killed rehearsal left up hides the source: say so, if it is that.
                rehearsal.findings.add(*_left_in_recovery(rehearsal))
                raise
        needs = plan.engine.requirements(survey.facts)
        with clock.step("hosts"):
            seen = _look(rehearsal, needs, found)
        with clock.step("keys and stores"):
            found += _keys(rehearsal)
        for item in seen:
            found += _host_findings(rehearsal, item, needs)
        if any(item.host.name == needs.host for item in seen if item.domain is plan.recovery):
            with clock.step("versions"):
                found += plan.engine.compare(survey.facts, plan.recovery)
        stop_if_critical(STAGE, rehearsal.findings, tuple(found))
        return survey


def _survey(rehearsal: Rehearsal) -> Survey:
    plan, select = rehearsal.plan, rehearsal.options.select
    if rehearsal.fresh:
        return Survey(plan.engine.survey(plan.source), None, select)
    chosen = choose(plan.recovery.store, plan.name, select)
    reader = SetReader(plan.recovery, plan.name, chosen.set_id, rehearsal.id)
    manifest = reader.manifest(plan.keys.signer)
    return Survey(manifest.engine_facts, chosen.set_id, chosen.how)


def _look(rehearsal: Rehearsal, needs: Requirements, found: list[Finding]) -> list[_Seen]:
    """Every host of the plan at once; what cannot be reached is a finding."""
    plan = rehearsal.plan
    places = [(plan.recovery, host) for host in plan.recovery.hosts]
    if rehearsal.fresh:
        places += [(plan.source, host) for host in plan.source.hosts]

    def look(place: tuple[FailureDomain, Host]) -> _Seen | tuple[Finding, ...]:
        domain, host = place
        target = domain is plan.recovery and host.name == needs.host
        job = FactsJob(
            directories=tuple(needs.directories) if target else (),
            ports=needs.ports if target else (),
            tools=needs.programs if target else (),
            work_dir=host.work_dir,
        )
        before = time.time()
        try:
            facts = facts_of(host, rehearsal.id, job)
        except FarsideError as error:
            return diagnose(error, STAGE, plan.source.name) or (_unreachable(domain, host, error),)
        middle = (before + time.time()) / 2
        return _Seen(host, domain, facts, facts.time - middle)

    seen = []
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="preflight") as pool:
        for result in pool.map(look, places):
            if isinstance(result, _Seen):
                seen.append(result)
            else:
                found += result
    return seen


def _unreachable(domain: FailureDomain, host: Host, error: FarsideError) -> Finding:
    return finding("host-unreachable", f"{domain.name}/{host.name}", error.message, STAGE)


def _host_findings(rehearsal: Rehearsal, seen: _Seen, needs: Requirements) -> Iterable[Finding]:
    where = f"{seen.domain.name}/{seen.host.name}"
    lacking = [name for name, version in seen.facts.modules.items() if version is None]
    if lacking:
        yield finding(
            "tool-missing",
            where,
            f"Python {seen.facts.python} there lacks {', '.join(lacking)}",
            STAGE,
            remedy=f"Install {' and '.join(lacking)} for {seen.host.python} on {where}.",
        )
    if abs(seen.skew) > SKEW_SECONDS:
        yield finding("clock-skew", where, f"its clock is {seen.skew:+.1f} s away from here", STAGE)
    yield from _left_by_others(rehearsal, seen, where)
    if seen.domain is not rehearsal.recovery or seen.host.name != needs.host:
        return
    for tool in seen.facts.tools:
        if tool.path is None:
            yield finding("tool-missing", f"{where} {tool.name}", "it is not there", STAGE)
    for port in seen.facts.ports:
        if not port.free:
            place = f"{where} {port.address}:{port.port}"
            yield finding("port-taken", place, f"it cannot be bound: {port.reason}", STAGE)
    for directory in seen.facts.directories:
        place = f"{where} {directory.path}"
        if directory.exists and not directory.empty:
            yield finding("target-occupied", place, "it is not empty", STAGE)
        elif not directory.writable:
            text = f"{seen.facts.user} may not write there"
            yield finding("target-occupied", place, text, STAGE)
        need = needs.directories[directory.path]
        if need > directory.free_bytes:
            text = f"{need:,} bytes needed, {directory.free_bytes:,} free"
            yield finding("disk-too-small", place, text, STAGE)


def _left_in_recovery(rehearsal: Rehearsal) -> Iterable[Finding]:
    for host in rehearsal.recovery.hosts:
        job = FactsJob(directories=(), ports=(), tools=(), work_dir=host.work_dir)
        with suppress(FarsideError):
            facts = facts_of(host, rehearsal.id, job)
            seen = _Seen(host, rehearsal.recovery, facts, 0.0)
            yield from _left_by_others(rehearsal, seen, f"{rehearsal.recovery.name}/{host.name}")


def _left_by_others(rehearsal: Rehearsal, seen: _Seen, where: str) -> Iterable[Finding]:
    """Other rehearsals that are there: dead ones left something, living ones are in the way."""
    for left in seen.facts.leftovers:
        if left.rehearsal_id == rehearsal.id:
            continue
        plan = running_plan(seen.host, left.rehearsal_id)
        if plan == rehearsal.plan.name:
            text = f"rehearsal {left.rehearsal_id} of this plan runs there now"
            remedy = "Wait for its end; what must be gone at once is removed by flows.sweep --all."
            yield finding("target-occupied", where, text, STAGE, remedy=remedy)
        elif plan is None:
            text = f"rehearsal {left.rehearsal_id} was not cleared away: "
            text += ", ".join([*left.paths, *left.processes][:4])
            yield finding("leftovers", where, text, STAGE)


def _keys(rehearsal: Rehearsal) -> Iterable[Finding]:
    """Which keys the vaults lack, by name; no key is read before the declaration."""
    plan = rehearsal.plan
    wanted = [(plan.recovery, plan.keys.identity)]
    if plan.keys.record_key:
        wanted.append((plan.recovery, plan.keys.record_key))
    if rehearsal.fresh and plan.keys.signing_key:
        wanted.append((plan.source, plan.keys.signing_key))
    for domain, name in wanted:
        if domain.vault is None:
            yield finding("key-only-in-source", name, f"{domain.name} has no vault", STAGE)
            continue
        try:
            names = domain.vault.names()
        except FarsideError as error:
            yield from diagnose(error, STAGE, plan.source.name)
            continue
        if name not in names:
            id = "key-only-in-source" if domain is plan.recovery else "backup-failed"
            text = f"the vault of {domain.name} holds no such secret"
            own = None if name == plan.keys.identity else f"Put it there, under the name {name}."
            yield finding(id, name, text, STAGE, remedy=own)
