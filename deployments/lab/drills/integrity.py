"""Drills of integrity."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from blocks.repositories.farside.layout import MANIFEST
from deployments.lab.drills.board import POSTGRES, drill
from deployments.lab.drills.ground import OLDER, Ground


def flipped(data: bytes) -> bytes:
    """One bit differs, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@drill("object-corrupt", "restore")
def object_corrupt(ground: Ground) -> Iterator[None]:
    """One bit of the data differs in west's store."""
    with ground.stored(ground.live.base, flipped):
        yield


@drill("object-missing", "preflight")
def object_missing(ground: Ground) -> Iterator[None]:
    """The data is gone from west's store."""
    with ground.stored(ground.live.base, lambda _whole: None):
        yield


@drill("manifest-forged", "preflight")
def manifest_forged(ground: Ground) -> Iterator[None]:
    """The manifest in west's store was changed."""
    with ground.stored(MANIFEST, flipped):
        yield


@drill("set-of-another-plan", "preflight")
def set_of_another_plan(ground: Ground) -> Iterator[None]:
    """A set of the staging system, truly signed with the same key, was copied among the sets."""
    with ground.another_set("west", OLDER, lambda m: replace(m, set_id=OLDER, plan="staging")):
        yield


@drill("log-replay-short", "verify", plans=POSTGRES)
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


@drill("incomplete-restore", "verify", plans=POSTGRES)
def incomplete_restore(ground: Ground) -> Iterator[None]:
    """East had ten times as many accounts when it was backed up as there are in the backup."""

    def more(facts: Any) -> None:
        tables = (table for database in facts["databases"] for table in database["tables"])
        accounts = next(table for table in tables if table["name"] == "pgbench_accounts")
        accounts["count"] = 10 * (accounts["count"] or accounts["rows"])

    with ground.facts(more):
        yield


@drill("index-corrupt", "verify", select="fresh", plans=POSTGRES)
def index_corrupt(ground: Ground) -> Iterator[None]:
    """An index misses a row of its table."""
    ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'parts_n'::regclass"
    with ground.postgres.sql_undone(
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


@drill("page-corrupt", "verify", plans=POSTGRES)
def page_corrupt(ground: Ground) -> Iterator[None]:
    """The disk of west's db1 changes a page after it was written."""
    with bad_page(ground, ground.live.data):
        yield


@contextmanager
def bad_page(ground: Ground, data: Path) -> Iterator[None]:
    """A page of the server that is restored into `data` changes on its disk."""
    # The free space map: nobody but the check of the checksums looks at it.
    ((path,),) = ground.postgres.sql("SELECT pg_relation_filepath('pgbench_accounts')")
    map = f"{data}/{path}_fsm"
    flip = (
        f'[ -e "{data}/.flipped" ] || {{ : > "{data}/.flipped";'
        f" printf x | dd of='{map}' bs=1 seek=100 conv=notrunc status=none; }}"
    )
    with ground.wrapped("pg_ctl", f'case "$2" in "{data}") {flip} ;; esac\nexec "$REAL" "$@"'):
        yield


@drill("check-failed", "verify")
def check_failed(ground: Ground) -> Iterator[None]:
    """The business expects another answer than the restored data gives."""
    ground.document["checks"][1]["expected"] = "7"
    yield


@drill("backup-failed", "preflight", select="fresh", plans=POSTGRES)
def backup_failed(ground: Ground) -> Iterator[None]:
    """East's vault holds an old password of the replication role."""
    with ground.secret("replication-password", "last-year", "east"):
        yield


@drill("restore-failed", "restore", plans=POSTGRES)
def restore_failed(ground: Ground) -> Iterator[None]:
    """West's own configuration asks for more memory than there is."""
    ground.target["settings"] = {"shared_buffers": "32TB"}
    yield
