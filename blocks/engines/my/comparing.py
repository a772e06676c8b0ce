"""What a cluster needs, held against the recovery hosts before anything is touched."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from blocks.artifact.mentions import Belongings
from blocks.engines.my import search
from blocks.engines.my.clusters import TargetCluster, TargetNode
from blocks.engines.my.survey import NEEDED
from blocks.evidence.findings import Finding, Severity, finding
from blocks.hosts import Host


def without_host(
    facts: Mapping[str, Any], target: TargetCluster, foreign: Belongings
) -> Iterator[Finding]:
    """What the manifest and the plan alone tell."""
    for node in target.nodes:
        for path in (node.cert_file, node.key_file, target.ca_file):
            for lost in foreign.paths_in(path):
                text = f"the plan names {path}, which is lost with {lost}"
                yield finding("path-hard-coded", f"{node.host} {path}", text, "preflight")
    yield from search.in_settings(facts, foreign)
    for name, path in facts["elsewhere"]:
        text = f"its file is {path}: it would be restored to that very path"
        yield finding("path-hard-coded", f"table {name}", text, "preflight")


def on_host(
    facts: Mapping[str, Any], host: Host, target: TargetCluster, node: TargetNode, domain: str
) -> Iterator[Finding]:
    """The version, the plugins' libraries, Galera's own, and the certificates."""
    where = f"{domain}/{host.name}"
    had = version_of(str(facts["version"]))
    has = version_of(host.run([target.server, "--version"], check=False).text)
    if has != (0, 0, 0) and has[:2] != had[:2]:
        # mariadb-backup prepares, and the server opens, what the same series has written.
        text = f"MariaDB {_text(has)} is there; the set is of {_text(had)}"
        yield finding("engine-version", where, text, "preflight")
    elif has != (0, 0, 0) and has < had:
        text = f"MariaDB {_text(has)} is there, older than the source's {_text(had)}"
        yield finding("engine-version", where, text, "preflight", severity=Severity.MEDIUM)
    if not _readable(host, target.provider):
        text = f"{target.provider} cannot be read: no node can join without Galera's library"
        yield finding("tool-missing", f"{where} {target.provider}", text, "preflight")
    for path in (node.cert_file, node.key_file, target.ca_file):
        if not _readable(host, path):
            text = f"{path} cannot be read: no client and no node would trust this one"
            yield finding("ca-unknown", f"{where} {path}", text, "preflight")
    wanted = {item["library"]: f"plugin {item['name']}" for item in facts["plugins"]}
    # Those that a statement has installed are among the data.
    loaded = {
        item["library"]
        for item in facts["plugins"]
        if not item["installed"] and item["type"] not in NEEDED
    }
    wanted |= dict.fromkeys(facts["libraries"], "functions")
    if wanted:
        directory = _plugin_directory(host, target)
        for library, what in sorted(wanted.items()):
            if not _readable(host, f"{directory}/{library}"):
                id = "library-preloaded" if library in loaded else "extension-missing"
                text = f"{what} of the source needs {directory}/{library}, which is not there"
                yield finding(id, f"{where} {library}", text, "preflight")


def version_of(text: str) -> tuple[int, int, int]:
    """The version in what MariaDB says of itself; (0, 0, 0) if there is none."""
    match = re.search(r"(\d+)\.(\d+)\.(\d+)-MariaDB", text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else (0, 0, 0)


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def _readable(host: Host, path: str) -> bool:
    return host.run(["test", "-r", path], check=False).exit_code == 0


def _plugin_directory(host: Host, target: TargetCluster) -> str:
    said = host.run([target.server, "--no-defaults", "--verbose", "--help"], check=False).text
    found = re.search(r"^plugin-dir\s+(\S+?)/?$", said, re.MULTILINE)
    return found[1] if found else "/usr/lib/mysql/plugin"
