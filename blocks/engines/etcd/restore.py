"""A member on a recovery host, from its snapshot to a process that serves, and back to nothing."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from blocks.agent.protocol.parts import FileTarget, OpenItem
from blocks.agent.redaction import redacted
from blocks.engines.etcd.etcdctl import ALONE, Etcdctl
from blocks.engines.etcd.facts import own
from blocks.engines.etcd.plan import Member, TargetCluster
from blocks.engines.restoration import Restoration
from blocks.errors import PermanentError
from blocks.evidence.record import Node
from blocks.hosts.host import Host
from blocks.remote.jobs import kill_started
from blocks.workers import Workers

SNAPSHOT = "snapshot.db.zst.age"
START_SECONDS = 120.0
_QUOTA = 2**31
RAISED_BY = 1_000_000_000
"""How far the revision is raised, where the version can (3.4.27, 3.5.10, 3.6 and later): etcd's
own advice for such a restore (its operations guide, Disaster recovery)."""
RAISE = f"--bump-revision={RAISED_BY} --mark-compacted"
"""Nobody who watches or caches goes on where the lost cluster was: it must start again."""
_POLL_SECONDS = 0.1
_TOOL = (
    'tool="$1/etcdutl"; test -x "$tool" || tool="$1/etcdctl";'
    ' echo "$tool"; "$tool" snapshot restore --help'
)
_START = (
    'rm -f "$1/snapshot.db"; cd "$2";'
    ' setsid nohup "$3" --config-file "$1/etcd.conf" >"$1/etcd.log" 2>&1 </dev/null &'
    ' echo $! >"$1/etcd.pid"'
)


class MemberUnderRestore:
    """One member; its methods are called in the order in which they stand."""

    def __init__(
        self,
        using: Restoration,
        target: TargetCluster,
        member: Member,
        tool: "SnapshotTool",
        *,
        raised: bool,
    ) -> None:
        self.host = using.host(member.host)
        self.member = member
        self._tool = tool
        self._raised = raised
        self._using = using
        self._target = target
        self._token = f"farside-{using.rehearsal_id}"
        self._work = using.work(self.host)

    @property
    def _snapshot(self) -> str:
        return f"{self._work}/snapshot.db"

    def fetch(self) -> int:
        """Take the member's place and bring the snapshot; returns the bytes read.

        Raises TargetOccupied where the place is not free.
        """
        member = self.member
        ports = [(member.address, port) for port in (member.client_port, member.peer_port)]
        self._using.reader.claim(self.host, [member.data_dir], ports)
        (sealed,) = (item for item in self._using.manifest.objects if item.name == SNAPSHOT)
        item = OpenItem(object=sealed, target=FileTarget(path=self._snapshot))
        return self._using.reader.open(self.host, [item], self._using.identity)

    def restore(self) -> None:
        """Make the data directory: a new member of a new cluster, which nobody knows."""
        member = self.member
        argv = [
            *ALONE,
            *self._tool.argv,
            "restore",
            self._snapshot,
            f"--name={member.host}",
            f"--data-dir={member.data_dir}/restored",
            f"--initial-cluster={self._target.initial_cluster}",
            f"--initial-cluster-token={self._token}",
            f"--initial-advertise-peer-urls={member.peer_url}",
        ]
        if self._raised:
            argv += RAISE.split()
        self.host.run(argv, timeout=3600)
        # The tool makes its directory itself, and this one is there: it bears the stamp.
        script = 'mv "$1/restored/member" "$1/member" && rm -r "$1/restored"'
        self.host.run(["sh", "-c", script, "sh", member.data_dir])

    def start(self) -> None:
        """Start the member with a configuration of its own; it waits for the others."""
        size = own(self._using.facts).bytes
        text = json.dumps(configuration(self._target, self.member, self._token, size), indent=2)
        self.host.put(f"{text}\n".encode(), f"{self._work}/etcd.conf")
        program = f"{self._target.bin_dir}/etcd"
        argv = ["sh", "-c", _START, "sh", self._work, self.member.data_dir, program]
        self.host.run(self._using.reader.stamped(argv))

    def await_ready(self) -> None:
        """Until it says that it serves. Raises PermanentError if it dies or never does."""
        give_up = time.monotonic() + START_SECONDS
        script = (
            'kill -0 "$(cat "$1/etcd.pid")" 2>/dev/null || exit 2;'
            ' grep -q "serving client traffic" "$1/etcd.log" || exit 1'
        )
        while True:
            done = self.host.run(["sh", "-c", script, "sh", self._work], check=False)
            if done.exit_code == 0:
                return
            if done.exit_code == 2 or time.monotonic() > give_up:
                log = self.host.run(["tail", "-n", "5", f"{self._work}/etcd.log"], check=False)
                said = redacted(" | ".join(log.text.splitlines()))[-1000:]
                what = "has ended" if done.exit_code == 2 else "does not serve"
                raise PermanentError(
                    f"the restored member {what}: {said}",
                    operation="start",
                    domain=self._using.recovery.name,
                    host=self.host.name,
                    hint=f"read {self._work}/etcd.log there (run with --keep to have it left)",
                )
            time.sleep(_POLL_SECONDS)


def configuration(
    target: TargetCluster, member: Member, token: str, size: int
) -> Mapping[str, object]:
    """A member's whole configuration (YAML, of which JSON is a part), for data of `size` bytes."""
    tls = {"cert-file": member.cert_file, "key-file": member.key_file}
    return {
        "name": member.host,
        "data-dir": member.data_dir,
        "listen-client-urls": member.client_url,
        "advertise-client-urls": member.client_url,
        "listen-peer-urls": member.peer_url,
        "initial-advertise-peer-urls": member.peer_url,
        "initial-cluster": target.initial_cluster,
        "initial-cluster-token": token,
        "initial-cluster-state": "new",
        "client-transport-security": {
            **tls,
            **(
                {"trusted-ca-file": target.ca_file, "client-cert-auth": True}
                if target.client_cert_auth
                else {}
            ),
        },
        # Members know each other by certificate: nobody joins without one of this domain.
        "peer-transport-security": {
            **tls,
            "trusted-ca-file": target.ca_file,
            "client-cert-auth": True,
        },
        # Or a database that is larger than etcd's default would take no writes.
        "quota-backend-bytes": max(_QUOTA, 2 * size),
        "logger": "zap",
    }


