"""Drills that only Galera can see, or sees by ways of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from deployments.lab import galera
from deployments.lab.drills.board import GALERA, drill
from deployments.lab.drills.ground import Ground

# As a member, and not while it is made one.
_TAKES_PART = """\
case "$*" in
*--version* | *--help* | *--bootstrap* | *--skip-networking*) ;;
*/{host}/*) set -- "$@" {options} ;;
esac
exec "$REAL" "$@"
"""

_SPOILS = """\
"$REAL" "$@" || exit
case "$*" in
*--prepare*/{host}/*)
  for word in "$@"; do case $word in --target-dir=*) data=${{word#*=}} ;; esac; done
  {python} {script} "$data/shop/parts.ibd" {root} ;;
esac
"""
# The first page that holds entries of the index whose root is given.
_SPOIL = """\
import sys
from pathlib import Path

PAGE, INDEX, KIND, LEVEL, ID = 16384, b"\\x45\\xbf", slice(24, 26), slice(64, 66), slice(66, 74)
path, root = Path(sys.argv[1]), int(sys.argv[2])
data = bytearray(path.read_bytes())
pages = [data[start : start + PAGE] for start in range(0, len(data), PAGE)]
for number, page in enumerate(pages):
    if (page[KIND], page[LEVEL], page[ID]) == (INDEX, bytes(2), pages[root][ID]):
        data[number * PAGE + PAGE // 2] ^= 1
        path.write_bytes(data)
        break
"""
_ROWS, _LABELS = 3, 5
"""Pages of `parts`: the roots of its first index, which holds the rows, and of the last."""


@contextmanager
def _parts(ground: Ground, root: int) -> Iterator[None]:
    """A table, of which the disk of west's first node changes a page below `root`."""
    host = ground.target["nodes"][0]["host"]
    path = ground.places.host("west", host) / "spoil.py"
    python = ground.places.python("west")
    with (
        ground.galera.sql_undone(
            "CREATE TABLE parts (n INT PRIMARY KEY, size INT NOT NULL, label CHAR(100) NOT NULL,"
            " KEY (size), KEY (label)) SELECT seq AS n, seq AS size,"
            " REPEAT(CHAR(97 + seq % 26), 100) AS label FROM seq_1_to_3000",
            undo="DROP TABLE parts",
        ),
        ground.file(path, _SPOIL),
        ground.wrapped(
            "mariadb-backup", _SPOILS.format(host=host, python=python, script=path, root=root)
        ),
    ):
        yield


def _starts(options: str, host: str = "*") -> str:
    """A wrapper around the server of `host`, which gives it further options as a member."""
    return _TAKES_PART.format(options=options, host=host)


@drill("engine-version", "preflight", plans=GALERA)
def engine_version(ground: Ground) -> Iterator[None]:
    """The set is of a series of MariaDB that is newer than west's."""

    def newer(facts: Any) -> None:
        major, minor, *_ = facts["version"].split(".")
        facts["version"] = f"{major}.{int(minor) + 1}.1-MariaDB"

    with ground.facts(newer):
        yield


@drill("extension-missing", "preflight", plans=GALERA)
def extension_missing(ground: Ground) -> Iterator[None]:
    """A storage engine is installed in east alone."""
    with ground.facts(_plugin("SHOP_ENGINE", "STORAGE ENGINE", installed=1)):
        yield


@drill("library-preloaded", "preflight", plans=GALERA)
def library_preloaded(ground: Ground) -> Iterator[None]:
    """East's configuration loads a plugin that west does not have."""
    with ground.facts(_plugin("SHOP_AUDIT", "AUDIT", installed=0)):
        yield


def _plugin(name: str, kind: str, *, installed: int) -> Callable[[Any], None]:
    found = {"name": name, "type": kind, "library": f"{name.lower()}.so", "installed": installed}
    return lambda facts: facts["plugins"].append(found)


@drill("backup-failed", "snapshot", select="fresh", plans=GALERA)
def backup_failed(ground: Ground) -> Iterator[None]:
    """East's disk has no space for what a backup needs."""
    full = "echo 'mariadb-backup: error: no space left on device' >&2; exit 1"
    with ground.wrapped("mariadb-backup", full, "east"):
        yield


@drill("restore-failed", "restore", plans=GALERA)
def restore_failed(ground: Ground) -> Iterator[None]:
    """A node of west is given the key of another."""
    first, second, *_ = ground.target["nodes"]
    first["key_file"] = second["key_file"]
    yield


@drill("service-more-open", "verify", plans=GALERA)
def service_more_open(ground: Ground) -> Iterator[None]:
    """East let the application in with a certificate only."""

    def asked(facts: Any) -> None:
        (shop,) = (name for name in facts["demands"] if name.startswith("shop@"))
        facts["demands"][shop] = facts["demands"][shop].replace("TLS 0", "TLS 2")

    with ground.facts(asked):
        yield


@drill("page-corrupt", "verify", select="fresh", plans=GALERA)
def page_corrupt(ground: Ground) -> Iterator[None]:
    """The disk of a node of west changes a page after it was written."""
    with _parts(ground, _ROWS):
        yield


@drill("index-corrupt", "verify", select="fresh", plans=GALERA)
def index_corrupt(ground: Ground) -> Iterator[None]:
    """The disk of a node of west changes a page of an index, which then lacks rows."""
    with _parts(ground, _LABELS):
        yield


@drill("incomplete-restore", "verify", plans=GALERA)
def incomplete_restore(ground: Ground) -> Iterator[None]:
    """East had ten times as many accounts when it was backed up as there are in the backup."""

    def more(facts: Any) -> None:
        accounts = next(table for table in facts["tables"] if table["name"] == "accounts")
        accounts["rows"] = 10 * galera.ACCOUNTS

    with ground.facts(more):
        yield


@drill("usable-not-restored", "verify", select="fresh", plans=GALERA)
def usable_not_restored(ground: Ground) -> Iterator[None]:
    """A trigger of the application lets rows into east's cluster only."""
    here = f"IF(@@wsrep_cluster_name = '{galera.CLUSTER}', NEW.amount, NULL)"
    with ground.galera.sql_undone(
        f"CREATE TRIGGER at_home BEFORE INSERT ON transfers FOR EACH ROW SET NEW.amount = {here}",
        undo="DROP TRIGGER at_home",
    ):
        yield


@drill("restored-jobs-fire", "verify", plans=GALERA)
def restored_jobs_fire(ground: Ground) -> Iterator[None]:
    """A wrapper around west's server lets events fire."""
    with ground.wrapped("mariadbd", _starts("--event-scheduler=ON")):
        yield


@drill("address-hard-coded", "verify", select="fresh", plans=GALERA)
def address_hard_coded(ground: Ground) -> Iterator[None]:
    """A procedure names the address of a node of east."""
    with ground.galera.sql_undone(
        f"CREATE PROCEDURE orders_elsewhere() SELECT 'http://{ground.galera.address(2)}/orders'",
        undo="DROP PROCEDURE orders_elsewhere",
    ):
        yield


@drill("path-hard-coded", "preflight", select="fresh", plans=GALERA)
def path_hard_coded(ground: Ground) -> Iterator[None]:
    """A setting names a directory of east."""
    folder = ground.places.host("east", "app") / "uploads"
    with ground.galera.sql_undone(
        f"SET GLOBAL init_connect = \"SET @uploads = '{folder}'\"",
        undo="SET GLOBAL init_connect = ''",
    ):
        yield


@drill("node-count-differs", "verify", plans=GALERA)
def node_count_differs(ground: Ground) -> Iterator[None]:
    """The last node of west dies when the first client comes."""
    mark = ground.home("west", -1) / "farside" / "*" / "mariadbd.pid"
    dies = f'case "$*" in *--host=*) kill -9 $(cat {mark}) 2>/dev/null ;; esac'
    with ground.wrapped("mariadb", f'{dies}\nexec "$REAL" "$@"'):
        yield


@drill("node-identity-reused", "verify", plans=GALERA)
def node_identity_reused(ground: Ground) -> Iterator[None]:
    """West's nodes are started under the name of east's cluster."""
    with ground.wrapped("mariadbd", _starts(f"--wsrep-cluster-name={galera.CLUSTER}")):
        yield


@drill("peer-list-stale", "verify", plans=GALERA)
def peer_list_stale(ground: Ground) -> Iterator[None]:
    """West's nodes still look for one of east."""
    target = ground.galera.engine.target
    peers = f"{target.peers},{ground.galera.address(1)}:{target.nodes[1].group_port}"
    with ground.wrapped("mariadbd", _starts(f"--wsrep-cluster-address=gcomm://{peers}")):
        yield


@drill("placement-dropped", "restore", plans=GALERA)
def placement_dropped(ground: Ground) -> Iterator[None]:
    """The last node of west serves clients at another port than the plan's."""
    last = ground.galera.engine.target.nodes[-1]
    port = last.port + 10000
    options = f"--port={port} --wsrep-node-incoming-address={last.address}:{port}"
    with ground.wrapped("mariadbd", _starts(options, last.host)):
        yield
