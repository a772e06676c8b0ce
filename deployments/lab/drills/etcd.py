"""Drills that only etcd can see, or sees by ways of its own."""

import hashlib
from collections.abc import Iterator
from typing import Any

from deployments.lab.drills.board import ETCD, drill
from deployments.lab.drills.ground import Ground

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


@drill("engine-version", "preflight", plans=ETCD)
def engine_version(ground: Ground) -> Iterator[None]:
    """The set is of an etcd that is newer than west's."""

    def newer(facts: Any) -> None:
        major, minor, *_ = facts["version"].split(".")
        facts["version"] = f"{major}.{int(minor) + 1}.0"

    with ground.facts(newer):
        yield


@drill("backup-failed", "snapshot", select="fresh", plans=ETCD)
def backup_failed(ground: Ground) -> Iterator[None]:
    """East's disk has no space for a snapshot."""
    full = "echo 'Error: write snapshot.db.part: no space left on device' >&2; exit 1"
    script = f'case "$*" in *"snapshot save"*) {full} ;; esac\nexec "$REAL" "$@"'
    with ground.wrapped("etcdctl", script, "east"):
        yield


@drill("restore-failed", "restore", plans=ETCD)
def restore_failed(ground: Ground) -> Iterator[None]:
    """A member of west is given the key of another."""
    first, second, *_ = ground.target["members"]
    first["key_file"] = second["key_file"]
    yield


@drill("incomplete-restore", "verify", plans=ETCD)
def incomplete_restore(ground: Ground) -> Iterator[None]:
    """East had another key and another lease when it was backed up than there are in the backup."""

    def more(facts: Any) -> None:
        facts["snapshot"]["digest"] = hashlib.sha256(b"another key").hexdigest()
        facts["leases"]["4711"] = 10**9

    with ground.facts(more):
        yield


@drill("service-more-open", "preflight", plans=ETCD)
def service_more_open(ground: Ground) -> Iterator[None]:
    """East asked its clients for a certificate, and the plan says that west does not."""

    def asked(facts: Any) -> None:
        facts["client_certificates"] = True

    ground.target["client_cert_auth"] = False
    with ground.facts(asked):
        yield


@drill("usable-not-restored", "verify", select="fresh", plans=ETCD)
def usable_not_restored(ground: Ground) -> Iterator[None]:
    """The application's role was backed up while it might only read."""
    app = ground.etcd.engine.application
    grant = ("role", "grant-permission", app.user, "--prefix=true")
    ground.etcd.ctl().text(*grant, "read", app.prefix)
    try:
        yield
    finally:
        ground.etcd.ctl().text(*grant, "readwrite", app.prefix)


@drill("address-hard-coded", "verify", select="fresh", plans=ETCD)
def address_hard_coded(ground: Ground) -> Iterator[None]:
    """A value names the address of a member of east."""
    with ground.etcd.value("/shop/orders-elsewhere", ground.etcd.engine.source.endpoints[-1]):
        yield


@drill("path-hard-coded", "verify", select="fresh", plans=ETCD)
def path_hard_coded(ground: Ground) -> Iterator[None]:
    """A value names a directory of east."""
    folder = ground.places.host("east", "app") / "uploads"
    with ground.etcd.value("/shop/uploads", str(folder)):
        yield


@drill("revision-reused", "preflight", plans=ETCD)
def revision_reused(ground: Ground) -> Iterator[None]:
    """The plan no longer accepts that west's etcd cannot raise the revision."""
    accepted = ground.document["accepted"]
    ground.document["accepted"] = [i for i in accepted if i["finding"] != "revision-reused"]
    yield


@drill("node-count-differs", "verify", plans=ETCD)
def node_count_differs(ground: Ground) -> Iterator[None]:
    """The last member of west dies as soon as it serves."""
    with ground.wrapped("etcd", _DIES.format(host=ground.target["members"][-1]["host"])):
        yield


@drill("node-identity-reused", "verify", plans=ETCD)
def node_identity_reused(ground: Ground) -> Iterator[None]:
    """West is restored with the token of a former cluster, of which east once became a part."""
    token, member = "the-only-one", ground.etcd.engine.target.members[0]
    # How etcd makes an id: of the addresses and of the token.
    hashed = hashlib.sha1(f"{member.peer_url}{token}".encode(), usedforsecurity=False).digest()

    def same(facts: Any) -> None:
        facts["members"][0]["id"] = str(int.from_bytes(hashed[:8], "big"))

    script = _ARGUMENT.format(
        option="--initial-cluster-token", value=f"--initial-cluster-token={token}"
    )
    with ground.facts(same), ground.wrapped(ground.etcd.snapshot_tool, script):
        yield


@drill("peer-list-stale", "verify", plans=ETCD)
def peer_list_stale(ground: Ground) -> Iterator[None]:
    """A wrapper around the restore leaves a member of east in the list of peers."""
    script = _ARGUMENT.format(option="--initial-cluster", value=f'"$word,old={ground.etcd.peer}"')
    with ground.wrapped(ground.etcd.snapshot_tool, script):
        yield
