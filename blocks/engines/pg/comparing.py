"""A source's facts against the recovery side: what the restored service will lack."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from blocks.artifact.mentions import Belongings
from blocks.engines.pg import config, search, survey
from blocks.evidence.findings import Finding, Severity, finding
from blocks.hosts import Host

_STAGE = "preflight"


def without_host(
    facts: Mapping[str, Any], settings: Mapping[str, str], where: str, foreign: Belongings
) -> Iterator[Finding]:
    """What can be told from the facts alone; `settings` are the recovery site's own."""
    for name, had in config.too_low(facts["settings"], settings).items():
        text = f"engine.target.settings gives {settings[name]}, the source has {had}"
        yield finding("setting-too-low", f"{where} {name}", text, _STAGE)
    for database in facts["databases"]:
        for table in database["tables"]:
            if table["unlogged"] and table["rows"]:
                yield finding(
                    "incomplete-restore",
                    f"{database['name']}.{table['schema']}.{table['name']}",
                    f"it is unlogged: its {table['rows']} rows or so are in no physical backup",
                    _STAGE,
                    severity=Severity.MEDIUM,  # its owner has chosen to lose it in a crash
                    remedy="Make it a logged table, or know how the application fills it again.",
                )
    for row in facts["logical_slots"]:
        yield finding(
            "incomplete-restore",
            f"logical slot {row['name']}",
            f"no backup holds it: its consumer of {row['database']} cannot go on",
            _STAGE,
            severity=Severity.MEDIUM,
            remedy="Plan how each consumer of changes starts anew after a recovery.",
        )
    for row in facts["logins"]:
        for _, mention in foreign.lines(str(row["options"] or "")):
            text = f"logins by {row['method']} ask {mention}"
            yield finding("address-hard-coded", f"pg_hba.conf:{row['line']}", text, _STAGE)
    yield from search.in_settings(facts, foreign)


def on_host(facts: Mapping[str, Any], host: Host, bin_dir: str, where: str) -> Iterator[Finding]:
    """What the recovery host's installation lacks. Raises as `Host.run`."""
    version = host.run([f"{bin_dir}/postgres", "--version"], check=False)
    match = re.search(r"\(PostgreSQL\) (\d+)", version.text)
    if match and int(match[1]) != survey.major(facts):
        text = f"{bin_dir}/postgres is {version.text!r}; the set needs major version"
        yield finding("engine-version", where, f"{text} {survey.major(facts)}", _STAGE)
    for name in absent(host, bin_dir, [f"lib:{name}" for name in libraries(facts)]):
        text = f"the source preloads {name}; it is not installed on {where}"
        yield finding("library-preloaded", name, text, _STAGE)
    extensions = sorted({e["name"] for d in facts["databases"] for e in d["extensions"]})
    for name in absent(host, bin_dir, [f"ext:{name}" for name in extensions]):
        text = f"a database of the source has extension {name}; {where} does not offer it"
        yield finding("extension-missing", name, text, _STAGE)
    for name, path in search.files_in_settings(facts).items():
        if host.run(["test", "-e", path], check=False).exit_code != 0:
            text = f"the source's {name} is {path}, which is not on {where}"
            yield finding("path-hard-coded", f"setting {name}", text, _STAGE)


def libraries(facts: Mapping[str, Any]) -> list[str]:
    """What the source preloads, but for what starts work by itself."""
    names = config.preloaded(facts["shared_preload_libraries"])
    return [name for name in names if PurePosixPath(name).name not in config.SCHEDULERS]


def absent(host: Host, bin_dir: str, wanted: Sequence[str]) -> list[str]:
    """Which of `lib:NAME` and `ext:NAME` an installation does not have."""
    if not wanted:
        return []
    # Some packages bring pg_config with the developer's files only.
    script = (
        'top=${0%/bin/*}; lib=$("$0" --pkglibdir 2>/dev/null) || lib=$top/lib;'
        ' share=$("$0" --sharedir 2>/dev/null) || share=$top/share; for item in "$@"; do'
        " name=${item#???:}; name=${name#\\$libdir/};"
        ' case $item in ext:*) file="$share/extension/$name.control";;'
        ' *) case $name in */*) file="$name";; *) file="$lib/$name";; esac;; esac;'
        ' [ -e "$file" ] || [ -e "$file.so" ] || printf "%s\\n" "$name"; done'
    )
    return host.run(["sh", "-c", script, f"{bin_dir}/pg_config", *wanted]).text.splitlines()
