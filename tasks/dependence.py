"""Dependence: what was used of the source, by farside or by what it restored, becomes findings."""

import re
from collections.abc import Iterable, Iterator, Sequence

from blocks.artifact.job import FactsJob, FactsResult, Mention
from blocks.errors import FarsideError
from blocks.evidence.findings import Finding, Severity, finding
from blocks.evidence.uses import Use, ledger
from blocks.fences import Attempt
from blocks.helper import facts_of
from blocks.hosts import Host
from blocks.inventory import Inventory
from tasks.rehearsal import Rehearsal

AFTER_THE_LOSS = ("key fetch", "restore", "verify")
"""Stages in which nothing of the source may be used."""
SEARCHED = (
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/fstab",
    "/etc/exports",
    "/etc/environment",
    "/etc/profile.d/*",
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d/*",
    "/etc/yum.repos.d/*",
    "/etc/pip.conf",
    "/etc/ntp.conf",
    "/etc/chrony/*",
    "/etc/systemd/timesyncd.conf",
    "/etc/crontab",
    "/etc/cron.d/*",
    "/etc/ssh/ssh_config",
    "~/.pgpass",
    "~/.pg_service.conf",
    "~/.psqlrc",
    "~/.ssh/config",
    "~/.profile",
    "~/.bashrc",
    "~/.config/pip/pip.conf",
)
"""Files of a recovery host that say where it gets names, tools, time and logins from."""
RESOLVING = ("/etc/hosts", "/etc/resolv.conf")

_NAMING = ("address-hard-coded", "peer-list-stale")
"""Findings whose evidence names the address that is called because of them."""
_BY_KIND = {
    "credential": "credential-from-source",
    "certificate": "credential-from-source",
    "key": "key-chain-in-source",
    "tool": "tool-fetched-from-source",
    "name": "name-resolves-to-source",
}


def inventory(rehearsal: Rehearsal) -> Inventory:
    """Whose is it, in this plan."""
    return Inventory(rehearsal.source, rehearsal.recovery)


def store_of_source(rehearsal: Rehearsal) -> Iterator[Finding]:
    """The recovery domain's store, where the plan gives it an address of the source."""
    for host, port in rehearsal.recovery.store.endpoints():
        if rehearsal.source.owns_name(host):
            text = f"the store of {rehearsal.recovery.name} is at an address of the source"
            yield finding("store-region-hard-coded", f"{host}:{port}", text, "preflight")


def misplaced(rehearsal: Rehearsal) -> list[Finding]:
    """Parts of the recovery domain that were used so far and are the source's in truth."""
    noted = ledger().uses()
    truly = inventory(rehearsal).attributed(noted)
    name = rehearsal.recovery.name
    return [
        _of_use(rehearsal, true, "preflight", f"the recovery domain {name} is configured to use it")
        for use, true in zip(noted, truly, strict=True)
        if use.domain == name and true.domain == rehearsal.source.name
    ]


def shared_credentials(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Credentials with which both domains are entered: lost, or revoked, with the one or the other.

    They are no use of the source, so this is only worth mending before the day.
    """
    for name in sorted(rehearsal.source.credentials() & rehearsal.recovery.credentials()):
        text = f"{rehearsal.source.name} and {rehearsal.recovery.name} are both entered with it"
        yield finding("credential-from-source", name, text, "preflight", severity=Severity.MEDIUM)


def uses_of_source(rehearsal: Rehearsal) -> list[Finding]:
    """What farside itself used of the source once it was lost, and what nobody can attribute."""
    found = []
    for use in inventory(rehearsal).attributed(ledger().uses()):
        if use.domain == rehearsal.source.name and use.stage in AFTER_THE_LOSS:
            text = f"it was used at {use.at:%H:%M:%S}, after the loss of {use.domain}"
            found.append(_of_use(rehearsal, use, use.stage, text))
        elif not use.domain:
            text = f"a {use.kind} that belongs to no domain of the plan was used"
            found.append(finding("use-unattributed", use.name, text, use.stage))
    return found


def _of_use(rehearsal: Rehearsal, use: Use, stage: str, text: str) -> Finding:
    id = _BY_KIND.get(use.kind, "source-used")
    if use.kind == "object" or (
        use.kind == "address"
        and use.name in {f"{host}:{port}" for host, port in rehearsal.recovery.store.endpoints()}
    ):
        id = "store-region-hard-coded"
    # An object's name holds the id of its set: its store is what is used every time.
    subject = "/".join(use.name.split("/")[:3]) if use.kind == "object" else use.name
    detail = f" ({use.detail})" if use.detail else ""
    return finding(id, subject, f"{use.kind} {use.name}{detail}: {text}", stage)


def calls_to_source(rehearsal: Rehearsal) -> tuple[list[Finding], tuple[FarsideError, ...]]:
    """Who called the source after the declaration; and why that could not be seen everywhere."""
    plan = rehearsal.plan
    seen = plan.fence.attempts(plan.gap(rehearsal.id))
    found = [item for attempt in seen.attempts for item in _of_attempt(rehearsal, attempt)]
    return found, seen.unseen


def _of_attempt(rehearsal: Rehearsal, attempt: Attempt) -> Iterator[Finding]:
    process = attempt.process or "a process that could not be named"
    # farside's own proof knocks at every endpoint; nothing else may.
    if rehearsal.id in process and process.rstrip().endswith(" probe"):
        return
    # It hangs up quickly: a busy machine looks it up too late to name it.
    if attempt.process is None and rehearsal.clock.step_at(attempt.at) == ("declare", "prove"):
        return
    stage = rehearsal.clock.stage_at(attempt.at) or "verify"
    place = f"{attempt.address}:{attempt.port}"
    text = f"{process} (pid {attempt.pid}) called it at {attempt.at:%H:%M:%S}, during {stage}"
    # What the search has named already is one cause with the call that it leads to.
    for known in rehearsal.findings.all():
        if known.id in _NAMING and _names(known.evidence, attempt.address):
            yield finding(known.id, known.subject, text, known.stage)
            return
    vault = rehearsal.recovery.vault
    unlocking = stage == "key fetch" or (vault is not None and vault.runs_as(process))
    id = "key-chain-in-source" if unlocking else "source-used"
    yield finding(id, place, text, "verify")


def _names(text: str, address: str) -> bool:
    """Whether an address stands in a text as a whole: 10.0.0.1 is no part of 10.0.0.11."""
    whole = rf"(?<![\w.:]){re.escape(address)}(?![\w]|\.\w)"
    return re.search(whole, text) is not None


def mentions(rehearsal: Rehearsal, host: Host, found: Iterable[Mention]) -> Iterator[Finding]:
    """Lines in a recovery host's own files that name the source."""
    for item in found:
        id = "address-hard-coded"
        if item.path in RESOLVING:
            id = "name-resolves-to-source"
        elif item.text in rehearsal.source.paths:
            id = "path-hard-coded"
        subject = f"{rehearsal.recovery.name}/{host.name} {item.path}"
        yield finding(id, subject, f"line {item.line} names {item.text}", "preflight")


def names(rehearsal: Rehearsal, host: Host, facts: FactsResult) -> Iterator[Finding]:
    """Names that lead to the source when a recovery host resolves them."""
    source = rehearsal.source.belongings
    for item in facts.names:
        leading = [address for address in item.addresses if source.owns_address(address)]
        if leading:
            text = f"on {rehearsal.recovery.name}/{host.name} it leads to {', '.join(leading)}"
            yield finding("name-resolves-to-source", item.name, text, "preflight")


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
            facts = facts_of(host, rehearsal.id, FactsJob(tools=tuple(sorted(used - own))))
        except FarsideError:
            continue  # what cannot be asked stays without a detail
        for tool in facts.tools:
            package = f"package {tool.package}" if tool.package else ""
            known = (tool.real or tool.path or "", tool.version or "", package)
            ledger().describe("tool", lead + tool.name, ", ".join(filter(None, known)))
