"""Every host of a plan, looked at at once: what it has, what is in the way, where it looks to."""

import glob
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from blocks.agent.bundle import imports
from blocks.agent.protocol.jobs import FactsJob
from blocks.agent.protocol.results import DirectoryFacts, FactsResult, ToolFacts
from blocks.agent.redaction import redacted
from blocks.domain import FailureDomain
from blocks.engines.engine import Requirements
from blocks.engines.registry import version_words
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.hosts.host import Host
from blocks.remote.folder import work_folder
from blocks.remote.jobs import facts_of
from blocks.workers import Workers
from tasks.context import Rehearsal
from tasks.inspect import ownership, searched
from tasks.inspect.diagnose import diagnose, unreachable
from tasks.inspect.inspection import STAGE, Inspection
from tasks.lease import has_ended

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
    ending = _taking(rehearsal)
    places: list[tuple[FailureDomain, Host]] = [
        (plan.recovery, host) for host in plan.recovery.hosts
    ]
    vault = plan.recovery.vault
    if vault is not None and not any(map(vault.is_on, plan.recovery.hosts)):
        places.append((plan.recovery, vault.host))  # perhaps another account of a host's machine
    if rehearsal.fresh:
        places += [(plan.source, host) for host in plan.source.hosts]
    living: set[str] = set()
    unread = defaultdict[str, list[str]](list)
    with Workers(8, "preflight") as pool:
        for seen in pool.map(lambda place: _look(rehearsal, place[0], place[1], needs), places):
            if isinstance(seen, str):
                into.unseen.append(seen)
            elif isinstance(seen, _Seen):
                _note(rehearsal, seen, needs, living, into)
                for text in _unread(seen.facts):
                    unread[text].append(seen.where)
            else:
                into.ends += [item for item in seen if _ends(item, ending)]
                rest = [item for item in seen if not _ends(item, ending)]
                into.blockers += [item for item in rest if item.subject in targets]
                into.found += [item for item in rest if item.subject not in targets]
    into.unseen += [
        f"addresses of the source in {', '.join(hosts)} {text}" for text, hosts in unread.items()
    ]


def _unread(facts: FactsResult) -> Iterator[str]:
    """Files that were to be searched, and were not, or not to their end."""
    yield from (f"{path}: not readable" for path in facts.unread)
    yield from (f"{path}, beyond its first MiB" for path in facts.cut)


def _taking(rehearsal: Rehearsal) -> set[str]:
    """Hosts without which no backup can be taken and copied; none for one that is there already."""
    plan = rehearsal.plan
    if not rehearsal.fresh:
        return set()
    sources = {f"{plan.source.name}/{name}" for _, name in plan.engine.source_hosts}
    return sources | {f"{plan.recovery.name}/{plan.transfer.host}"}


def _ends(item: Finding, hosts: set[str]) -> bool:
    return item.id == FindingId.TOOL_MISSING and item.subject in hosts


def _note(
    rehearsal: Rehearsal, seen: _Seen, needs: _Needs, living: set[str], into: Inspection
) -> None:
    general = list(_general(seen)) if seen.host in seen.domain.hosts else []
    ending = _taking(rehearsal)
    into.ends += [item for item in general if _ends(item, ending)]
    into.found += [item for item in general if not _ends(item, ending)]
    for item, runs in _others(rehearsal, seen, living):
        (into.ends if runs else into.found).append(item)
    if seen.domain is not rehearsal.recovery:
        return
    into.found += ownership.mentions(rehearsal, seen.host, seen.facts)
    into.found += ownership.names(rehearsal, seen.host, seen.facts)
    for item in ownership.origins(rehearsal, seen.host, seen.facts):
        # What would be restored there would be written into production's storage.
        (into.ends if item.severity is Severity.CRITICAL else into.found).append(item)
    if more := seen.facts.more_mentions:
        into.unseen.append(f"{more} more lines of files on {seen.where} that name the source")
    if more := seen.facts.more_names:
        into.unseen.append(f"where {more} more names lead that files on {seen.where} use")
    into.unseen += [
        f"where {name.name} leads: {seen.where} does not resolve it"
        for name in seen.facts.names
        if not (name.addresses or name.where or rehearsal.source.owns_name(name.name))
    ]
    if seen.host in seen.domain.hosts and seen.host.name in needs:
        for item in _of_target(rehearsal, seen, needs[seen.host.name]):
            critical = item.severity is Severity.CRITICAL
            (into.blockers if critical else into.found).append(item)


