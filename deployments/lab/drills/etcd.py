"""Drills that only etcd can see, or sees by ways of its own."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blocks.engines.etcd import Etcd
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.plan.model import Plan
from deployments.lab.drills.board import NO_LOG, ONE_REHEARSAL, Board
from deployments.lab.drills.ground import Ground
from deployments.lab.parts import etcd
from deployments.lab.places import Places
from deployments.lab.site import Endpoint, Site

# Each argument that begins as $OPTION is replaced, or made longer.
_ARGUMENT = """\
for word in "$@"; do
  shift
  case "$word" in {option}=*) word={value} ;; esac
  set -- "$@" "$word"
done
exec "$REAL" "$@"
"""
_DIES = """\
case "$*" in
*/{host}/*)
  "$REAL" "$@" &
  until grep -q "serving client traffic" "$(dirname "$2")/etcd.log"; do sleep 0.1; done
  exec kill -9 $!
  ;;
esac
exec "$REAL" "$@"
"""


class LiveEtcd:
    """East's cluster."""

    base = "snapshot.db.zst.age.000"
    tools = ("etcdctl", "etcd")

    def __init__(self, places: Places, east: Site, plan: Plan) -> None:
        assert isinstance(plan.engine, Etcd)
        self._places = places
        self._east = east
        self._plan = plan
        self.engine = plan.engine

    def bin(self, domain: str) -> Path:
        """See Live."""
        return etcd.programs(self._places, domain)

    @property
    def snapshot_tool(self) -> str:
        """The program that restores a snapshot in west."""
        return "etcdutl" if (self.bin("west") / "etcdutl").exists() else "etcdctl"

    @property
    def endpoint(self) -> Endpoint:
        """See Live."""
        return etcd.listens(self._east)[self.engine.source.host][0]

    @property
    def peer(self) -> str:
        """Where the other members of east reach the one at `endpoint`."""
        address, port = etcd.listens(self._east)[self.engine.source.host][1]
        return f"https://{address}:{port}"

    @property
    def data(self) -> Path:
        """See Live."""
        return Path(self.engine.target.members[0].data_dir)

    def grow(self, facts: Any) -> None:
        """See Live."""
        facts["bytes"] = 2**60

    def left(self) -> list[str]:
        """See Live: a snapshot makes nothing there."""
        return []

    def ctl(self) -> Etcdctl:
        """Its administrator."""
        self._plan.source.close()  # east's hosts were lost since: what was open is dead
        return self.engine.living(self._plan.source)

    @contextmanager
    def value(self, key: str, value: str) -> Iterator[None]:
        """A key with a value, then removed."""
        self.ctl().put(key, value)
        try:
            yield
        finally:
            self.ctl().text("del", key)


TOGETHER = (
    ("key-stale", "control-plane-in-source", "name-resolves-to-source", "revision-reused"),
    (
        "credential-from-source",
        "clock-skew",
        "key-chain-in-source",
        "rto-missed",
        "bandwidth-insufficient",
        "check-failed",
    ),
    ("address-hard-coded", "path-hard-coded", "source-used", "usable-not-restored"),
    ("login-missing", "node-count-differs"),
    ("incomplete-restore", "node-identity-reused", "fence-stays", "rpo-missed"),
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
    ("object-corrupt", "key-rotated-away", "copy-behind", "leftovers"),
)
UNDRILLED = (
    ONE_REHEARSAL
    | NO_LOG
    | {
        "access-from-source-only": "etcd lets in by certificate, from anywhere",
        "extension-missing": "etcd has no extensions",
        "library-preloaded": "etcd loads no libraries",
        "locale-changed": "etcd sorts bytes",
        "locale-missing": "etcd knows no locales",
        "setting-too-low": "no setting of a member must be as high as the source's",
        "placement-dropped": "every member of etcd holds everything",
        "log-gap": "etcd is restored to a snapshot, without a log",
        "index-corrupt": "a member makes its index anew whenever it starts",
        "page-corrupt": "etcd's pages have no checksums: the hash of all keys is compared",
        "archive-into-production": "etcd archives nothing",
        "restored-jobs-fire": "nothing in etcd runs by itself but the end of leases",
    }
)
BOARD = Board(LiveEtcd, TOGETHER, UNDRILLED)


def _cluster(ground: Ground) -> LiveEtcd:
    return ground.living(LiveEtcd)


@BOARD.drill("engine-version", "preflight")
def engine_version(ground: Ground) -> Iterator[None]:
    """The set is of an etcd that is newer than west's."""

    def newer(facts: Any) -> None:
        major, minor, *_ = facts["version"].split(".")
        facts["version"] = f"{major}.{int(minor) + 1}.0"

    with ground.facts(newer):
        yield


@BOARD.drill("backup-failed", "snapshot", select="fresh")
def backup_failed(ground: Ground) -> Iterator[None]:
    """East's disk has no space for a snapshot."""
    full = "echo 'Error: write snapshot.db.part: no space left on device' >&2; exit 1"
    script = f'case "$*" in *"snapshot save"*) {full} ;; esac\nexec "$REAL" "$@"'
    with ground.wrapped("etcdctl", script, "east"):
        yield


@BOARD.drill("restore-failed", "restore")
def restore_failed(ground: Ground) -> Iterator[None]:
    """A member of west is given the key of another."""
    first, second, *_ = ground.target["members"]
    first["key_file"] = second["key_file"]
    yield


@BOARD.drill("incomplete-restore", "verify")
def incomplete_restore(ground: Ground) -> Iterator[None]:
    """East had another key and another lease when it was backed up than there are in the backup."""

    def more(facts: Any) -> None:
        facts["snapshot"]["digest"] = hashlib.sha256(b"another key").hexdigest()
        facts["leases"]["4711"] = 10**9

    with ground.facts(more):
        yield


@BOARD.drill("service-more-open", "preflight")
def service_more_open(ground: Ground) -> Iterator[None]:
    """East asked its clients for a certificate, and the plan says that west does not."""

    def asked(facts: Any) -> None:
        facts["client_certificates"] = True

    ground.target["client_cert_auth"] = False
    with ground.facts(asked):
        yield


@BOARD.drill("usable-not-restored", "verify", select="fresh")
def usable_not_restored(ground: Ground) -> Iterator[None]:
    """The application's role was backed up while it might only read."""
    app = _cluster(ground).engine.application
    grant = ("role", "grant-permission", app.user, "--prefix=true")
    _cluster(ground).ctl().text(*grant, "read", app.prefix)
    try:
        yield
    finally:
        _cluster(ground).ctl().text(*grant, "readwrite", app.prefix)


@BOARD.drill("address-hard-coded", "verify", select="fresh")
def address_hard_coded(ground: Ground) -> Iterator[None]:
    """A value names the address of a member of east."""
    with _cluster(ground).value(
        "/shop/orders-elsewhere", _cluster(ground).engine.source.endpoints[-1]
    ):
        yield


@BOARD.drill("path-hard-coded", "verify", select="fresh")
def path_hard_coded(ground: Ground) -> Iterator[None]:
    """A value names a directory of east."""
    folder = ground.places.host("east", "app") / "uploads"
    with _cluster(ground).value("/shop/uploads", str(folder)):
        yield


@BOARD.drill("revision-reused", "preflight")
def revision_reused(ground: Ground) -> Iterator[None]:
    """The plan no longer accepts that west's etcd cannot raise the revision."""
    accepted = ground.document["accepted"]
    ground.document["accepted"] = [i for i in accepted if i["finding"] != "revision-reused"]
    yield


@BOARD.drill("node-count-differs", "verify")
def node_count_differs(ground: Ground) -> Iterator[None]:
    """The last member of west dies as soon as it serves."""
    with ground.wrapped("etcd", _DIES.format(host=ground.target["members"][-1]["host"])):
        yield


@BOARD.drill("node-identity-reused", "verify")
def node_identity_reused(ground: Ground) -> Iterator[None]:
    """West is restored with the token of a former cluster, of which east once became a part."""
    token, member = "the-only-one", _cluster(ground).engine.target.members[0]
    # How etcd makes an id: of the addresses and of the token.
    hashed = hashlib.sha1(f"{member.peer_url}{token}".encode(), usedforsecurity=False).digest()

    def same(facts: Any) -> None:
        facts["members"][0]["id"] = str(int.from_bytes(hashed[:8], "big"))

    script = _ARGUMENT.format(
        option="--initial-cluster-token", value=f"--initial-cluster-token={token}"
    )
    with ground.facts(same), ground.wrapped(_cluster(ground).snapshot_tool, script):
        yield


@BOARD.drill("peer-list-stale", "verify")
def peer_list_stale(ground: Ground) -> Iterator[None]:
    """A wrapper around the restore leaves a member of east in the list of peers."""
    script = _ARGUMENT.format(
        option="--initial-cluster", value=f'"$word,old={_cluster(ground).peer}"'
    )
    with ground.wrapped(_cluster(ground).snapshot_tool, script):
        yield
