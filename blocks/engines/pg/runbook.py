"""Break glass: the commands that restore a set by hand with curl, age, zstd, tar and PostgreSQL."""

import shlex
from collections.abc import Mapping
from typing import Any

from blocks.artifact.manifest import Manifest, SealedObject
from blocks.engines.pg import config
from blocks.evidence.record import RunbookStep
from blocks.sets import fetch_commands
from blocks.stores import S3Store


def commands(
    manifest: Manifest,
    log: Mapping[str, SealedObject],
    store: S3Store,
    *,
    bin_dir: str,
    data_dir: str,
    spaces_dir: str | None,
    where: str,
) -> tuple[RunbookStep, ...]:
    """Shell commands, to be run in order in one shell. `DATA`, `BIN` and `PORT` may be changed."""
    facts: Mapping[str, Any] = manifest.engine_facts
    quote = shlex.quote
    spaces = {space["oid"]: f"{spaces_dir}/{space['oid']}" for space in facts["tablespaces"]}
    extract = []
    for item in manifest.objects:
        stem = item.name.removesuffix(".zst.age")
        if stem == "backup_manifest":
            extract.append(f'{_fetch(item)} > "$DATA/backup_manifest"')
        elif stem == "base.tar":
            extract.append(f'{_fetch(item)} | tar -x -f - -C "$DATA"')
        else:
            place = quote(spaces[stem.removesuffix(".tar")])
            extract.append(f"mkdir -p {place} && {_fetch(item)} | tar -x -f - -C {place}")
    extract += [f'{_fetch(item)} > "$DATA.wal/{name}"' for name, item in log.items()]
    extract += [f'ln -sfn {quote(place)} "$DATA/pg_tblspc/{oid}"' for oid, place in spaces.items()]
    extract.append(
        'if "$BIN/pg_verifybackup" --version >/dev/null 2>&1; then'
        ' "$BIN/pg_verifybackup" -n -i tablespace_map "$DATA"; fi'
    )
    return (
        RunbookStep(
            f"Prepare: PostgreSQL {facts['version']}, set {manifest.set_id}",
            (
                "set -eu; umask 077",
                f"BIN=${{BIN:-{quote(bin_dir)}}}; DATA=${{DATA:-{quote(data_dir)}}};"
                " PORT=${PORT:-5432}",
                'test ! -e "$DATA" || { echo "$DATA exists: choose another DATA" >&2; exit 1; }',
                *fetch_commands(store, manifest.plan, manifest.set_id),
                'mkdir -p "$DATA" "$DATA.wal"',
            ),
            where,
        ),
        RunbookStep("Fetch, open and extract", tuple(extract), where),
        RunbookStep("Configure for this host", tuple(_configure(facts, spaces)), where),
        RunbookStep(
            "Recover and look",
            (
                '"$BIN/pg_ctl" -D "$DATA" -w -t 86400 -l "$DATA.log" start',
                f'"$BIN/psql" -h 127.0.0.1 -p "$PORT" -U {quote(str(facts["superuser"]))}'
                " -d postgres -c 'SELECT pg_is_in_recovery()'",
            ),
            where,
        ),
    )


def _fetch(item: SealedObject) -> str:
    return f"fetch {' '.join(shlex.quote(volume.key) for volume in item.volumes)} | unseal"


def _configure(facts: Mapping[str, Any], spaces: Mapping[str, str]) -> list[str]:
    limits = config.carried(facts["settings"])
    kept = "".join(f"{name} = {limits[name]}\n" for name in config.REPLAY_LIMITS if name in limits)
    lines = [
        f'printf %s {shlex.quote(kept)} > "$DATA/postgresql.conf"',
        'cat >> "$DATA/postgresql.conf" <<END\n'
        "port = $PORT\n"
        "listen_addresses = '127.0.0.1'\n"
        "unix_socket_directories = ''\n"
        "hot_standby = off\n"
        "archive_mode = off\n"
        "max_logical_replication_workers = 0\n"
        'restore_command = \'cp "$DATA.wal/%f" "%p"\'\n'
        "END",
        "printf 'host all all 127.0.0.1/32 scram-sha-256\\n' > \"$DATA/pg_hba.conf\"",
        ': > "$DATA/postgresql.auto.conf"; : > "$DATA/pg_ident.conf"',
        'rm -f "$DATA/standby.signal"; : > "$DATA/recovery.signal"',
    ]
    if spaces:
        table = shlex.quote(config.tablespace_map(spaces))
        lines.append(f'printf %s {table} > "$DATA/tablespace_map"')
    return lines