def _look(
    rehearsal: Rehearsal, domain: FailureDomain, host: Host, needs: _Needs
) -> "_Seen | tuple[Finding, ...] | str":
    """What is there, or what is in the way; of a vault's machine without Python, that it has none.

    It is no machine of which a restore needs more than the secrets.
    """
    plan, where = rehearsal.plan, f"{domain.name}/{host.name}"
    one_of = host in domain.hosts
    needed = domain is plan.recovery and one_of and host.name in (*needs, plan.transfer.host)
    try:
        if (problem := _old_python(host)) is not None:
            if not one_of:
                return f"where the vault on {where} leads: {problem}"
            return (_no_python(rehearsal, domain, host, problem),)
        if host in domain.machines():  # of another account there, nothing would be cleared away
            work_folder(host, rehearsal.id)
            rehearsal.claimed.add(where)
        before = time.time()
        facts = facts_of(host, rehearsal.id, _job(rehearsal, domain, host, needs))
    except FarsideError as error:
        if needed:
            return diagnose(error, STAGE, plan.source.name, subject=where)
        return (unreachable(error, host, STAGE),)
    # What the answer's own time on the way may explain is no skew.
    skew = facts.time - min(max(facts.time, before), time.time())
    return _Seen(host, domain, facts, skew)


def _job(rehearsal: Rehearsal, domain: FailureDomain, host: Host, needs: _Needs) -> FactsJob:
    """What is asked of a host. Raises as Host.run."""
    plan = rehearsal.plan
    if domain is not plan.recovery:
        return FactsJob(directories=(host.work_root,), work_dir=host.work_root)
    vault, one_of = plan.recovery.vault, host in domain.hosts
    target = needs.get(host.name) if one_of else None
    holds = vault is not None and vault.is_on(host)
    # Of a vault whose files are only read, nothing matters but where these are.
    whole = one_of or bool(vault and vault.read_argv)
    issued = map(glob.escape, ownership.certificates(plan)) if target else ()
    return FactsJob(
        directories=(*(target.directories if target else ()), host.work_root),
        ports=target.ports if target else (),
        tools=target.programs if target else (),
        version_words=dict(version_words()),
        commands=ownership.commands(plan, host, target=target is not None),
        work_dir=host.work_root,
        names=tuple(plan.names) if whole else (),
        files=(*searched.SEARCHED, *plan.files, *issued) if whole else (),
        foreign=plan.source.belongings,
        vault=vault.directory if vault is not None and holds else None,
        origins=whole,
    )


_OLDEST = (3, 11)
# Of any version of Python, 2 included; a shell that prints something is not to be taken for it.
_ASK_PYTHON = (
    "import sys; print('farside-python %d %d' % tuple(sys.version_info[:2]));"
    " sys.stdout.flush(); exec(sys.argv[1])"
)
_PYTHON = re.compile(r"^farside-python (\d+) (\d+)\r?$", re.MULTILINE)


def _old_python(host: Host) -> str | None:
    """Why the host's Python cannot run what farside brings; None if it can. Raises as Host.run."""
    done = host.run([host.python, "-c", _ASK_PYTHON, "\n".join(imports())], check=False)
    found = _PYTHON.search(done.text)
    lines = redacted(done.stderr.decode(errors="replace")).strip().splitlines()
    said = lines[-1] if lines else f"exit {done.exit_code}"
    if found is None:
        return f"{host.python} does not run: {said}"
    if (int(found[1]), int(found[2])) < _OLDEST:
        return f"{host.python} is Python {found[1]}.{found[2]}"
    return f"{host.python} cannot import its own library: {said}" if done.exit_code else None


def _no_python(rehearsal: Rehearsal, domain: FailureDomain, host: Host, problem: str) -> Finding:
    """Critical where the rehearsal needs the host; one that it can do without is worth mending."""
    where = f"{domain.name}/{host.name}"
    sources = {name for _, name in rehearsal.plan.engine.source_hosts}
    nodes = rehearsal.plan.engine.predicted_nodes
    targets = {rehearsal.plan.transfer.host, *(node.host for node in nodes)}
    needed = host.name in (targets if domain is rehearsal.recovery else sources)
    return finding(
        FindingId.TOOL_MISSING,
        where,
        f"{problem}; Python 3.11 or later with its whole standard library is needed",
        STAGE,
        severity=Severity.CRITICAL if needed else Severity.MEDIUM,
        remedy=f"Install Python 3.11 or later on {where}, with its whole standard library (not "
        "Debian's python3-minimal alone) and no other modules of its names on PYTHONPATH, or "
        "correct `python` of the host in the plan.",
    )


def _general(seen: _Seen) -> Iterator[Finding]:
    lacking = [name for name, version in seen.facts.modules.items() if version is None]
    if lacking:
        yield finding(
            FindingId.TOOL_MISSING,
            seen.where,
            f"Python {seen.facts.python} there lacks {', '.join(lacking)}",
            STAGE,
            remedy=f"Install {' and '.join(lacking)} for {seen.host.python} on {seen.where}.",
        )
    if abs(seen.skew) > SKEW_SECONDS:
        yield finding(
            FindingId.CLOCK_SKEW,
            seen.where,
            f"its clock is {seen.skew:+.1f} s away from here",
            STAGE,
        )


