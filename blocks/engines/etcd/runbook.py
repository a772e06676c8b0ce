"""Break glass: the commands that restore a snapshot by hand with curl, age, zstd and etcd."""

import shlex

from blocks.artifact.manifest import Manifest
from blocks.domain import FailureDomain
from blocks.engines.etcd.plan import TargetCluster
from blocks.engines.etcd.restore import RAISE
from blocks.evidence.record import RunbookStep
from blocks.repositories.farside.reader import fetch_commands


def commands(
    manifest: Manifest, version: str, recovery: FailureDomain, target: TargetCluster
) -> tuple[RunbookStep, ...]:
    """Shell commands for one member, to be run in one shell; then it serves alone.

    `version` is the source's. `BIN`, `DATA`, `CLIENT` and `PEER` (URLs) may be set before. A
    cluster of one is at once writable; `etcdctl member add` makes it larger.
    """
    first, quote = target.members[0], shlex.quote
    where = f"{recovery.name}/{first.host}, as the user who will own the database"
    (snapshot,) = manifest.objects
    keys = " ".join(quote(volume.key) for volume in snapshot.volumes)
    tls = (
        f"--cert-file={quote(first.cert_file)} --key-file={quote(first.key_file)}"
        f" --peer-cert-file={quote(first.cert_file)} --peer-key-file={quote(first.key_file)}"
        f" --peer-trusted-ca-file={quote(target.ca_file)} --peer-client-cert-auth"
    )
    if target.client_cert_auth:
        tls += f" --trusted-ca-file={quote(target.ca_file)} --client-cert-auth"
    token = quote(f"by-hand-{manifest.set_id}")
    return (
        RunbookStep(
            f"Prepare: etcd {version}, set {manifest.set_id}",
            (
                "set -eu; umask 077",
                f"BIN=${{BIN:-{quote(target.bin_dir)}}}; DATA=${{DATA:-{quote(first.data_dir)}}}",
                f"CLIENT=${{CLIENT:-{quote(first.client_url)}}};"
                f" PEER=${{PEER:-{quote(first.peer_url)}}};"
                f" CA={quote(target.ca_file)}; CERT={quote(first.cert_file)};"
                f" KEY={quote(first.key_file)}",
                'test ! -e "$DATA" || { echo "$DATA exists: choose another DATA" >&2; exit 1; }',
                *fetch_commands(recovery.store, manifest.plan, manifest.set_id),
            ),
            where,
        ),
        RunbookStep(
            "Fetch, open and restore",
            (
                f'fetch {keys} | unseal > "$DATA.snapshot"',
                'TOOL="$BIN/etcdutl"; test -x "$TOOL" || TOOL="$BIN/etcdctl"',
                # Clients that watch must start again; not every version can tell them so.
                'RAISE=; "$TOOL" snapshot restore --help | grep -q -e --bump-revision'
                f' && RAISE="{RAISE}"',
                '"$TOOL" snapshot restore "$DATA.snapshot" $RAISE --data-dir "$DATA"'
                f" --name restored --initial-cluster-token {token}"
                ' --initial-cluster "restored=$PEER" --initial-advertise-peer-urls "$PEER"',
            ),
            where,
        ),
        RunbookStep(
            "Start and look",
            (
                '"$BIN/etcd" --name restored --data-dir "$DATA" --listen-client-urls "$CLIENT"'
                ' --advertise-client-urls "$CLIENT" --listen-peer-urls "$PEER"'
                f' --initial-advertise-peer-urls "$PEER" {tls} --logger zap > "$DATA.log" 2>&1 &',
                'ETCD=$!; until grep -q "serving client traffic" "$DATA.log";'
                ' do kill -0 "$ETCD"; sleep 1; done',
            ),
            where,
        ),
    )
