"""Signs that a machine of the recovery side is one of the source's.

Its addresses, its SSH host key, its kernel and network, and the source's own servers at work there.
"""

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address

from blocks.block import is_ip
from blocks.engines.abilities import KnowsServers, Running
from blocks.engines.facts import Facts
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.hosts.host import Host
from blocks.hosts.machine import Machine, machine
from blocks.hosts.ssh import SSHHost
from blocks.ownership import canonical
from blocks.workers import Workers
from tasks.context import Rehearsal
from tasks.inspect.inspection import STAGE, Inspection

_IS_SOURCE = FindingId.RECOVERY_IS_SOURCE


def signs_of_source(rehearsal: Rehearsal, into: Inspection) -> Iterator[Finding]:
    """Every machine of the recovery side that is one of the source's by what it says itself.

    What does not say so goes to `into.unseen`.
    """
    source, recovery = rehearsal.source, rehearsal.recovery
    asked = [*recovery.machines(), *(source.machines() if rehearsal.fresh else ())]
    with Workers(8, "machine") as pool:
        answers = dict(zip(map(_place, asked), pool.map(_asked, asked), strict=True))
    known = {place: item for place, item in answers.items() if isinstance(item, Machine)}
    # Two domains on one machine's loopback addresses are meant: a lab.
    theirs = [host for host in source.machines() if not _is_loopback(host)]
    for host in recovery.machines():
        subject, seen = f"{recovery.name}/{host.name}", known.get(_place(host))
        if isinstance(error := answers[_place(host)], FarsideError):
            text = f"whether {subject} is a machine of {source.name}: {error.message}"
            into.unseen.append(text)
        own = sorted(seen.addresses) if seen else []
        for address in (item for item in own if source.owns_address(item)):
            text = f"it has {address}, an address of {source.name}"
            yield finding(_IS_SOURCE, subject, text, STAGE)
        for other in theirs:
            if _key(host) and _key(host) == _key(other):
                text = f"its SSH host key is that of {other.name} in {source.name}"
                yield finding(_IS_SOURCE, subject, text, STAGE)
            there = known.get(_place(other))
            if seen and there and seen.is_same(there):
                text = f"it is the machine that {source.name} calls {other.name}"
                yield finding(_IS_SOURCE, subject, text, STAGE)


def servers_of_source(rehearsal: Rehearsal, facts: Facts, into: Inspection) -> Iterator[Finding]:
    """Servers of the source itself that run where the recovery hosts are.

    What cannot be told goes to `into.unseen`.
    """
    source, recovery, engine = rehearsal.source, rehearsal.recovery, rehearsal.plan.engine
    if not isinstance(engine, KnowsServers):
        return
    if all(_is_loopback(host) for host in source.machines()):
        return  # as above: every host of such a lab is one machine

    def look(host: Host) -> Running:
        try:
            return engine.running(facts, host)
        except FarsideError as error:
            return Running(unknown=(f"whether servers of {source.name}: {error.message}",))

    with Workers(8, "servers") as pool:
        known = list(pool.map(look, recovery.hosts))
    for host, there in zip(recovery.hosts, known, strict=True):
        subject = f"{recovery.name}/{host.name}"
        for text in there.of_source:
            yield finding(_IS_SOURCE, subject, text, STAGE)
        into.unseen += [f"what runs on {subject}: {text}" for text in there.unknown]


def peers_of_source(rehearsal: Rehearsal, facts: Facts) -> Iterator[Finding]:
    """What the source works with at an address that the fence is going to cut off from it."""
    source, recovery = rehearsal.source, rehearsal.recovery
    peers = facts.peers()
    if not peers:
        return
    with Workers(8, "machine") as pool:
        own = list(zip(recovery.hosts, pool.map(_addresses, recovery.hosts), strict=True))
    for peer in peers:
        address = canonical(peer.address)
        waits = ", and its commits may wait for it" if peer.awaited else ""
        at = [f"{recovery.name}/{host.name}" for host, found in own if address in found]
        text = f"{source.name} works with {peer.name!r} at {peer.address}{waits}: "
        if at:
            yield finding(_IS_SOURCE, at[0], f"{text}the fence would cut it off", STAGE)
        elif peer.awaited and recovery.owns_name(address) and not rehearsal.plan.fence.is_on_hosts:
            text += f"a fence between {source.name} and {recovery.name} would cut it off"
            yield finding(_IS_SOURCE, f"{recovery.name}/{peer.address}", text, STAGE)


def _addresses(host: Host) -> frozenset[str]:
    given = frozenset({canonical(host.address)} if isinstance(host, SSHHost) else ())
    with suppress(FarsideError):  # reported when it was asked for signs
        return given | machine(host).addresses
    return given


def _asked(host: Host) -> Machine | FarsideError:
    try:
        return machine(host)
    except FarsideError as error:
        return error


def _place(host: Host) -> tuple[str, str]:
    return host.domain, host.name


def _key(host: Host) -> str:
    words = host.host_key.split() if isinstance(host, SSHHost) else []
    return " ".join(words[:2])


def _is_loopback(host: Host) -> bool:
    if not isinstance(host, SSHHost):
        return True
    return is_ip(host.address) and ip_address(host.address).is_loopback
