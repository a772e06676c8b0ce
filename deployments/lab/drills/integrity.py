"""Drills of integrity."""

import copy
from collections.abc import Iterator
from dataclasses import replace

from blocks.artifact.manifest import Manifest
from blocks.sets import MANIFEST
from deployments.lab.drills.board import drill
from deployments.lab.drills.ground import Ground

BASE = "base.tar.zst.age.000"


def flipped(data: bytes) -> bytes:
    """One bit differs, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@drill("object-corrupt", "restore")
def object_corrupt(ground: Ground) -> Iterator[None]:
    """One bit of the base backup differs in west's store."""
    with ground.stored(BASE, flipped):
        yield


@drill("object-missing", "preflight")
def object_missing(ground: Ground) -> Iterator[None]:
    """The base backup is gone from west's store."""
    with ground.stored(BASE, lambda _whole: None):
        yield


@drill("manifest-forged", "preflight")
def manifest_forged(ground: Ground) -> Iterator[None]:
    """The manifest in west's store was changed."""
    with ground.stored(MANIFEST, flipped):
        yield


@drill("incomplete-restore", "verify")
def incomplete_restore(ground: Ground) -> Iterator[None]:
    """East had ten times as many accounts when it was backed up as there are in the backup."""
    manifest = ground.signed(MANIFEST)
    assert isinstance(manifest, Manifest)
    facts = copy.deepcopy(dict(manifest.engine_facts))
    tables = (table for database in facts["databases"] for table in database["tables"])
    next(table for table in tables if table["name"] == "pgbench_accounts")["rows"] *= 10
    larger = ground.sign(replace(manifest, engine_facts=facts))
    with ground.stored(MANIFEST, lambda _whole: larger):
        yield


@drill("index-corrupt", "verify", select="fresh")
def index_corrupt(ground: Ground) -> Iterator[None]:
    """An index misses a row of its table."""
    ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'parts_n'::regclass"
    with ground.sql_undone(
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


@drill("page-corrupt", "verify")
def page_corrupt(ground: Ground) -> Iterator[None]:
    """The disk of west's db1 changes a page after it was written."""
    # The free space map: nobody but the check of the checksums looks at it.
    ((path,),) = ground.sql("SELECT pg_relation_filepath('pgbench_accounts')")
    map = f"{ground.data}/{path}_fsm"
    once = ground.folder / "flipped"
    flip = (
        f'[ -e "{ground.data}/.flipped" ] || {{ : > "{ground.data}/.flipped";'
        f" printf x | dd of='{map}' bs=1 seek=100 conv=notrunc status=none; }}"
    )
    once.unlink(missing_ok=True)
    with ground.wrapped("pg_ctl", f'{flip}\nexec "$REAL" "$@"'):
        yield


@drill("check-failed", "verify")
def check_failed(ground: Ground) -> Iterator[None]:
    """The business expects another answer than the restored data gives."""
    check = next(c for c in ground.document["checks"] if c["name"] == "pgbench-orphans")
    check["expected"] = "7"
    yield


@drill("backup-failed", "snapshot", select="fresh")
def backup_failed(ground: Ground) -> Iterator[None]:
    """East's vault holds an old password of the replication role."""
    with ground.secret("replication-password", "last-year", "east"):
        yield


@drill("restore-failed", "restore")
def restore_failed(ground: Ground) -> Iterator[None]:
    """West's own configuration asks for more memory than there is."""
    ground.target["settings"] = {"shared_buffers": "32TB"}
    yield
