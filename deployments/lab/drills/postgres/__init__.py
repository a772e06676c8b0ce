"""Drills that only PostgreSQL can see, or sees by ways of its own."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from blocks.repositories.farside.layout import LOG
from deployments.lab.drills.board import ONE_REHEARSAL, Board
from deployments.lab.drills.ground import Ground
from deployments.lab.drills.postgres.live import LivePostgres
from deployments.lab.parts import postgres

_START = """\
for word in "$@"; do
  if [ "$word" = start ]; then exec "$REAL" -o "{options}" "$@"; fi
done
exec "$REAL" "$@"
"""


TOGETHER = (
    (
        "key-stale",
        "key-rotated-away",
        "setting-too-low",
        "control-plane-in-source",
        "name-resolves-to-source",
        "copy-behind",
        "leftovers",
    ),
    (
        "credential-from-source",
        "clock-skew",
        "key-chain-in-source",
        "rto-missed",
        "bandwidth-insufficient",
        "check-failed",
    ),
    (
        "extension-missing",
        "library-preloaded",
        "path-hard-coded",
        "address-hard-coded",
    ),
    ("locale-changed", "log-replay-short", "app-secret-missing"),
    ("locale-missing",),
    ("restored-jobs-fire", "login-missing"),
    ("source-used", "index-corrupt", "usable-not-restored", "archive-into-production"),
    ("page-corrupt", "incomplete-restore", "fence-stays", "rpo-missed"),
    (
        "key-only-in-source",
        "tool-missing",
        "tool-fetched-from-source",
        "target-occupied",
        "port-taken",
        "object-missing",
    ),
    ("engine-version", "copy-is-cold"),
    ("sealed-to-source-only", "fence-leaks"),
    ("host-unreachable", "manifest-forged"),
    ("ssh-trust-missing", "ca-unknown"),
)
UNDRILLED = ONE_REHEARSAL | {
    "node-count-differs": "one PostgreSQL server has no other shape",
    "revision-reused": "one PostgreSQL server has timelines instead",
    "service-more-open": "the restore writes a pg_hba.conf that asks each role for a password",
    "node-identity-reused": "one PostgreSQL server joins nobody",
    "peer-list-stale": "one PostgreSQL server has no peers",
    "placement-dropped": "one PostgreSQL server has no replicas",
}
BOARD = Board(LivePostgres, TOGETHER, UNDRILLED)


def _primary(ground: Ground) -> LivePostgres:
    return ground.living(LivePostgres)


@contextmanager
def bad_page(ground: Ground, data: Path) -> Iterator[None]:
    """A page of the server that is restored into `data` changes on its disk."""
    # The free space map: nobody but the check of the checksums looks at it.
    ((path,),) = _primary(ground).sql("SELECT pg_relation_filepath('pgbench_accounts')")
    free_space_map = f"{data}/{path}_fsm"
    flip = (
        f'[ -e "{data}/.flipped" ] || {{ : > "{data}/.flipped";'
        f" printf x | dd of='{free_space_map}' bs=1 seek=100 conv=notrunc status=none; }}"
    )
    with ground.wrapped("pg_ctl", f'case "$2" in "{data}") {flip} ;; esac\nexec "$REAL" "$@"'):
        yield


@BOARD.drill("address-hard-coded", "verify", select="fresh")
def address_hard_coded(ground: Ground) -> Iterator[None]:
    """A function names the address of east's primary."""
    address, port = ground.live.endpoint
    with _primary(ground).sql_undone(
        "CREATE FUNCTION orders_elsewhere() RETURNS text LANGUAGE sql AS $$\n"
        f"SELECT 'host={address} port={port} dbname=orders'\n$$",
        undo=("DROP FUNCTION orders_elsewhere()",),
    ):
        yield


