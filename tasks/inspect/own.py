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
from blocks.stores.s3 import S3Store
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
    if isinstance(store := recovery.store, S3Store):
        file = store.credentials_file
        used.append((FindingId.CREDENTIAL_FROM_SOURCE, "the store's credentials_file", file))
        used.append((FindingId.CA_IN_SOURCE, "the store's ca_file", store.ca_file))
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
    if isinstance(store := rehearsal.recovery.store, S3Store):
        for line, text in _section(store):
            used |= dict.fromkeys(hosts_in(text), f"{store.credentials_file}:{line}")
            for program in text.split()[:1]:
                if program.startswith("/") and (found := origins.origin(program, foreign)):
                    yield _credential(store, f"credential_process: {found}")
            for path in origins.of_commands(text.split()):
                for number, found in foreign.lines(origins.text_of(path)):
                    yield _credential(store, f"{path}: its line {number} names {found}")
            for _, found in foreign.lines(text):
                yield _credential(store, f"line {line} names {found}")
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


def _section(store: S3Store) -> Iterator[tuple[int, str]]:
    """Lines of the store's credentials file that say where its credentials come from: no keys."""
    if store.credentials_file is None:
        return
    try:
        lines = store.credentials_file.expanduser().read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        name, _, value = line.partition("=")
        if name.strip() not in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"):
            yield number, value.strip() if name.strip() == "credential_process" else line.strip()


def _all_of_source(line: str, rehearsal: Rehearsal) -> bool:
    names = line.partition("#")[0].split()[1:]
    known = {place.partition(".")[0] for place in rehearsal.source.belongings.places}
    return all(rehearsal.source.owns_name(name) or name in known for name in names)


def _leading(subject: str, text: str) -> Finding:
    return finding(
        FindingId.NAME_RESOLVES_TO_SOURCE, subject, text, STAGE, severity=Severity.MEDIUM
    )


def _credential(store: S3Store, text: str) -> Finding:
    return finding(FindingId.CREDENTIAL_FROM_SOURCE, str(store.credentials_file), text, STAGE)
