"""Drills that only Galera can see, or sees by ways of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blocks.engines.galera import Galera
from blocks.engines.galera.mariadb import Mariadb
from blocks.plan.model import Plan
from deployments.lab.drills.board import NO_LOG, ONE_REHEARSAL, Board
from deployments.lab.drills.ground import Ground
from deployments.lab.parts import galera
from deployments.lab.places import Places
from deployments.lab.site import Endpoint, Site

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


class LiveGalera:
    """East's cluster, by its first node."""

    base = "backup.xb.zst.age.000"
    tools = ("mbstream", "mariadb-backup")

    def __init__(self, places: Places, east: Site, plan: Plan) -> None:
        assert isinstance(plan.engine, Galera)
        self._places = places
        self._east = east
        self._plan = plan
        self.engine = plan.engine

    def bin(self, domain: str) -> Path:
        """See Live."""
        return galera.programs(self._places, domain)

    def address(self, number: int) -> str:
        """Where one of the nodes is, by its place in the plan."""
        return self.engine.source.nodes[number].address

    @property
    def endpoint(self) -> Endpoint:
        """See Live."""
        first = self.engine.source.nodes[0]
        return first.address, first.port

    @property
    def data(self) -> Path:
        """See Live."""
        return Path(self.engine.target.nodes[0].data_dir)

    def grow(self, facts: Any) -> None:
        """See Live."""
        facts["bytes"] = 2**60

    def left(self) -> list[str]:
        """See Live: a backup makes nothing there."""
        return []

    def sql(self, statement: str) -> None:
        """Run a statement in the application's database, as administrator."""
        self._plan.source.close()  # east's hosts were lost since: what was open is dead
        host = self._plan.source.host(self.engine.source.nodes[0].host)
        account = host.run(["id", "-un"]).text.strip()
        socket = galera.socket(self._places, host.name)
        Mariadb(host, galera.BIN, account, socket=str(socket)).script("shop", f"{statement};")

    @contextmanager
    def sql_undone(self, statement: str, *, undo: str) -> Iterator[None]:
        """A statement, and at the end the one that undoes it."""
        self.sql(statement)
        try:
            yield
        finally:
            self.sql(undo)


TOGETHER = (
    (
        "address-hard-coded",
        "path-hard-coded",
        "source-used",
        "node-identity-reused",
        "peer-list-stale",
        "placement-dropped",
    ),
    ("node-count-differs", "app-secret-missing", "fence-stays"),
    (
        "port-taken",
        "target-occupied",
        "key-only-in-source",
        "tool-missing",
        "tool-fetched-from-source",
        "object-missing",
    ),
    (
        "name-resolves-to-source",
        "key-stale",
        "control-plane-in-source",
        "library-preloaded",
        "extension-missing",
    ),
    (
        "credential-from-source",
        "clock-skew",
        "key-chain-in-source",
        "rto-missed",
        "bandwidth-insufficient",
        "check-failed",
    ),
    ("usable-not-restored", "restored-jobs-fire", "page-corrupt"),
    ("login-missing", "index-corrupt"),
    ("incomplete-restore", "rpo-missed"),
    ("engine-version", "copy-is-cold"),
    ("sealed-to-source-only", "fence-leaks"),
    ("host-unreachable", "manifest-forged"),
    ("ssh-trust-missing", "ca-unknown"),
    ("object-corrupt", "key-rotated-away", "copy-behind", "leftovers"),
)
UNDRILLED = (
    ONE_REHEARSAL
    | NO_LOG
    | {
        "access-from-source-only": "an account's host is part of its name: address-hard-coded",
        "locale-changed": "MariaDB has collations of its own: its version is compared",
        "locale-missing": "MariaDB has locales of its own",
        "setting-too-low": "what the data needs is set as it was in the source",
        "revision-reused": "clients of MariaDB watch no revisions",
        "log-gap": "Galera is restored to a backup, without a log",
        "archive-into-production": "MariaDB archives nothing",
    }
)
BOARD = Board(LiveGalera, TOGETHER, UNDRILLED)


def _cluster(ground: Ground) -> LiveGalera:
    return ground.living(LiveGalera)


