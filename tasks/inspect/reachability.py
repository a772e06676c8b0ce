"""What of the source answers the recovery side, although it is lost.

A refusal proves a fence only where the same machine got an answer before (see Reach); what could
not be tried proves nothing.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from blocks.agent.protocol.jobs import ProbeJob
from blocks.agent.protocol.results import ProbeResult
from blocks.block import is_ip
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding
from blocks.evidence.record import Check, CheckStatus
from blocks.hosts.host import Host
from blocks.hosts.ssh import SSHHost
from blocks.ownership import canonical
from blocks.remote.jobs import probe
from blocks.workers import Workers
from tasks.context import Rehearsal
from tasks.inspect.diagnose import unreachable
from tasks.knocks import Knocks, Place

PROBE_SECONDS = 2.0
URL_SECONDS = 48 * 3600
_WATCHER_SECONDS = 5.0
"""How long the fence's watcher may take to tell of a call."""

_Answers = list[tuple[Host, ProbeResult | FarsideError]]


@dataclass(frozen=True, slots=True)
class Proof:
    """What of the source answers, and what could not be told; `denied` answered before."""

    leaking: tuple[Finding, ...]
    unknown: tuple[str, ...]
    denied: int
    never: tuple[str, ...]
    """What a machine could not reach before the loss either: its silence proves nothing."""

    @property
    def check(self) -> Check:
        """The check `fence`."""
        expected = "nothing of the source answers any machine of the recovery side"
        if self.leaking:
            actual = "; ".join(f"{item.subject}: {item.evidence}" for item in self.leaking[:5])
            return Check(
                "fence", CheckStatus.FAILED, expected, actual, finding=FindingId.FENCE_LEAKS
            )
        if self.unknown:
            actual = f"could not run: {'; '.join(self.unknown[:5])}"
            return Check("fence", CheckStatus.UNKNOWN, expected, actual)
        actual = f"{self.denied} that answered before do not"
        if self.never:
            actual += f"; {len(self.never)} were never reachable from there"
        return Check("fence", CheckStatus.PASSED, expected, actual)


def reach(rehearsal: Rehearsal) -> None:
    """Note what of the source answers the recovery side now: the control of a later proof."""
    known = rehearsal.reach
    known.url = _readable_url(rehearsal)
    for host, answer in _ask(rehearsal, _endpoints(rehearsal), patience=0.0):
        where = f"{host.domain}/{host.name}"
        if isinstance(answer, FarsideError):
            continue  # preflight has said so
        known.asked.add(where)
        for item in answer.endpoints:
            known.addresses[where, item.address] = item.addresses
            if item.status == "open":
                known.open.add((where, item.address, item.port))
        if "open" in answer.urls:
            known.reads.add(where)


def leaks(rehearsal: Rehearsal, stage: str, *, watched: bool = True) -> Proof:
    """Ask every endpoint of the source from every machine of the recovery side, all at once.

    One that could be entered before and cannot be asked now leaves that unknown; one that never
    could be entered is of no use to the recovery. What hangs up without a word counts as fenced
    if the fence's watcher saw the call; unless `watched`, it is not asked.
    """
    known = rehearsal.reach
    leaking, unknown, never, resets = list[Finding](), list[str](), list[str](), _Resets(rehearsal)
    denied, began = 0, rehearsal.clock.now()
    answers = _ask(rehearsal, _endpoints(rehearsal))
    if known.knocks is None:
        known.knocks = _knocks(rehearsal, answers, began)
    for host, answer in answers:
        where = f"{host.domain}/{host.name}"
        if isinstance(answer, FarsideError):
            rehearsal.findings.add(unreachable(answer, host, stage))
            if where in rehearsal.claimed | known.asked:
                unknown.append(f"{where} cannot be asked any more")
            continue
        for item in answer.endpoints:
            place, before = f"{item.address}:{item.port}", (where, item.address, item.port)
            if item.status == "open":
                text = f"it answers {host.name}"
                leaking.append(finding(FindingId.FENCE_LEAKS, place, text, stage))
            elif item.status == "unknown":
                unknown.append(f"{place} could not be tried from {where}")
            elif (
                item.status == "reset" and watched and not resets.caught(item.addresses, item.port)
            ):
                unknown.append(f"{place} hangs up on {where}, and the fence saw no call")
            elif before in known.open:
                denied += 1
            else:
                never.append(f"{place} from {where}")
        for status in answer.urls if where in known.reads else ():
            store = rehearsal.source.store.endpoints()[0][0]
            if status == "open":
                text = f"{host.name} can still read an object of it"
                leaking.append(finding(FindingId.FENCE_LEAKS, f"{store} (bucket)", text, stage))
            elif status == "unknown":
                unknown.append(f"the source's bucket at {store} could not be tried from {where}")
            elif status == "reset":  # a fence's, or a proxy's that has lost what is behind it
                unknown.append(f"the source's bucket at {store} hangs up on {where}")
            else:
                denied += 1
    return Proof(tuple(leaking), tuple(unknown), denied, tuple(never))