@BOARD.drill("path-hard-coded", "preflight", select="fresh")
def path_hard_coded(ground: Ground) -> Iterator[None]:
    """A setting of the application names a directory of east."""
    folder = ground.places.host("east", "app") / "uploads"
    with _primary(ground).sql_undone(
        f"ALTER SYSTEM SET shop.uploads = '{folder}'",
        "SELECT pg_reload_conf()",
        undo=("ALTER SYSTEM RESET shop.uploads", "SELECT pg_reload_conf()"),
    ):
        yield


@BOARD.drill("source-used", "verify", select="fresh")
def source_used(ground: Ground) -> Iterator[None]:
    """A trigger of the application calls an address of east that is in a table."""
    address, port = ground.live.endpoint
    with _primary(ground).sql_undone(
        "CREATE TABLE partners (address text, port int)",
        f"INSERT INTO partners VALUES ('{address}', {port})",
        "CREATE FUNCTION notify_partner() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$\n"
        "DECLARE call text;\n"
        "BEGIN\n"
        "  SELECT format('timeout 2 bash -c %L', format('exec 3<>/dev/tcp/%s/%s', address, port)"
        " || '; true') || ' || true' INTO call FROM partners;\n"
        "  EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', call);\n"
        "  RETURN NULL;\n"
        "END $$",
        "CREATE TRIGGER notify AFTER INSERT ON pgbench_history FOR EACH STATEMENT"
        " WHEN (pg_trigger_depth() = 0 AND current_setting('port') <> '5432')"
        " EXECUTE FUNCTION notify_partner()",
        undo=(
            "DROP TRIGGER notify ON pgbench_history",
            "DROP FUNCTION notify_partner()",
            "DROP TABLE partners",
        ),
    ):
        yield


@BOARD.drill("access-from-source-only", "preflight", select="fresh")
def access_from_source_only(ground: Ground) -> Iterator[None]:
    """East's pg_hba.conf lets the application in from east's network only."""
    network = ground.document["source"]["networks"][0]
    ((file,),) = _primary(ground).sql("SHOW hba_file")
    path = Path(file)
    text = path.read_text()
    # On loopback all others, administrators and the backup, come from no network of east's own.
    rules = f"host all shop {network} scram-sha-256\nhost all shop samenet reject\n"
    with ground.file(path, rules + text):
        _primary(ground).sql("SELECT pg_reload_conf()")
        yield
    _primary(ground).sql("SELECT pg_reload_conf()")


@BOARD.drill("log-replay-short", "verify")
def log_replay_short(ground: Ground) -> Iterator[None]:
    """A record of the newest log is damaged on its way to west's server, which then stops there."""
    spoil = (
        f'case "$2 $3" in "{ground.live.data} -W") archive="$2.farside-log"'
        " newest=$(ls \"$archive\" | grep -E '^[0-9A-F]{24}$' | tail -n 1)\n"
        ' printf damaged | dd of="$archive/$newest" bs=1 seek=8300 conv=notrunc status=none ;;'
        ' esac\nexec "$REAL" "$@"'
    )
    with ground.wrapped("pg_ctl", spoil):
        yield


@BOARD.drill("incomplete-restore", "verify")
def incomplete_restore(ground: Ground) -> Iterator[None]:
    """East had ten times as many accounts when it was backed up as there are in the backup."""

    def more(facts: Any) -> None:
        tables = (table for database in facts["databases"] for table in database["tables"])
        accounts = next(table for table in tables if table["name"] == "pgbench_accounts")
        accounts["count"] = 10 * (accounts["count"] or accounts["rows"])

    with ground.facts(more):
        yield


@BOARD.drill("index-corrupt", "verify", select="fresh")
def index_corrupt(ground: Ground) -> Iterator[None]:
    """An index misses a row of its table."""
    ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'parts_n'::regclass"
    with _primary(ground).sql_undone(
        "CREATE TABLE parts AS SELECT generate_series(1, 500) AS n",
        "CREATE INDEX parts_n ON parts (n)",
        # As by a bug: while an index is not ready, rows do not reach it.
        ready.format("false"),
        "INSERT INTO parts VALUES (501)",
        ready.format("true"),
        "ANALYZE parts",
        undo=("DROP TABLE parts",),
    ):
        yield