def kill(host: Host, work: str) -> None:
    """End a member as a crash would; without effect where there is none."""
    kill_started(host, work, "etcd.pid")


@dataclass(frozen=True, slots=True)
class SnapshotTool:
    """The command that looks at and restores snapshots: etcdutl since 3.5, etcdctl before."""

    argv: tuple[str, ...]
    raises_revision: bool
    """Whether it can raise the revision, so that watchers and caches notice the restore."""


def snapshot_tool(host: Host, bin_dir: str) -> SnapshotTool:
    """The one that is on a host; what it can do is what its own help says."""
    program, _, said = host.run(["sh", "-c", _TOOL, "sh", bin_dir], check=False).text.partition(
        "\n"
    )
    options = set(re.findall(r"--[a-z-]+", said))
    return SnapshotTool((program, "snapshot"), {"--bump-revision", "--mark-compacted"} <= options)


def snapshot_tools(hosts: Sequence[Host], bin_dir: str) -> Mapping[str, SnapshotTool]:
    """Those of several hosts, by their names; all are asked at once."""
    with Workers(len(hosts), "etcd") as pool:
        tools = pool.map(lambda host: snapshot_tool(host, bin_dir), hosts)
        return dict(zip((host.name for host in hosts), tools, strict=True))


def all_raise(tools: Mapping[str, SnapshotTool]) -> bool:
    """Whether the revision can be raised on every host."""
    return all(tool.raises_revision for tool in tools.values())


def observed(root: Etcdctl) -> tuple[Node, ...]:
    """The members that the cluster itself knows, and where they say that they are."""
    found = []
    for item in root.json("member", "list")["members"]:
        for url in map(urlsplit, item.get("clientURLs", ())):
            found.append(Node(item["name"], "member", str(url.hostname), int(url.port or 0)))
    return tuple(sorted(found, key=lambda node: node.host))
