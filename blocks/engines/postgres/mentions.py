"""What the settings of a source name: addresses and paths of another failure domain, and files."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from blocks.engines.postgres.facts import PostgresFacts
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Finding
from blocks.ownership import Belongings
from blocks.remote.resolving import hard_coded

DECIDED = (
    "archive_",
    "cluster_name",
    "config_file",
    "data_directory",
    "event_source",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "log_",
    "port",
    "primary_",
    "recovery_",
    "restore_command",
    "synchronous_standby_names",
    "syslog_",
    "unix_socket_",
)
"""Settings, by prefix, that a restore decides anew for its host: what the source had is gone."""

OWN_PLACE = (
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "unix_socket_",
)
"""Settings, by prefix, that say where the source's own server is."""

# Files that the source's service needs beside its data; a restored one runs without them.
_FILES = ("ssl_", "krb_server_keyfile", "dynamic_library_path", "extension_control_path")

_PATH = re.compile(r"(?<![\w.:/@-])/[\w.+%-]+(?:/[\w.+%-]+)+")


def in_settings(facts: PostgresFacts, foreign: Belongings) -> Iterator[Finding]:
    """Settings of the source that name what is `foreign`.

    Those that a restore decides anew are less grave: on the day they would be taken over with the
    rest. Where the source's own server lies, and listens, is its own affair; a file of settings
    somewhere else is in no backup.
    """
    files = {row.sourcefile or "" for row in facts.settings}
    near = [PurePosixPath(file).parent for file in files if file.endswith("/postgresql.conf")]
    near.append(PurePosixPath(facts.data_directory))
    elsewhere: dict[str, str] = {}
    for row in facts.settings:
        name = row.name
        if name.startswith(OWN_PLACE):
            continue
        file = row.sourcefile or ""
        if file and not any(PurePosixPath(file).is_relative_to(folder) for folder in near):
            elsewhere.setdefault(file, name)
        place = f"{file}:{row.sourceline}" if file else row.source
        for _, mention in foreign.lines(row.value):
            evidence = f"{place}: {name} names {mention}"
            severity = Severity.MEDIUM if name.startswith(DECIDED) else None
            yield hard_coded(f"setting {name}", evidence, mention, foreign, severity)

    for file, name in elsewhere.items():
        for path in foreign.paths_in(file):
            evidence = f"{name} is set there; the file is no part of a backup"
            yield hard_coded(file, evidence, path, foreign, Severity.MEDIUM)


def files_in_settings(facts: PostgresFacts) -> dict[str, str]:
    """Setting -> an absolute path in it that must exist on the recovery host to be of use."""
    found = {}
    for row in facts.settings:
        name, value = row.name, row.value
        own = row.category == "Customized Options" or name.startswith(_FILES)
        if own and value.startswith("/") and not name.startswith(DECIDED):
            found[name] = value.partition(":")[0]
    return found


def files_in_commands(facts: PostgresFacts) -> Iterator[tuple[str, str]]:
    """Settings that are commands, with absolute paths in them, up to what the server fills in."""
    for row in facts.settings:
        if row.name.endswith(("_command", "_cmd")):
            for path in _PATH.findall(row.value):
                yield row.name, path.rpartition("/")[0] if "%" in path else path
