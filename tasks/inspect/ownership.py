"""What was used of the source, by farside or by what it restored, becomes findings."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from blocks.agent.protocol.jobs import FactsJob
from blocks.agent.protocol.results import FactsResult
from blocks.attribution import Inventory
from blocks.block import addresses_of
from blocks.engines.registry import version_words
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.evidence.stages import StageName
from blocks.evidence.uses import Use, ledger
from blocks.fences.fence import Attempt, FenceBroken
from blocks.hosts.host import Host
from blocks.hosts.ssh import SSHHost
from blocks.plan.model import Plan
from blocks.remote.jobs import facts_of
from tasks.context import Rehearsal
from tasks.inspect.searched import RESOLVING

AFTER_THE_LOSS = (StageName.KEY_FETCH, StageName.RESTORE, StageName.VERIFY)
"""Stages in which nothing of the source may be used."""
_NAMING = frozenset({FindingId.ADDRESS_HARD_CODED, FindingId.PEER_LIST_STALE})
"""Findings whose evidence names the address that is called because of them."""
_BY_KIND = {
    "credential": FindingId.CREDENTIAL_FROM_SOURCE,
    "certificate": FindingId.CA_IN_SOURCE,
    "key": FindingId.KEY_CHAIN_IN_SOURCE,
    "tool": FindingId.TOOL_FETCHED_FROM_SOURCE,
    "name": FindingId.NAME_RESOLVES_TO_SOURCE,
}


def inventory(rehearsal: Rehearsal) -> Inventory:
    """Whose is it, in this plan."""
    return Inventory(rehearsal.source, rehearsal.recovery)


def parts_of_source(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Parts of the recovery domain that are at an address of the source, whatever they are called.

    What a plan's text shows is refused when it is loaded; here names are resolved as well.
    """
    recovery, nodes = rehearsal.recovery, rehearsal.plan.engine.predicted_nodes
    machines = [
        (host.name, host.address) for host in recovery.machines() if isinstance(host, SSHHost)
    ]
    machines += [(f"{node.host} ({node.role})", node.address) for node in nodes]
    for what, address in machines:
        if owned := _source_address(rehearsal, address):
            text = f"{address} is {owned}, an address of {rehearsal.source.name}"
            yield finding(
                FindingId.RECOVERY_IS_SOURCE, f"{recovery.name}/{what}", text, StageName.PREFLIGHT
            )
    for host, port in recovery.store.endpoints():
        if _source_address(rehearsal, host):
            text = f"the store of {recovery.name} is at an address of the source"
            yield finding(
                FindingId.STORE_REGION_HARD_CODED, f"{host}:{port}", text, StageName.PREFLIGHT
            )


def _source_address(rehearsal: Rehearsal, address: str) -> str:
    """The source's address that `address` is, or leads to from here; empty for none."""
    if rehearsal.source.owns_name(address):
        return address
    found = addresses_of(address)
    return next((item for item in found if rehearsal.source.owns_address(item)), "")


def misplaced(rehearsal: Rehearsal) -> list[Finding]:
    """Parts of the recovery domain that were used so far and are the source's in truth."""
    noted = ledger().uses()
    truly = inventory(rehearsal).attributed(noted)
    name = rehearsal.recovery.name
    return [
        _of_use(
            rehearsal,
            true,
            StageName.PREFLIGHT,
            f"the recovery domain {name} is configured to use it",
        )
        for use, true in zip(noted, truly, strict=True)
        if use.domain == name and true.domain == rehearsal.source.name
    ]


