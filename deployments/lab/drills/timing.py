"""Drills of time, bandwidth, and the state of the copy."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import psycopg

from blocks.repositories.farside.layout import LOG
from deployments.lab.drills.board import POSTGRES, drill
from deployments.lab.drills.cold_store import cold_store
from deployments.lab.drills.ground import NEWER, Ground


@drill("rto-missed", "verify")
def rto_missed(ground: Ground) -> Iterator[None]:
    """Recovery may take one second."""
    ground.document["objectives"]["rto"] = "1s"
    yield


@drill("rpo-missed", "verify")
def rpo_missed(ground: Ground) -> Iterator[None]:
    """The newest set is older than the loss that is allowed."""
    ground.document["objectives"]["rpo"] = "1s"
    yield


@drill("bandwidth-insufficient", "verify")
def bandwidth_insufficient(ground: Ground) -> Iterator[None]:
    """The real database has 50 TB."""
    ground.document["production"] = {"size": "50TB"}
    yield


@drill("copy-behind", "preflight")
def copy_behind(ground: Ground) -> Iterator[None]:
    """The newest set of east never crossed."""
    with ground.another_set("east", NEWER, lambda manifest: replace(manifest, set_id=NEWER)):
        yield


@drill("log-gap", "restore", plans=POSTGRES)
def log_gap(ground: Ground) -> Iterator[None]:
    """A segment of the log never crossed."""
    index = ground.log_index()
    first = next(item for item in index.objects if ".partial" not in item.name)
    rest = tuple(item for item in index.objects if item is not first)
    broken = ground.sign(replace(index, objects=rest))
    with ground.stored(LOG, lambda _whole: broken):
        yield


@drill("log-not-followed", "snapshot", select="fresh", plans=POSTGRES)
def log_not_followed(ground: Ground) -> Iterator[None]:
    """The receiver of the log dies while the base backup is taken."""
    dies = 'case "$*" in *" -D "*) exec timeout 2 "$REAL" "$@" ;; esac\nexec "$REAL" "$@"'
    slow = 'sleep 6\nexec "$REAL" "$@"'
    with (
        ground.wrapped("pg_receivewal", dies, domain="east"),
        ground.wrapped("pg_basebackup", slow, domain="east"),
    ):
        yield


@drill("log-retention-unbounded", "preflight", select="fresh", plans=POSTGRES)
def log_retention_unbounded(ground: Ground) -> Iterator[None]:
    """The source keeps for a slot whatever it takes."""
    setting = "max_slot_wal_keep_size"
    ground.postgres.sql(f"ALTER SYSTEM SET {setting} = -1", "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        ground.postgres.sql(f"ALTER SYSTEM RESET {setting}", "SELECT pg_reload_conf()")


@drill("source-not-archiving", "preflight", select="fresh", plans=POSTGRES)
def source_not_archiving(ground: Ground) -> Iterator[None]:
    """The source is told to archive its log, and cannot."""
    ground.postgres.sql(
        "ALTER SYSTEM SET archive_mode = on", "ALTER SYSTEM SET archive_command = ''"
    )
    ground.postgres.restart()
    try:
        yield
    finally:
        ground.postgres.sql("ALTER SYSTEM RESET archive_mode", "ALTER SYSTEM RESET archive_command")
        ground.postgres.restart()


@drill("source-at-limit", "preflight", select="fresh", plans=POSTGRES)
def source_at_limit(ground: Ground) -> Iterator[None]:
    """Every replication slot of the source is taken."""
    ours = "starts_with(slot_name, 'drilled_')"
    ground.postgres.sql(
        "SELECT pg_create_physical_replication_slot('drilled_' || n) FROM generate_series(1,"
        " current_setting('max_replication_slots')::int"
        " - (SELECT count(*)::int FROM pg_replication_slots)) n"
    )
    try:
        yield
    finally:
        ground.postgres.sql(
            f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE {ours}"
        )


@drill("copy-is-cold", "preflight")
def copy_is_cold(ground: Ground) -> Iterator[None]:
    """West's bucket has moved the set into an archive class."""
    with cold_store(ground):
        yield


@drill("usable-not-restored", "preflight", select="fresh", plans=POSTGRES)
def usable_not_restored(ground: Ground) -> Iterator[None]:
    """An index was left invalid when its building failed."""
    ground.postgres.sql("CREATE TABLE twice (n int)", "INSERT INTO twice VALUES (1), (1)")
    try:
        with suppress(psycopg.errors.UniqueViolation):  # what it leaves behind is wanted
            ground.postgres.sql("CREATE UNIQUE INDEX CONCURRENTLY twice_once ON twice (n)")
        yield
    finally:
        ground.postgres.sql("DROP TABLE twice")
