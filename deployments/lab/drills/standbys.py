"""Drills of PostgreSQL restored with standbys: what is broken is broken on one of their hosts.

db2 is the first standby, which takes the primary's place if it can; db3 is the second.
"""

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blocks.engines.registry import catalogue
from deployments.lab.drills.board import Board
from deployments.lab.drills.ground import Ground
from deployments.lab.drills.postgres import UNDRILLED, bad_page
from deployments.lab.drills.postgres.live import LivePostgres
from deployments.lab.parts import postgres

DB2, DB3 = 1, 2
"""Places among the nodes of the plan, and among the hosts of west."""

_DIES = """\
"$REAL" "$@"
until grep -q "ready to accept" "$6"; do sleep 0.1; done
exec kill -9 "$(head -n 1 "$2/postmaster.pid")"
"""
_FULL = """\
import os; real = os.statvfs; os.statvfs = lambda path, real=real: real(path) if {host!r} not in \
str(path) else os.statvfs_result((*real(path)[:3], 0, 0, *real(path)[5:]))
"""

# All of its drills: what keeps a standby from following leaves another one that does.
TOGETHER = (
    ("port-taken", "target-occupied", "tool-missing", "engine-version", "disk-too-small"),
    ("node-count-differs", "page-corrupt", "address-hard-coded"),
    ("placement-dropped", "source-used"),
    ("peer-list-stale", "archive-into-production", "login-missing"),
)
BOARD = Board(
    LivePostgres,
    TOGETHER,
    undrilled={
        drill_id: reason
        for drill_id, reason in (
            dict.fromkeys(catalogue(), "the board of one server, postgres, drills it")
            | UNDRILLED
            | {"node-identity-reused": "every copy of a PostgreSQL cluster has its identifier"}
        ).items()
        if not any(drill_id in group for group in TOGETHER)
    },
    whole=False,
)
"""What only a shape of several servers can break; `postgres` drills the others."""


def _data(ground: Ground, number: int) -> Path:
    return Path(ground.target["standbys"][number - 1]["data_dir"])


@contextmanager
def _starting(ground: Ground, number: int, script: str) -> Iterator[None]:
    """A script that runs whenever the server of one host is about to start; $2 is its data."""
    start = f'case "$*" in "-D {_data(ground, number)} "*start) {script} ;; esac'
    with ground.wrapped("pg_ctl", f'{start}\nexec "$REAL" "$@"'):
        yield


@contextmanager
def _configured(ground: Ground, number: int, *lines: str) -> Iterator[None]:
    """Further lines at the end of one server's postgresql.conf: they go before all others."""
    words = " ".join(shlex.quote(line) for line in lines)
    with _starting(ground, number, f"printf '%s\\n' {words} >> \"$2/postgresql.conf\""):
        yield


@BOARD.drill("port-taken", "preflight")
def port_taken(ground: Ground) -> Iterator[None]:
    """Something listens on the port that db2 is to have."""
    with ground.listening(ground.nodes[DB2]):
        yield


@BOARD.drill("target-occupied", "preflight")
def target_occupied(ground: Ground) -> Iterator[None]:
    """Somebody's file lies in the target directory of db3."""
    with ground.occupied(_data(ground, DB3)):
        yield


@BOARD.drill("tool-missing", "preflight")
def tool_missing(ground: Ground) -> Iterator[None]:
    """The installation of db3 lacks psql."""
    whole, lacking = ground.live.bin("west"), ground.home("west", DB3) / "postgresql"
    (lacking / "bin").mkdir(parents=True)
    for path in (*whole.iterdir(), whole.parent / "lib", whole.parent / "share"):
        if path.name != "psql":
            (lacking / path.relative_to(whole.parent)).symlink_to(path)
    ground.target["standbys"][DB3 - 1]["bin_dir"] = str(lacking / "bin")
    try:
        yield
    finally:
        shutil.rmtree(lacking)


@BOARD.drill("engine-version", "preflight")
def engine_version(ground: Ground) -> Iterator[None]:
    """The host of db2 has PostgreSQL 16, the others have 18, as east."""
    ground.target["standbys"][DB2 - 1]["bin_dir"] = str(
        postgres.programs(ground.places, "west", 16)
    )
    yield


@BOARD.drill("disk-too-small", "preflight")
def disk_too_small(ground: Ground) -> Iterator[None]:
    """The disk of db3 is full."""
    site = next(ground.places.runtime("west").glob("python/lib/python3*/site-packages"))
    with ground.file(site / "full.pth", _FULL.format(host=str(ground.home("west", DB3)))):
        yield


@BOARD.drill("node-count-differs", "restore")
def node_count_differs(ground: Ground) -> Iterator[None]:
    """The server of db2 dies as soon as it serves."""
    with _starting(ground, DB2, _DIES):
        yield


@BOARD.drill("placement-dropped", "restore")
def placement_dropped(ground: Ground) -> Iterator[None]:
    """db3 is not told that it is a standby: it replays, and becomes a primary itself."""
    sign = 'if [ -e "$2/standby.signal" ]; then mv "$2/standby.signal" "$2/recovery.signal"; fi'
    with _starting(ground, DB3, sign):
        yield


@BOARD.drill("peer-list-stale", "verify")
def peer_list_stale(ground: Ground) -> Iterator[None]:
    """db3 still follows the primary of east."""
    address, port = ground.live.endpoint
    with _configured(ground, DB3, f"primary_conninfo = 'host={address} port={port} user=any'"):
        yield


@BOARD.drill("address-hard-coded", "verify")
def address_hard_coded(ground: Ground) -> Iterator[None]:
    """A command that only a standby runs, now and then, names an address of east."""
    address, _ = ground.east.ssh["backup"]
    with _configured(ground, DB3, f"archive_cleanup_command = 'true {address} %r'"):
        yield


@BOARD.drill("source-used", "verify")
def source_used(ground: Ground) -> Iterator[None]:
    """A script of the host of db2 calls the primary of east when db2 is promoted.

    It lies outside the files that are searched: there it would be told of as address-hard-coded.
    """
    address, port = ground.live.endpoint
    call = f"exec 3<>/dev/tcp/{address}/{port}"
    path = ground.home("west", DB2) / "demote"
    script = f"#!/bin/sh\ntimeout 2 bash -c '{call}' </dev/null 2>/dev/null\ntrue\n"
    with (
        ground.file(path, script, 0o755),
        _configured(ground, DB2, f"recovery_end_command = '{path}'"),
    ):
        yield


@BOARD.drill("archive-into-production", "verify")
def archive_into_production(ground: Ground) -> Iterator[None]:
    """db2 archives what it receives, as only standbys can."""
    with _configured(ground, DB2, "archive_mode = always", "archive_command = 'true'"):
        yield


@BOARD.drill("login-missing", "verify")
def login_missing(ground: Ground) -> Iterator[None]:
    """The pg_hba.conf of db2 lets in nobody from other hosts."""
    with _starting(ground, DB2, 'sed -i "/^host all/d" "$2/pg_hba.conf"'):
        yield


@BOARD.drill("page-corrupt", "verify")
def page_corrupt(ground: Ground) -> Iterator[None]:
    """The disk of db3 changes a page after it was written."""
    with bad_page(ground, _data(ground, DB3)):
        yield