@BOARD.drill("page-corrupt", "verify")
def page_corrupt(ground: Ground) -> Iterator[None]:
    """The disk of west's db1 changes a page after it was written."""
    with bad_page(ground, ground.live.data):
        yield


@BOARD.drill("backup-failed", "preflight", select="fresh")
def backup_failed(ground: Ground) -> Iterator[None]:
    """East's vault holds an old password of the replication role."""
    with ground.secret("replication-password", "last-year", "east"):
        yield


@BOARD.drill("restore-failed", "restore")
def restore_failed(ground: Ground) -> Iterator[None]:
    """West's own configuration asks for more memory than there is."""
    ground.target["settings"] = {"shared_buffers": "32TB"}
    yield


@BOARD.drill("archive-into-production", "verify")
def archive_into_production(ground: Ground) -> Iterator[None]:
    """A wrapper around west's pg_ctl turns archiving on."""
    options = "-c archive_mode=on -c archive_command=true -c wal_level=replica"
    with ground.wrapped("pg_ctl", _START.format(options=options)):
        yield


@BOARD.drill("restored-jobs-fire", "verify")
def restored_jobs_fire(ground: Ground) -> Iterator[None]:
    """A wrapper around west's pg_ctl lets subscriptions run."""
    options = "-c max_logical_replication_workers=4 -c wal_level=replica"
    with ground.wrapped("pg_ctl", _START.format(options=options)):
        yield


@BOARD.drill("log-gap", "restore")
def log_gap(ground: Ground) -> Iterator[None]:
    """A segment of the log never crossed."""
    index = ground.log_index()
    first = next(item for item in index.objects if ".partial" not in item.name)
    rest = tuple(item for item in index.objects if item is not first)
    broken = ground.sign(replace(index, objects=rest))
    with ground.stored(LOG, lambda _whole: broken):
        yield


@BOARD.drill("log-not-followed", "snapshot", select="fresh")
def log_not_followed(ground: Ground) -> Iterator[None]:
    """The receiver of the log dies while the base backup is taken."""
    dies = 'case "$*" in *" -D "*) exec timeout 2 "$REAL" "$@" ;; esac\nexec "$REAL" "$@"'
    slow = 'sleep 6\nexec "$REAL" "$@"'
    with (
        ground.wrapped("pg_receivewal", dies, domain="east"),
        ground.wrapped("pg_basebackup", slow, domain="east"),
    ):
        yield