def _of_target(rehearsal: Rehearsal, seen: _Seen, needs: Requirements) -> Iterator[Finding]:
    where = seen.where
    if any(version is None for version in seen.facts.modules.values()):
        yield from (item for item in _general(seen) if item.id == FindingId.TOOL_MISSING)
    for tool in seen.facts.tools:
        if tool.path is None:
            yield finding(FindingId.TOOL_MISSING, f"{where} {tool.name}", "it is not there", STAGE)
        elif origin := _origin_in(rehearsal.source, tool):
            text = f"{tool.name} is {tool.real or tool.path}, which is lost with {origin}"
            subject = f"{seen.host.name}:{tool.name}"
            yield finding(
                FindingId.TOOL_FETCHED_FROM_SOURCE, subject, text, STAGE, severity=Severity.CRITICAL
            )
        for library in tool.lacking:
            text = f"{tool.name} needs this library, which is not there"
            yield finding(FindingId.TOOL_MISSING, f"{where} {library}", text, STAGE)
    for port in seen.facts.ports:
        if not port.free:
            place = f"{where} {port.address}:{port.port}"
            yield finding(FindingId.PORT_TAKEN, place, f"it cannot be bound: {port.reason}", STAGE)
    for directory in seen.facts.directories:
        place = f"{where} {directory.path}"
        own = directory.path == seen.host.work_root
        remedy = _elsewhere(needs, directory.path)
        if directory.exists and not directory.empty and not own:
            yield finding(FindingId.TARGET_OCCUPIED, place, "it is not empty", STAGE, remedy=remedy)
        elif not directory.writable:
            text = f"{seen.facts.user} may not write there"
            yield finding(FindingId.TARGET_OCCUPIED, place, text, STAGE, remedy=remedy)
    yield from _space(seen, needs)


def _elsewhere(needs: Requirements, directory: str) -> str | None:
    if directory not in needs.fields:
        return None
    return f"Set {needs.fields[directory]} in the plan to a directory that is free and fits."


def _space(seen: _Seen, needs: Requirements) -> Iterator[Finding]:
    """What does not fit; directories of one filesystem share its space."""
    wanted = {seen.host.work_root: needs.work_bytes, **needs.directories}
    by_device = defaultdict[int, list[DirectoryFacts]](list)
    for directory in seen.facts.directories:
        by_device[directory.device].append(directory)
    data = max(needs.directories, key=lambda path: needs.directories[path], default="")
    for directory in seen.facts.directories:
        left = directory.free_files
        if directory.path == data and left is not None and left < needs.files:
            text = f"room for {left:,} more files (inodes), at least {needs.files:,} are needed"
            place, remedy = f"{seen.where} {data}", _elsewhere(needs, data)
            yield finding(FindingId.DISK_TOO_SMALL, place, text, STAGE, remedy=remedy)
    for sharing in by_device.values():
        need, free = sum(wanted[d.path] for d in sharing), min(d.free_bytes for d in sharing)
        if need > free:
            largest, *others = sorted(sharing, key=lambda d: -wanted[d.path])
            text = f"{need:,} bytes needed, {free:,} free"
            if shared := [d.path for d in others if wanted[d.path]]:
                text += f"; {', '.join(shared)} on the same filesystem included"
            place, remedy = f"{seen.where} {largest.path}", _elsewhere(needs, largest.path)
            yield finding(FindingId.DISK_TOO_SMALL, place, text, STAGE, remedy=remedy)


def _origin_in(source: FailureDomain, tool: ToolFacts) -> str:
    """The directory or server of the source that a program comes from; empty for none."""
    own = source.belongings
    where = f"{tool.path} {tool.real}"
    return next(iter([*own.paths_in(where), *own.places_in(tool.real)]), "")


def _others(rehearsal: Rehearsal, seen: _Seen, living: set[str]) -> Iterator[tuple[Finding, bool]]:
    """Other rehearsals that are there: dead ones left something, living ones are in the way.

    With each, whether it runs now. `living` gathers those that do: the recovery hosts, which come
    first, know of them, and what they hold on hosts of the source is not left over.
    """
    for left in seen.facts.leftovers:
        if left.rehearsal_id == rehearsal.id:
            continue
        alive = left.state == "alive" and not has_ended(left.owner)
        own = left.plan in ("", rehearsal.plan.name)
        if alive:
            living.add(left.rehearsal_id)
        if alive and own:
            how = "is kept there" if left.kept else "runs there now"
            text = f"rehearsal {left.rehearsal_id} of this plan {how}"
            remedy = "Wait for its end; what must be gone at once is removed by flows.sweep --all."
            yield finding(FindingId.TARGET_OCCUPIED, seen.where, text, STAGE, remedy=remedy), True
        # On the source's hosts another plan's lease says nothing once its source is declared lost.
        elif left.rehearsal_id not in living and (own or seen.domain is rehearsal.recovery):
            text = f"rehearsal {left.rehearsal_id} was not cleared away: "
            if left.state == "unknown":
                text = f"rehearsal {left.rehearsal_id} left no lease, so may still run: "
            text += ", ".join([*left.paths, *left.processes][:4])
            yield finding(FindingId.LEFTOVERS, seen.where, text, STAGE), False
