"""What a cluster needs, held against the recovery hosts before anything is touched."""

import re
from collections.abc import Iterator

from blocks.engines.checks import listed
from blocks.engines.galera import references
from blocks.engines.galera.facts import GaleraFacts
from blocks.engines.galera.plan import TargetCluster, TargetNode
from blocks.engines.galera.restore import plugin_directory
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.hosts.host import Host
from blocks.ownership import Belongings


def without_host(
    facts: GaleraFacts, target: TargetCluster, foreign: Belongings
) -> Iterator[Finding]:
    """What the manifest and the plan alone tell."""
    for node in target.nodes:
        for path in (node.cert_file, node.key_file, target.ca_file):
            for lost in foreign.paths_in(path):
                text = f"the plan names {path}, which is lost with {lost}"
                yield finding(FindingId.PATH_HARD_CODED, f"{node.host} {path}", text)
    yield from references.in_settings(facts, foreign)
    unseen = [name for name, digest in facts.definitions.items() if digest == "unseen"]
    lacking = sorted(set(facts.hidden.values()))
    if unseen or lacking:
        text = f"{len(unseen)} definitions are not shown to the survey's user; missing privileges: "
        yield finding(
            FindingId.CREDENTIAL_REFUSED,
            "the survey's user",
            text + (", ".join(lacking) or "on those objects"),
            severity=Severity.MEDIUM,
            remedy="Grant the survey's user what docs/engines.md names, on *.*; until then these "
            "definitions are compared with nothing.",
        )
    named = [account for account in facts.accounts if _by_name(account)]
    if named and facts.settings.get("skip_name_resolve") == "OFF":
        yield finding(
            FindingId.ACCESS_FROM_SOURCE_ONLY,
            "accounts by host name",
            f"who may connect is told by the names of clients: {listed(named)}",
            severity=Severity.MEDIUM,
            remedy="Have the recovery domain's DNS give its clients names, by address and back, "
            "that these accounts let in; or let them in by address.",
        )
    for name, path in facts.elsewhere:
        text = f"its file is {path}: it would be restored to that very path"
        yield finding(FindingId.PATH_HARD_CODED, f"table {name}", text)


def on_host(
    facts: GaleraFacts, host: Host, target: TargetCluster, node: TargetNode, domain: str
) -> Iterator[Finding]:
    """The version, the plugins' libraries, Galera's own, and the certificates."""
    where = f"{domain}/{host.name}"
    had = version_of(facts.version)
    has = version_of(host.run([target.server, "--version"], check=False).text)
    if has != (0, 0, 0) and has[:2] != had[:2]:
        # mariadb-backup prepares, and the server opens, what the same series has written.
        text = f"MariaDB {_text(has)} is there; the set is of {_text(had)}"
        yield finding(FindingId.ENGINE_VERSION, where, text)
    elif has != (0, 0, 0) and has < had:
        text = f"MariaDB {_text(has)} is there, older than the source's {_text(had)}"
        yield finding(FindingId.ENGINE_VERSION, where, text, severity=Severity.MEDIUM)
    if not _readable(host, target.provider):
        text = f"{target.provider} cannot be read: no node can join without Galera's library"
        yield finding(FindingId.TOOL_MISSING, f"{where} {target.provider}", text)
    for path in (node.cert_file, node.key_file, target.ca_file):
        if not _readable(host, path):
            text = f"{path} cannot be read: no client and no node would trust this one"
            yield finding(FindingId.CA_UNKNOWN, f"{where} {path}", text)
    yield from _libraries(facts, host, target, where)


def _libraries(
    facts: GaleraFacts, host: Host, target: TargetCluster, where: str
) -> Iterator[Finding]:
    """What plugins and functions of the source need, and is not there."""
    wanted = {item.library: f"plugin {item.name}" for item in facts.plugins}
    essential = {item.library for item in facts.plugins if item.installed or item.is_needed}
    essential |= set(facts.libraries)
    wanted |= dict.fromkeys(facts.libraries, "functions")
    if wanted:
        directory = plugin_directory(host, target.server)
        for library, what in sorted(wanted.items()):
            if not _readable(host, f"{directory}/{library}"):
                finding_id = (
                    FindingId.EXTENSION_MISSING
                    if library in essential
                    else FindingId.LIBRARY_PRELOADED
                )
                text = f"{what} of the source needs {directory}/{library}, which is not there"
                yield finding(finding_id, f"{where} {library}", text)


def _by_name(account: str) -> bool:
    """Whether an account is for clients whose names match, which the server asks DNS for."""
    host = account.rpartition("@")[2] if account.startswith("user ") else ""
    return host != "localhost" and ":" not in host and re.search("[A-Za-z]", host) is not None


def version_of(text: str) -> tuple[int, int, int]:
    """The version in what MariaDB says of itself; (0, 0, 0) if there is none."""
    match = re.search(r"(\d+)\.(\d+)\.(\d+)-MariaDB", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def _readable(host: Host, path: str) -> bool:
    return host.run(["test", "-r", path], check=False).exit_code == 0