@BOARD.drill("log-retention-unbounded", "preflight", select="fresh")
def log_retention_unbounded(ground: Ground) -> Iterator[None]:
    """The source keeps for a slot whatever it takes."""
    setting = "max_slot_wal_keep_size"
    _primary(ground).sql(f"ALTER SYSTEM SET {setting} = -1", "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        _primary(ground).sql(f"ALTER SYSTEM RESET {setting}", "SELECT pg_reload_conf()")


@BOARD.drill("source-not-archiving", "preflight", select="fresh")
def source_not_archiving(ground: Ground) -> Iterator[None]:
    """The source is told to archive its log, and cannot."""
    _primary(ground).sql(
        "ALTER SYSTEM SET archive_mode = on", "ALTER SYSTEM SET archive_command = ''"
    )
    _primary(ground).restart()
    try:
        yield
    finally:
        _primary(ground).sql(
            "ALTER SYSTEM RESET archive_mode", "ALTER SYSTEM RESET archive_command"
        )
        _primary(ground).restart()


@BOARD.drill("source-at-limit", "preflight", select="fresh")
def source_at_limit(ground: Ground) -> Iterator[None]:
    """Every replication slot of the source is taken."""
    ours = "starts_with(slot_name, 'drilled_')"
    _primary(ground).sql(
        "SELECT pg_create_physical_replication_slot('drilled_' || n) FROM generate_series(1,"
        " current_setting('max_replication_slots')::int"
        " - (SELECT count(*)::int FROM pg_replication_slots)) n"
    )
    try:
        yield
    finally:
        _primary(ground).sql(
            f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE {ours}"
        )


@BOARD.drill("usable-not-restored", "preflight", select="fresh")
def usable_not_restored(ground: Ground) -> Iterator[None]:
    """An index was left invalid when its building failed."""
    _primary(ground).sql("CREATE TABLE twice (n int)", "INSERT INTO twice VALUES (1), (1)")
    try:
        with suppress(psycopg.errors.UniqueViolation):  # what it leaves behind is wanted
            _primary(ground).sql("CREATE UNIQUE INDEX CONCURRENTLY twice_once ON twice (n)")
        yield
    finally:
        _primary(ground).sql("DROP TABLE twice")


@BOARD.drill("engine-version", "preflight")
def engine_version(ground: Ground) -> Iterator[None]:
    """West has PostgreSQL 16, east has 18."""
    ground.target["bin_dir"] = str(postgres.programs(ground.places, "west", 16))
    yield


@BOARD.drill("extension-missing", "preflight", select="fresh")
def extension_missing(ground: Ground) -> Iterator[None]:
    """An extension is installed in east alone."""
    share = postgres.programs(ground.places, "east").parent / "share"
    folder = next(path for path in share.rglob("extension") if path.is_dir())
    control = "default_version = '1.0'\nrelocatable = true\n"
    with (
        ground.file(folder / "shop_rules.control", control),
        ground.file(
            folder / "shop_rules--1.0.sql",
            "CREATE FUNCTION rule_one() RETURNS int\nLANGUAGE sql IMMUTABLE AS 'SELECT 1';\n",
        ),
        _primary(ground).sql_undone(
            "CREATE EXTENSION shop_rules", undo=("DROP EXTENSION shop_rules",)
        ),
    ):
        yield


@BOARD.drill("library-preloaded", "preflight", select="fresh")
def library_preloaded(ground: Ground) -> Iterator[None]:
    """East preloads a library that west does not have."""
    known = next((postgres.programs(ground.places, "east").parent / "lib").rglob("pgoutput.so"))
    path = known.with_name("shop_audit.so")
    with ground.file(path, known.read_bytes(), 0o755):
        _primary(ground).sql("ALTER SYSTEM SET shared_preload_libraries = 'shop_audit'")
        _primary(ground).restart()
        try:
            yield
        finally:
            _primary(ground).sql("ALTER SYSTEM RESET shared_preload_libraries")
            _primary(ground).restart()


@BOARD.drill("locale-changed", "verify")
def locale_changed(ground: Ground) -> Iterator[None]:
    """The source sorted by another version of the collation than west does."""

    # What the facts say differs from what the machine has, as after a move to a newer C library:
    # one machine has only one.
    def older(facts: Any) -> None:
        shop = next(item for item in facts["databases"] if item["name"] == "shop")
        shop["actual_version"] = shop["recorded_version"] = "0.9"

    with ground.facts(older):
        yield


@BOARD.drill("locale-missing", "preflight")
def locale_missing(ground: Ground) -> Iterator[None]:
    """A database of east has a locale that west does not know."""

    def foreign(facts: Any) -> None:
        shop = next(item for item in facts["databases"] if item["name"] == "shop")
        shop["collate"] = "xx_XX.UTF-8"

    with ground.facts(foreign):
        yield


@BOARD.drill("setting-too-low", "preflight")
def setting_too_low(ground: Ground) -> Iterator[None]:
    """West's own configuration allows fewer connections than east's."""
    ground.target["settings"] = {"max_connections": "20"}
    yield
