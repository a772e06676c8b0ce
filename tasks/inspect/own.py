"""What farside itself runs with on its own machine."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from blocks import readings
from blocks.agent import origins
from blocks.agent.jobs.facts import resolved
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.hosts.ssh import SSHHost
from blocks.ownership import Belongings, hosts_in
from blocks.stores.store import LoginLine
from tasks.context import Rehearsal
from tasks.inspect import ownership
from tasks.inspect.inspection import STAGE

_SEARCHED = ("/etc/hosts", "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
_OF_URL = re.compile(r"://(?:[^\s/@'\"]*@)?\[?([A-Za-z0-9_][\w.:-]*?)(?=\]|:\d+\b|[^\w.:-]|$)")
_VARIABLES = ("AWS_", "PREFECT_", "FARSIDE_", "SSL_", "REQUESTS_", "CURL_", "RES_", "LOCALDOMAIN")


def files_in_use(rehearsal: Rehearsal) -> Iterator[Finding]:
    """Files by which the recovery domain is entered, where links or mounts lead to the source."""
    recovery, foreign = rehearsal.recovery, rehearsal.source.belongings
    used: list[tuple[str, str, Path | None]] = [
        (FindingId.CREDENTIAL_FROM_SOURCE, f"{host.name}'s identity_file", host.identity_file)
        for host in recovery.machines()
        if isinstance(host, SSHHost)
    ]
    used += [
        (file.finding, f"the store's {file.field}", file.path)
        for file in recovery.store.own_files()
    ]
    own = FindingId.CONTROL_PLANE_IN_SOURCE
    used += [
        (own, "farside's Python", Path(sys.executable)),
        *((own, "farside's modules", Path(folder)) for folder in sys.path if folder[:1] == "/"),
        *((own, "a program on PATH", Path(folder)) for folder in os.get_exec_path()),
        (own, "the results", rehearsal.options.results),
    ]
    # A fence's commands name the source's addresses: these are what they shut off.
    words = list(ownership.words_of(rehearsal.plan.fence.model_dump(mode="json")))
    for text_file in origins.of_commands(word for _, word in words):
        text = origins.text_of(text_file)
        for found in (*foreign.paths_in(text), *_asked_in(text, foreign)):
            yield finding(own, text_file, f"the fence's commands: it names {found}", STAGE)
    for place, word in words:
        for found in _asked_in(word, foreign):
            yield finding(own, f"plan fence.{place}", f"the command names {found}", STAGE)
    seen: set[str] = set()
    for finding_id, what, path in used:
        text = str(path.expanduser().absolute()) if path is not None else ""
        if not text or text in seen or (finding_id != own and foreign.paths_in(text)):
            continue  # what the plan names in the source's directories is told by its use
        seen.add(text)
        if found := origins.origin(text, foreign):
            yield finding(finding_id, text, f"{what}: {found}", STAGE)


def _asked_in(text: str, foreign: Belongings) -> list[str]:
    """Hosts of URLs in a text that are the source's: they are asked, not only shut off."""
    comments = readings.comments(text)
    lines = "\n".join(line for number, line in readings.lines(text) if number not in comments)
    return [name for name in dict.fromkeys(_OF_URL.findall(lines)) if foreign.owns_name(name)]


def settings_in_use(rehearsal: Rehearsal) -> Iterator[Finding]:
    """What of this machine leads farside to the source: names, proxies, where credentials are."""
    foreign = rehearsal.source.belongings
    used: dict[str, str] = {}
    for name, value in os.environ.items():
        if not (name.startswith(_VARIABLES) or name.lower().endswith("_proxy")):
            continue
        used |= dict.fromkeys(hosts_in(value), f"${name}")
        for _, found in foreign.lines(value):
            yield _leading(f"${name}", f"farside runs with ${name}, which names {found}")
    for told in rehearsal.recovery.store.login_lines():
        used |= dict.fromkeys(hosts_in(told.text), f"{told.file}:{told.number}")
        yield from _logins_from_source(told, foreign)
    for file in _SEARCHED:
        try:
            text = Path(file).read_text("utf-8", "replace")
        except OSError:
            continue
        for line, found in foreign.lines(text):
            # An entry for a source's own name is how farside reaches the source.
            if file != "/etc/hosts" or not _all_of_source(text.splitlines()[line - 1], rehearsal):
                yield _leading(file, f"on farside's machine: line {line} names {found}")
    for item in resolved({name: where for name, where in used.items() if name}):
        leading = [address for address in item.addresses if foreign.owns_address(address)]
        if leading and not foreign.owns_name(item.name):
            text = f"{item.where} uses it; on farside's machine it leads to {', '.join(leading)}"
            yield finding(FindingId.NAME_RESOLVES_TO_SOURCE, item.name, text, STAGE)


def _logins_from_source(line: LoginLine, foreign: Belongings) -> Iterator[Finding]:
    """What a line of a file of credentials runs or names that is the source's."""

    def from_source(text: str) -> Finding:
        return finding(FindingId.CREDENTIAL_FROM_SOURCE, str(line.file), text, STAGE)

    for program in line.text.split()[:1]:
        if program.startswith("/") and (found := origins.origin(program, foreign)):
            yield from_source(f"credential_process: {found}")
    for path in origins.of_commands(line.text.split()):
        for number, found in foreign.lines(origins.text_of(path)):
            yield from_source(f"{path}: its line {number} names {found}")
    for _, found in foreign.lines(line.text):
        yield from_source(f"line {line.number} names {found}")


def _all_of_source(line: str, rehearsal: Rehearsal) -> bool:
    names = line.partition("#")[0].split()[1:]
    known = {place.partition(".")[0] for place in rehearsal.source.belongings.places}
    return all(rehearsal.source.owns_name(name) or name in known for name in names)


def _leading(subject: str, text: str) -> Finding:
    return finding(
        FindingId.NAME_RESOLVES_TO_SOURCE, subject, text, STAGE, severity=Severity.MEDIUM
    )
