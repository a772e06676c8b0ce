"""Break glass: the commands that restore a set by hand with curl, age, zstd, tar and PostgreSQL."""

import shlex
from collections.abc import Mapping, Sequence

from blocks.artifact.manifest import Manifest, SealedObject
from blocks.engines.postgres import config, wal
from blocks.engines.postgres.facts import PostgresFacts, SetFacts
from blocks.engines.postgres.psql import quote_conninfo
from blocks.engines.postgres.settings import REPLAY_LIMITS, carried
from blocks.evidence.record import RunbookStep
from blocks.repositories.farside.reader import fetch_commands
from blocks.stores.store import ObjectStore

# The restore makes its own links; another archive's would lead it elsewhere.
_TAR = "tar -x --no-same-owner --no-same-permissions --exclude='pg_tblspc/*'"


def commands(  # noqa: PLR0913 (each is a place in the commands, by name)
    manifest: Manifest,
    facts: SetFacts,
    log: Mapping[str, SealedObject],
    store: ObjectStore,
    *,
    bin_dir: str,
    data_dir: str,
    spaces_dir: str | None,
    where: str,
) -> tuple[RunbookStep, ...]:
    """Shell commands, to be run in order in one shell.

    `BIN`, `DATA`, `SPACES` (parent of the tablespaces) and `PORT` may be set before.
    """
    quote = shlex.quote
    spaces = [space.oid for space in facts.tablespaces]
    database = f"dbname={quote_conninfo(facts.maintenance_database)}"
    ask = (
        f'"$BIN/psql" -h "$SOCKET" -p "$PORT" -U {quote(facts.superuser)}'
        f" -d {quote(database)}"
        " -c 'SELECT pg_catalog.now() AS recovered'"
    )
    return (
        RunbookStep(
            f"Prepare: PostgreSQL {facts.version}, set {manifest.set_id}",
            (
                "set -eu; umask 077",
                f"BIN=${{BIN:-{quote(bin_dir)}}}; DATA=${{DATA:-{quote(data_dir)}}};"
                " PORT=${PORT:-5432}; SOCKET=$(mktemp -d)",
                'test ! -e "$DATA" || { echo "$DATA exists: choose another DATA" >&2; exit 1; }',
                _REFUSED,
                *(_spaces(spaces_dir or f"{data_dir}.tablespaces") if spaces else ()),
                *fetch_commands(store, manifest.plan, manifest.set_id),
                'mkdir -p "$DATA" "$DATA.wal"',
            ),
            where,
        ),
        RunbookStep("Fetch, open and extract", tuple(_extract(manifest, facts, log)), where),
        RunbookStep("Configure for this host", tuple(_configure(facts, spaces)), where),
        RunbookStep(
            "Recover and look",
            (
                '"$BIN/pg_ctl" -D "$DATA" -w -t 86400 -l "$DATA.log" start',
                # It has started when it begins to replay; it lets nobody in before the end.
                f"until {ask} 2>/dev/null;"
                ' do "$BIN/pg_ctl" -D "$DATA" status >/dev/null; sleep 1; done',
            ),
            where,
        ),
    )


def _extract(manifest: Manifest, facts: SetFacts, log: Mapping[str, SealedObject]) -> list[str]:
    """What fetches and extracts the base backup, fetches its log, and checks the files."""
    extract, quote = list[str](), shlex.quote
    for item in manifest.objects:
        stem = item.name.removesuffix(".zst.age")
        if stem == "backup_manifest":
            extract.append(f'{_fetch(item)} > "$DATA/backup_manifest"')
        elif stem == "base.tar":
            extract.append(f'{_fetch(item)} | {_TAR} -f - -C "$DATA"')
        else:
            place = f'"$SPACES"/{quote(stem.removesuffix(".tar"))}'
            extract.append(f"mkdir -p {place} && {_fetch(item)} | {_TAR} -f - -C {place}")
    extract += _log(log, facts.wal_segment_size)
    extract += [
        f'ln -sfn "$SPACES"/{oid} "$DATA"/pg_tblspc/{oid}'
        for oid in (quote(space.oid) for space in facts.tablespaces)
    ]
    extract.append(
        'if "$BIN/pg_verifybackup" --version >/dev/null 2>&1; then'
        ' "$BIN/pg_verifybackup" -n -i tablespace_map "$DATA"; fi'
    )
    return extract


def _log(log: Mapping[str, SealedObject], segment_size: int) -> list[str]:
    """What fetches the log: a loop for each run of segments, for a log may have very many."""
    segments, others = wal.runs(log, segment_size)
    per_id = 0x100000000 // segment_size
    return [
        f"segments() {{ n=$2; while [ $n -le $3 ]; do"
        f' name=$(printf %s%08X%08X "$1" $((n / {per_id})) $((n % {per_id})));'
        ' fetch "wal/$name.zst.age" | unseal > "$DATA.wal/$name"; n=$((n + 1)); done; }',
        *(f"segments {timeline} {first} {last}" for timeline, first, last in segments),
        *(f'{_fetch(item)} > "$DATA.wal"/{shlex.quote(name)}' for name, item in others.items()),
    ]


def _fetch(item: SealedObject) -> str:
    return f"fetch {' '.join(shlex.quote(volume.key) for volume in item.volumes)} | unseal"


# The server reads the path again, in a command in a setting.
_REFUSED = (
    r"""case $DATA in *[\'\"\`\$\\%]*)"""
    r""" echo "$DATA: choose a DATA without quotes, $, \\ and %" >&2; exit 1 ;; esac"""
)


def _spaces(place: str) -> tuple[str, str]:
    return (
        f"SPACES=${{SPACES:-{shlex.quote(place)}}}",
        'test ! -e "$SPACES" || { echo "$SPACES exists: choose another SPACES" >&2; exit 1; }',
    )


def _configure(facts: PostgresFacts, spaces: Sequence[str]) -> list[str]:
    quote = shlex.quote
    kept = carried(facts.settings)
    limits = {name: kept[name] for name in REPLAY_LIMITS if name in kept}
    limits |= config.wal_limits(facts.wal_segment_size)
    text = "".join(f"{name} = {config.quoted(value)}\n" for name, value in limits.items())
    lines = [
        f'printf %s {quote(text)} > "$DATA/postgresql.conf"',
        'cat >> "$DATA/postgresql.conf" <<END\n'
        "port = $PORT\n"
        "listen_addresses = '127.0.0.1'\n"
        "unix_socket_directories = '$SOCKET'\n"
        "hot_standby = off\n"
        "archive_mode = off\n"
        "max_logical_replication_workers = 0\n"
        'restore_command = \'cp "$DATA.wal/%f" "%p"\'\n'
        "END",
        "printf 'local all all trust\\nhost all all 127.0.0.1/32"
        f' {config.login_method(facts.roles)}\\n\' > "$DATA/pg_hba.conf"',
        ': > "$DATA/postgresql.auto.conf"; : > "$DATA/pg_ident.conf"',
        'rm -f "$DATA/standby.signal" "$DATA/tablespace_map"; : > "$DATA/recovery.signal"',
    ]
    if spaces:
        pairs = " ".join(f'{oid} "$SPACES"/{oid}' for oid in map(quote, sorted(spaces)))
        lines.append(f"printf '%s %s\\n' {pairs} > \"$DATA/tablespace_map\"")
    return lines