@contextmanager
def _parts(ground: Ground, root: int) -> Iterator[None]:
    """A table, of which the disk of west's first node changes a page below `root`."""
    host = ground.target["nodes"][0]["host"]
    path = ground.places.host("west", host) / "spoil.py"
    python = ground.places.python("west")
    with (
        _cluster(ground).sql_undone(
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


@BOARD.drill("engine-version", "preflight")
def engine_version(ground: Ground) -> Iterator[None]:
    """The set is of a series of MariaDB that is newer than west's."""

    def newer(facts: Any) -> None:
        major, minor, *_ = facts["version"].split(".")
        facts["version"] = f"{major}.{int(minor) + 1}.1-MariaDB"

    with ground.facts(newer):
        yield


@BOARD.drill("extension-missing", "preflight")
def extension_missing(ground: Ground) -> Iterator[None]:
    """A storage engine is installed in east alone."""
    with ground.facts(_plugin("SHOP_ENGINE", "STORAGE ENGINE", installed=1)):
        yield


@BOARD.drill("library-preloaded", "preflight")
def library_preloaded(ground: Ground) -> Iterator[None]:
    """East's configuration loads a plugin that west does not have."""
    with ground.facts(_plugin("SHOP_AUDIT", "AUDIT", installed=0)):
        yield


def _plugin(name: str, kind: str, *, installed: int) -> Callable[[Any], None]:
    found = {"name": name, "type": kind, "library": f"{name.lower()}.so", "installed": installed}
    return lambda facts: facts["plugins"].append(found)


@BOARD.drill("backup-failed", "snapshot", select="fresh")
def backup_failed(ground: Ground) -> Iterator[None]:
    """East's disk has no space for what a backup needs."""
    full = "echo 'mariadb-backup: error: no space left on device' >&2; exit 1"
    with ground.wrapped("mariadb-backup", full, "east"):
        yield


@BOARD.drill("restore-failed", "restore")
def restore_failed(ground: Ground) -> Iterator[None]:
    """A node of west is given the key of another."""
    first, second, *_ = ground.target["nodes"]
    first["key_file"] = second["key_file"]
    yield


@BOARD.drill("service-more-open", "verify")
def service_more_open(ground: Ground) -> Iterator[None]:
    """East let the application in with a certificate only."""

    def asked(facts: Any) -> None:
        (shop,) = (name for name in facts["demands"] if name.startswith("shop@"))
        facts["demands"][shop] = facts["demands"][shop].replace("TLS 0", "TLS 2")

    with ground.facts(asked):
        yield


@BOARD.drill("page-corrupt", "verify", select="fresh")
def page_corrupt(ground: Ground) -> Iterator[None]:
    """The disk of a node of west changes a page after it was written."""
    with _parts(ground, _ROWS):
        yield


@BOARD.drill("index-corrupt", "verify", select="fresh")
def index_corrupt(ground: Ground) -> Iterator[None]:
    """The disk of a node of west changes a page of an index, which then lacks rows."""
    with _parts(ground, _LABELS):
        yield


@BOARD.drill("incomplete-restore", "verify")
def incomplete_restore(ground: Ground) -> Iterator[None]:
    """East had ten times as many accounts when it was backed up as there are in the backup."""

    def more(facts: Any) -> None:
        accounts = next(table for table in facts["tables"] if table["name"] == "accounts")
        accounts["rows"] = 10 * galera.ACCOUNTS

    with ground.facts(more):
        yield


@BOARD.drill("usable-not-restored", "verify", select="fresh")
def usable_not_restored(ground: Ground) -> Iterator[None]:
    """A trigger of the application lets rows into east's cluster only."""
    here = f"IF(@@wsrep_cluster_name = '{galera.CLUSTER}', NEW.amount, NULL)"
    with _cluster(ground).sql_undone(
        f"CREATE TRIGGER at_home BEFORE INSERT ON transfers FOR EACH ROW SET NEW.amount = {here}",
        undo="DROP TRIGGER at_home",
    ):
        yield


@BOARD.drill("restored-jobs-fire", "verify")
def restored_jobs_fire(ground: Ground) -> Iterator[None]:
    """A wrapper around west's server lets events fire."""
    with ground.wrapped("mariadbd", _starts("--event-scheduler=ON")):
        yield


@BOARD.drill("address-hard-coded", "verify", select="fresh")
def address_hard_coded(ground: Ground) -> Iterator[None]:
    """A procedure names the address of a node of east."""
    with _cluster(ground).sql_undone(
        f"CREATE PROCEDURE orders_elsewhere() SELECT 'http://{_cluster(ground).address(2)}/orders'",
        undo="DROP PROCEDURE orders_elsewhere",
    ):
        yield


@BOARD.drill("path-hard-coded", "preflight", select="fresh")
def path_hard_coded(ground: Ground) -> Iterator[None]:
    """A setting names a directory of east."""
    folder = ground.places.host("east", "app") / "uploads"
    with _cluster(ground).sql_undone(
        f"SET GLOBAL init_connect = \"SET @uploads = '{folder}'\"",
        undo="SET GLOBAL init_connect = ''",
    ):
        yield


@BOARD.drill("node-count-differs", "verify")
def node_count_differs(ground: Ground) -> Iterator[None]:
    """The last node of west dies when the first client comes."""
    mark = ground.home("west", -1) / "farside" / "*" / "mariadbd.pid"
    dies = f'case "$*" in *--host=*) kill -9 $(cat {mark}) 2>/dev/null ;; esac'
    with ground.wrapped("mariadb", f'{dies}\nexec "$REAL" "$@"'):
        yield


@BOARD.drill("node-identity-reused", "verify")
def node_identity_reused(ground: Ground) -> Iterator[None]:
    """West's nodes are started under the name of east's cluster."""
    with ground.wrapped("mariadbd", _starts(f"--wsrep-cluster-name={galera.CLUSTER}")):
        yield


@BOARD.drill("peer-list-stale", "verify")
def peer_list_stale(ground: Ground) -> Iterator[None]:
    """West's nodes still look for one of east."""
    target = _cluster(ground).engine.target
    peers = f"{target.peers},{_cluster(ground).address(1)}:{target.nodes[1].group_port}"
    with ground.wrapped("mariadbd", _starts(f"--wsrep-cluster-address=gcomm://{peers}")):
        yield


@BOARD.drill("placement-dropped", "restore")
def placement_dropped(ground: Ground) -> Iterator[None]:
    """The last node of west serves clients at another port than the plan's."""
    last = _cluster(ground).engine.target.nodes[-1]
    port = last.port + 10000
    options = f"--port={port} --wsrep-node-incoming-address={last.address}:{port}"
    with ground.wrapped("mariadbd", _starts(options, last.host)):
        yield