def by_name(rehearsal: Rehearsal) -> bool:
    """Whether the source's store is known by a name that others share: a provider's.

    Its port answers whatever is done to the bucket: not the port is asked then, but an object.
    """
    source = rehearsal.source
    suffixes = [suffix.strip(".").lower() for suffix in source.names]
    (name, _), *_ = source.store.endpoints()
    own = any(name.lower() == item or name.lower().endswith(f".{item}") for item in suffixes)
    return not is_ip(name) and not own


def unprobed(rehearsal: Rehearsal) -> list[str]:
    """What the proof does not cover, for the record."""
    source, known = rehearsal.source, rehearsal.reach
    ports = sorted({port for _, port in _endpoints(rehearsal)})
    text = f"whether other ports or protocols of {source.name} answer: only TCP to "
    missing = [text + ", ".join(map(str, ports)) + " of the plan's endpoints was tried"]
    if not any(network.version == 6 for network in source.networks):
        missing.append(f"IPv6 of {source.name}: the plan gives no network of it")
    if by_name(rehearsal) and not known.reads:
        name = source.store.endpoints()[0][0]
        missing.append(
            f"whether the source's bucket at {name} is shut off: no machine of the recovery side"
            " could read an object of it before the loss"
        )
    if not known.open and not known.reads:
        missing.append("the fence: nothing of the source was reachable from there before, either")
    return missing


class _Resets:
    """Whether the fence's watcher saw the calls that were hung up on."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self._until = time.monotonic() + PROBE_SECONDS + 2 * _WATCHER_SECONDS
        self._seen: set[tuple[str, int]] | None = None

    def caught(self, addresses: Sequence[str], port: int) -> bool:
        """The watcher is asked as seldom as it can be: that may be a command of the site's."""
        plan, wanted = self._rehearsal.plan, {(address, port) for address in addresses}
        while plan.fence.tells:
            if self._seen is not None:
                if self._seen & wanted:
                    return True
                if time.monotonic() > self._until:
                    break
                time.sleep(0.2)
            seen = plan.fence.attempts(plan.gap(self._rehearsal.id)).attempts
            self._seen = {(item.address, item.port) for item in seen}
        return False


def _endpoints(rehearsal: Rehearsal) -> list[tuple[str, int]]:
    """Where nothing may answer over TCP; also by the addresses that names led to before."""
    endpoints = list(rehearsal.plan.gap(rehearsal.id).endpoints)
    if by_name(rehearsal):
        shared = set(rehearsal.source.store.endpoints())
        endpoints = [item for item in endpoints if item not in shared]
    named = {name: found for (_, name), found in rehearsal.reach.addresses.items()}
    return list(
        dict.fromkeys(
            (address, port) for name, port in endpoints for address in named.get(name) or (name,)
        )
    )


def _readable_url(rehearsal: Rehearsal) -> str | None:
    """A presigned URL of any object in the source's store, if it is a provider's."""
    if not by_name(rehearsal):
        return None
    store = rehearsal.source.store
    try:
        found = next(iter(store.objects()), None)
        return store.presign_get(found.key, URL_SECONDS) if found else None
    except FarsideError:
        return None  # unprobed() says so


def _ask(rehearsal: Rehearsal, endpoints: list[tuple[str, int]], patience: float = 5.0) -> _Answers:
    known = rehearsal.reach
    job = ProbeJob(
        endpoints=tuple(endpoints),
        timeout=PROBE_SECONDS,
        patience=patience,
        urls=(known.url,) if known.url else (),
        ca_pem=rehearsal.source.store.ca_pem if known.url else None,
    )

    def ask(host: Host) -> ProbeResult | FarsideError:
        try:
            return probe(host, rehearsal.id, job)
        except FarsideError as error:
            return error

    machines = _machines(rehearsal)
    with Workers(8, "probe") as pool:
        return list(zip(machines, pool.map(ask, machines), strict=True))


def _knocks(rehearsal: Rehearsal, answers: _Answers, began: datetime) -> Knocks:
    """The calls that a fence may have seen. What it drops is sent again every second."""
    places, denied = Counter[Place](), set[Place]()
    for host, answer in answers:
        for item in () if isinstance(answer, FarsideError) else answer.endpoints:
            called = [(canonical(address), item.port) for address in item.addresses]
            for place in called:
                places[place] += 1 + int(PROBE_SECONDS) if item.status == "timeout" else 1
            before = (f"{host.domain}/{host.name}", item.address, item.port)
            if before in rehearsal.reach.open and item.status not in ("open", "unknown"):
                denied.update(called)
    return Knocks(rehearsal.id, places, frozenset(denied), began, rehearsal.clock.now())


def _machines(rehearsal: Rehearsal) -> list[Host]:
    """The recovery hosts and their vault's machine; farside's own may reach the source."""
    recovery = rehearsal.recovery
    hosts = list[Host](recovery.hosts)
    return hosts + [h for h in recovery.machines() if h not in hosts and isinstance(h, SSHHost)]