def shared_credentials(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Credentials with which both domains are entered: lost, or revoked, with the one or the other.

    They are no use of the source, so this is only worth mending before the day.
    """
    for name in sorted(rehearsal.source.credentials() & rehearsal.recovery.credentials()):
        text = f"{rehearsal.source.name} and {rehearsal.recovery.name} are both entered with it"
        yield finding(
            FindingId.CREDENTIAL_FROM_SOURCE,
            name,
            text,
            StageName.PREFLIGHT,
            severity=Severity.MEDIUM,
        )


def uses_of_source(rehearsal: Rehearsal) -> list[Finding]:
    """What farside itself used of the source once it was lost, and what cannot be attributed."""
    found = []
    for use in inventory(rehearsal).attributed(ledger().uses()):
        if use.domain == rehearsal.source.name and use.stage in AFTER_THE_LOSS:
            text = f"it was used at {use.at:%H:%M:%S}, after the loss of {use.domain}"
            item = _of_use(rehearsal, use, use.stage, text)
            # A plan that accepts a weakness wherever it is has accepted no broken isolation.
            if item.id in _wholesale(rehearsal):
                item = finding(FindingId.SOURCE_USED, item.subject, item.evidence, use.stage)
            found.append(item)
        elif not use.domain:
            text = f"a {use.kind} that belongs to no domain of the plan was used"
            found.append(finding(FindingId.USE_UNATTRIBUTED, use.name, text, use.stage))
    return found


def _of_use(rehearsal: Rehearsal, use: Use, stage: str, text: str) -> Finding:
    finding_id = _BY_KIND.get(use.kind, FindingId.SOURCE_USED)
    if use.kind == "object" or (
        use.kind == "address"
        and use.name in {f"{host}:{port}" for host, port in rehearsal.recovery.store.endpoints()}
    ):
        finding_id = FindingId.STORE_REGION_HARD_CODED
    # An object's name holds the id of its set: its store is what is used every time.
    subject = "/".join(use.name.split("/")[:3]) if use.kind == "object" else use.name
    detail = f" ({use.detail})" if use.detail else ""
    return finding(finding_id, subject, f"{use.kind} {use.name}{detail}: {text}", stage)


def _wholesale(rehearsal: Rehearsal) -> set[str]:
    """Findings that the plan accepts whatever their subject."""
    return {risk.finding for risk in rehearsal.plan.accepted if risk.subject is None}


def calls_to_source(rehearsal: Rehearsal) -> tuple[list[Finding], tuple[FarsideError, ...]]:
    """Who called the source after the declaration; and why that could not be seen everywhere.

    By farside's own calls among them is known whether a fence can tell, and how its clock goes.
    """
    plan, knocks = rehearsal.plan, rehearsal.reach.knocks
    seen = plan.fence.attempts(plan.gap(rehearsal.id))
    unseen, own, ahead = seen.unseen, list[Attempt](), timedelta()
    if knocks is not None:
        own = knocks.among(seen.attempts)
        ahead = knocks.ahead(own)
        if plan.fence.tells and (text := knocks.doubt(own)):
            hint = "observe_argv must print each call that the fence denies, soon, with its time"
            unseen += (FenceBroken(text, operation="fence", hint=hint),)
    calls = (Counter(seen.attempts) - Counter(own)).elements()
    found = [item for call in calls for item in _of_attempt(rehearsal, _earlier(call, ahead))]
    return found, unseen


def _earlier(call: Attempt, by: timedelta) -> Attempt:
    with suppress(OverflowError):  # no clock shows such a time
        return call.model_copy(update={"at": call.at - by})
    return call


def _of_attempt(rehearsal: Rehearsal, attempt: Attempt) -> Iterator[Finding]:
    process = attempt.process or "a process that could not be named"
    stage = rehearsal.clock.stage_at(attempt.at) or StageName.VERIFY
    place = f"{attempt.address}:{attempt.port}"
    text = f"{process} (pid {attempt.pid}) called it at {attempt.at:%H:%M:%S}, during {stage}"
    # What the search has named already is one cause with the call that it leads to. A plan that
    # accepts all that is named has accepted no call: that is a broken isolation.
    wholesale = _wholesale(rehearsal)
    for known in rehearsal.findings.all():
        if known.id in _NAMING - wholesale and _names(known.evidence, attempt.address):
            yield finding(known.id, known.subject, text, known.stage)
            return
    vault = rehearsal.recovery.vault
    unlocking = stage == StageName.KEY_FETCH or (vault is not None and vault.runs_as(process))
    finding_id = FindingId.KEY_CHAIN_IN_SOURCE if unlocking else FindingId.SOURCE_USED
    finding_id = FindingId.SOURCE_USED if finding_id in wholesale else finding_id
    yield finding(finding_id, place, text, StageName.VERIFY)


def _names(text: str, address: str) -> bool:
    """Whether an address stands in a text as a whole: 10.0.0.1 is no part of 10.0.0.11."""
    whole = rf"(?<![\w.:]){re.escape(address)}(?![\w]|\.\w)"
    return re.search(whole, text) is not None


def commands(plan: Plan, host: Host, *, target: bool) -> tuple[str, ...]:
    """All words of the commands that a plan gives for a recovery host: its vault's run where that
    is, all others where the service is restored. Its fence's are another's.

    Those must name the source, and run on farside's own machine.
    """
    vault = plan.recovery.vault
    document: dict[str, Any] = {}
    if target:
        document = plan.model_dump(mode="json", exclude={"source", "fence", "recovery"})
        document["engine"].pop("source", None)
    if vault is not None and vault.is_on(host):
        document["vault"] = vault.model_dump(mode="json")
    return tuple(dict.fromkeys(word for _, word in words_of(document)))


def certificates(plan: Plan) -> tuple[str, ...]:
    """Files of certificates that the restored service is given, by the plan."""
    engine = plan.engine.model_dump(mode="json", exclude={"source"})
    files = (text for field, text in _texts_of(engine) if field.endswith(("cert_file", "ca_file")))
    return tuple(dict.fromkeys(filter(None, files)))


def issued(part: Any, hosts: tuple[str, ...] | None = None) -> Iterator[tuple[str, str, str]]:
    """Files of certificates in a part of a plan's document: host, field, and path there.

    What is not named for one host is on each of them (`hosts`; None: all that are named).
    """
    if hosts is None:
        hosts = tuple(dict.fromkeys(text for field, text in _texts_of(part) if field == "host"))
    if isinstance(part, dict):
        own = part.get("host")
        hosts = (own,) if isinstance(own, str) else hosts
        for field, value in part.items():
            if isinstance(value, str) and value and field.endswith(("cert_file", "ca_file")):
                yield from ((host, field, value) for host in hosts)
            yield from issued(value, hosts)
    elif isinstance(part, list):
        for value in part:
            yield from issued(value, hosts)


def _texts_of(part: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Texts in a part of a plan's document, each with the name of its field."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from _texts_of(value, str(key))
    elif isinstance(part, list):
        for value in part:
            yield from _texts_of(value, field)
    elif isinstance(part, str):
        yield field, part


def in_commands(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Words of the plan's commands that name the source; an engine looks at its own."""
    source = rehearsal.source.belongings
    document = rehearsal.plan.model_dump(mode="json", exclude={"source", "fence", "engine"})
    for place, word in words_of(document):
        for _, mention in source.lines(word):
            finding_id = (
                FindingId.PATH_HARD_CODED
                if mention in source.paths
                else FindingId.ADDRESS_HARD_CODED
            )
            yield finding(
                finding_id, f"plan {place}", f"the command names {mention}", StageName.PREFLIGHT
            )


def words_of(part: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Words of all commands in a part of a plan's document, which are in fields called `argv`, each
    with its field as `recovery.vault.read_argv`.
    """
    if isinstance(part, dict):
        for key, value in part.items():
            yield from words_of(value, f"{place}.{key}" if place else str(key))
    elif isinstance(part, list):
        own = place.endswith("argv")
        for number, value in enumerate(part):
            yield from words_of(value, place if own else f"{place}[{number}]")
    elif isinstance(part, str):
        field = place.rpartition(".")[2]
        if field == "argv" or field.endswith("_argv"):
            yield place, part


def mentions(rehearsal: Rehearsal, host: Host, facts: FactsResult) -> Iterator[Finding]:
    """Lines in a recovery host's own files that name the source; of a tool's, `origins` tells."""
    issued = certificates(rehearsal.plan)
    tools = {item.path for item in facts.origins if item.kind == "tool"}
    for item in facts.mentions:
        if item.path in tools:
            continue
        finding_id, text = FindingId.ADDRESS_HARD_CODED, f"line {item.line} names {item.text}"
        if not item.line:
            finding_id, text = FindingId.STORAGE_FROM_SOURCE, item.text
        elif item.path in issued:
            finding_id, text = (
                FindingId.CA_IN_SOURCE,
                f"the certificate in line {item.line} refers to {item.text}",
            )
        elif item.path in RESOLVING:
            finding_id = FindingId.NAME_RESOLVES_TO_SOURCE
        elif item.text in rehearsal.source.paths:
            finding_id = FindingId.PATH_HARD_CODED
        subject = f"{rehearsal.recovery.name}/{host.name} {item.path}"
        severity = Severity.INFO if item.comment else None
        yield finding(finding_id, subject, text, StageName.PREFLIGHT, severity=severity)


def origins(rehearsal: Rehearsal, host: Host, facts: FactsResult) -> Iterator[Finding]:
    """Directories in use, and what programs need to run, that lead to the source."""
    lead = f"{rehearsal.recovery.name}/{host.name}"
    for item in facts.origins:
        finding_id = (
            FindingId.STORAGE_FROM_SOURCE
            if item.kind == "storage"
            else FindingId.TOOL_LINKED_TO_SOURCE
        )
        text = item.origin if item.of == item.path else f"used by {item.of}: {item.origin}"
        known = {directory.path for directory in facts.directories}
        worst = Severity.CRITICAL if item.kind == "storage" and item.of in known else None
        worst = Severity.INFO if item.comment else worst
        yield finding(finding_id, f"{lead} {item.path}", text, StageName.PREFLIGHT, severity=worst)


def names(rehearsal: Rehearsal, host: Host, facts: FactsResult) -> Iterator[Finding]:
    """Names that lead to the source when a recovery host resolves them."""
    source = rehearsal.source.belongings
    for item in facts.names:
        leading = [address for address in item.addresses if source.owns_address(address)]
        if leading:
            used = f"{item.where} uses it; " if item.where else ""
            lead = f"{rehearsal.recovery.name}/{host.name}"
            text = f"{used}on {lead} it leads to {', '.join(leading)}"
            yield finding(FindingId.NAME_RESOLVES_TO_SOURCE, item.name, text, StageName.PREFLIGHT)
        elif not item.addresses and (
            source.owns_name(item.name) or item.name.lower() in source.aliases
        ):
            lead = f"{rehearsal.recovery.name}/{host.name}"
            used = f"{item.where} uses it; " if item.where else ""
            text = f"{used}it is one of {rehearsal.source.name}'s; {lead} does not resolve it"
            yield finding(FindingId.NAME_RESOLVES_TO_SOURCE, item.name, text, StageName.PREFLIGHT)


def identify_tools(rehearsal: Rehearsal, hosts: Sequence[Host]) -> None:
    """Add to the ledger where each tool that ran on a recovery host is, its version and package."""
    # The site's own commands are run as the plan says, and not to ask them for a version.
    own = {item.open_argv[0] for item in rehearsal.plan.secrets}
    for host in hosts:
        lead = f"{host.name}:"
        used = {
            use.name.removeprefix(lead)
            for use in ledger().uses()
            if use.kind == "tool"
            and use.domain == rehearsal.recovery.name
            and use.name.startswith(lead)
        }
        try:
            tools = tuple(sorted(used - own))
            job = FactsJob(tools=tools, version_words=dict(version_words()))
            facts = facts_of(host, rehearsal.id, job)
        except FarsideError:
            continue  # what cannot be asked stays without a detail
        for tool in facts.tools:
            package = f"package {tool.package}" if tool.package else ""
            known = (tool.real or tool.path or "", tool.version or "", package)
            ledger().describe("tool", lead + tool.name, ", ".join(filter(None, known)))
