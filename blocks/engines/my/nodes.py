"""A node on a recovery host, from its backup to a process that serves, and back to nothing."""

import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blocks.artifact.job import MadePath, MadePidfile, OpenItem, ProgramTarget
from blocks.base import url_host
from blocks.engines.base import Restoration
from blocks.engines.my.client import Mariadb, literal
from blocks.engines.my.clusters import TargetCluster, TargetNode
from blocks.engines.my.survey import CARRIED, NEEDED
from blocks.errors import FarsideError, PermanentError
from blocks.hosts import Host

BACKUP = "backup.xb.zst.age"
START_SECONDS = 600.0
"""Time limit for a node to become Synced: it replays what the others have committed meanwhile."""
_HOURS = 24 * 3600.0
_POLL_SECONDS = 0.1
_LEAST_POOL = 2**27
# In its data directory: by that the sweep knows it.
_START = (
    'cd "$2"; TMPDIR="$1" setsid nohup "$3" --defaults-file="$1/my.cnf"'
    ' --pid-file="$1/mariadbd.pid" $4 >"$1/mariadbd.log" 2>&1 </dev/null &'
    ' echo $! >"$1/mariadbd.pid"'
)
_IS_ALIVE = 'kill -0 "$(cat "$1/mariadbd.pid")" 2>/dev/null'
# What a backup says of where it comes from; a node of the new cluster must not believe it.
FORGET = (
    'cd "$1" && rm -f xtrabackup_* donor_galera_info backup-my.cnf'
    " grastate.dat gvwstate.dat galera.cache"
)


class NodeUnderRestore:
    """One node; its methods are called in the order in which they stand."""

    def __init__(self, using: Restoration, target: TargetCluster, node: TargetNode) -> None:
        self.host = using.host(node.host)
        self.node = node
        self.socket_dir = f"/tmp/farside-{secrets.token_hex(4)}"
        """In /tmp, for the path of a socket must be short."""
        self._using = using
        self._target = target
        self._work = using.work(self.host)

    def account(self) -> str:
        """Whom the server runs as there, which is who may ask it over its socket."""
        return self.host.run(["id", "-un"]).text.strip()

    def fetch(self) -> int:
        """Bring the backup, after noting what will be made; returns the bytes read."""
        data = self.node.data_dir
        self._using.reader.mark(
            self.host,
            MadePidfile(pidfile=f"{self._work}/mariadbd.pid"),
            MadePath(path=data),
            MadePath(path=self.socket_dir),
        )
        self.host.run(["mkdir", "-m", "0700", self.socket_dir])
        (sealed,) = (item for item in self._using.manifest.objects if item.name == BACKUP)
        argv = (f"{self._target.bin_dir}/mbstream", "-x", "-C", data)
        item = OpenItem(object=sealed, target=ProgramTarget(argv=argv, directory=data))
        return self._using.reader.open(self.host, [item], self._using.identity)

    def prepare(self) -> None:
        """Make the backup consistent: replay the log that was written while it was taken.

        What its files look like is in its own backup-my.cnf: no other option file is read.
        """
        argv = [f"{self._target.bin_dir}/mariadb-backup", "--prepare"]
        argv += [f"--use-memory={self._pool()}", f"--target-dir={self.node.data_dir}"]
        self.host.run(argv, timeout=_HOURS)
        self.host.run(["sh", "-c", FORGET, "sh", self.node.data_dir])

    def configure(self, cluster: str, uuid: str, accounts: Sequence[str]) -> None:
        """Give it a configuration and a place in the history of a cluster that is new.

        `accounts` become administrators by their sockets: of this, no password is needed. That
        is done by a server that listens nowhere, as is the node's first start: alone, it writes
        the new cluster's name into its data. All nodes do the same, so all have the same place,
        and need no copy from each other.
        """
        text = configuration(
            self._using.manifest.engine_facts,
            self._target,
            self.node,
            cluster=cluster,
            socket=f"{self.socket_dir}/s",
            work=self._work,
            account=self.account(),
            pool=self._pool(),
        )
        self.host.put(text.encode(), f"{self._work}/my.cnf")
        server, defaults = self._target.server, f"--defaults-file={self._work}/my.cnf"
        # Such a server knows no zone by name.
        alone = ["--bootstrap", "--wsrep-on=OFF", "--wsrep-provider=none"]
        alone.append("--default-time-zone=SYSTEM")
        sql = administrators(accounts)
        self.host.run([server, defaults, *alone], input=sql.encode(), timeout=START_SECONDS)
        self.host.put(_state(uuid), f"{self.node.data_dir}/grastate.dat")
        self.start("--wsrep-new-cluster --wsrep-cluster-address=gcomm:// --skip-networking")
        self.await_synced()
        self.control().script("", "SHUTDOWN;")
        self._await_end()

    def start(self, options: str = "") -> None:
        """Start the server; `options` come behind its configuration."""
        script = ["sh", "-c", _START, "sh", self._work, self.node.data_dir, self._target.server]
        self.host.run([*script, options])

    def control(self) -> Mariadb:
        """The server, as administrator, over its socket."""
        return Mariadb(
            self.host, self._target.bin_dir, self.account(), socket=f"{self.socket_dir}/s"
        )

    def await_synced(self) -> None:
        """Until it is a whole member. Raises PermanentError if it dies or never is."""
        give_up, state = time.monotonic() + START_SECONDS, ""
        control = self.control()
        while True:
            try:
                status = control.status()
                state = status.get("wsrep_local_state_comment", "")
                if state == "Synced" and status.get("wsrep_ready") == "ON":
                    return
            except FarsideError as error:
                state = error.message
            if not self._lives() or time.monotonic() > give_up:
                raise self._failed(state)
            time.sleep(_POLL_SECONDS)

    def _lives(self) -> bool:
        done = self.host.run(["sh", "-c", _IS_ALIVE, "sh", self._work], check=False)
        return done.exit_code == 0

    def _await_end(self) -> None:
        give_up = time.monotonic() + START_SECONDS
        while self._lives():
            if time.monotonic() > give_up:
                raise self._failed("it does not stop")
            time.sleep(_POLL_SECONDS)

    def _failed(self, state: str) -> PermanentError:
        shown = r'grep -E "\[ERROR\]|WSREP_SST: \[ERROR\]" "$1/mariadbd.log" | tail -n 5'
        log = self.host.run(["sh", "-c", shown, "sh", self._work], check=False)
        said = " | ".join(log.text.splitlines())[-1000:]
        return PermanentError(
            f"the restored node is not Synced: {said or state}",
            operation="start",
            domain=self._using.recovery.name,
            host=self.host.name,
            hint=f"read {self._work}/mariadbd.log there (run with --keep to have it left)",
        )

    def _pool(self) -> int:
        """Bytes of memory for pages: what the data can use, and no more than a quarter of all."""
        found = re.search(r"MemTotal:\s+(\d+) kB", self.host.run(["cat", "/proc/meminfo"]).text)
        memory = int(found[1]) * 1024 if found else 2**30
        wanted = max(int(self._using.manifest.engine_facts["bytes"]), _LEAST_POOL)
        return min(wanted, memory // 4)


def configuration(
    facts: Mapping[str, Any],
    target: TargetCluster,
    node: TargetNode,
    *,
    cluster: str,
    socket: str,
    work: str,
    account: str,
    pool: int,
) -> str:
    """A node's whole configuration, written new: of the source's only what the data needs."""
    provider = {
        "gmcast.listen_addr": f"ssl://{node.at(node.group_port)}",
        "ist.recv_addr": node.at(node.ist_port),
        "ist.recv_bind": node.at(node.ist_port),
        # Nodes know each other by certificate: nobody joins without one of this domain.
        "socket.ssl_ca": target.ca_file,
        "socket.ssl_cert": node.cert_file,
        "socket.ssl_key": node.key_file,
    }
    settings = {
        "datadir": node.data_dir,
        "socket": socket,
        "tmpdir": work,
        "bind-address": node.address,
        "port": node.port,
        "skip-name-resolve": "ON",
        "ssl-ca": target.ca_file,
        "ssl-cert": node.cert_file,
        "ssl-key": node.key_file,
        "innodb-buffer-pool-size": pool,
        "innodb-autoinc-lock-mode": 2,
        "binlog-format": "ROW",
        # Nothing of what was restored may act by itself, or follow anybody.
        "event-scheduler": "OFF",
        "skip-slave-start": "ON",
        "wsrep-on": "ON",
        "wsrep-provider": target.provider,
        "wsrep-provider-options": ";".join(f"{name}={value}" for name, value in provider.items()),
        "wsrep-cluster-name": cluster,
        "wsrep-cluster-address": f"gcomm://{target.peers}",
        "wsrep-node-name": node.host,
        "wsrep-node-address": node.at(node.group_port),
        "wsrep-node-incoming-address": node.endpoint,
        # Nobody needs it to join: it is for a node that loses its data later.
        "wsrep-sst-method": "mariabackup",
        "wsrep-sst-auth": f"{account}:",
        "wsrep-sst-receive-address": node.at(node.sst_port),
    }
    lines = [f"{name} = {_quoted(str(value))}" for name, value in settings.items()]
    for name in CARRIED:
        value = facts["settings"].get(name)
        if value is not None and (name, value) != ("time_zone", "SYSTEM"):
            lines.append(f"{_OPTIONS.get(name, name)} = {_quoted(value)}")
    # Those that a statement has installed are among the data.
    for item in facts["plugins"]:
        if item["type"] in NEEDED and not item["installed"]:
            lines.append(f"plugin-load-add = {_quoted(item['library'])}")
    transfer = ["ssl-mode = VERIFY_CA", f"sockopt = ,bind={url_host(node.address)}"]
    return "\n".join(["[sst]", *transfer, "", "[mariadbd]", *lines, ""])


_OPTIONS = {"time_zone": "default_time_zone"}
"""Settings that are given under another name than they are shown."""


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def administrators(accounts: Iterable[str]) -> str:
    """What makes accounts of a host administrators, for a server that reads it on its input.

    Such a server has read no accounts yet, and takes one statement a line.
    """
    lines = ["FLUSH PRIVILEGES;"]
    for name in accounts:
        user = f"{literal(name)}@'localhost'"
        lines += [
            f"CREATE USER IF NOT EXISTS {user};",
            f"ALTER USER {user} IDENTIFIED VIA unix_socket ACCOUNT UNLOCK;",
            f"GRANT ALL PRIVILEGES ON *.* TO {user} WITH GRANT OPTION;",
        ]
    return "".join(f"{line}\n" for line in lines)


def _state(uuid: str) -> bytes:
    """grastate.dat of a node that may begin a cluster with this history."""
    text = (
        f"# GALERA saved state\nversion: 2.1\nuuid:    {uuid}\nseqno:   1\nsafe_to_bootstrap: 1\n"
    )
    return text.encode()


def kill(host: Host, work: str) -> None:
    """End a node as a crash would; without effect where there is none."""
    script = 'test ! -e "$1/mariadbd.pid" || kill -9 "$(cat "$1/mariadbd.pid")" 2>/dev/null || true'
    host.run(["sh", "-c", script, "sh", work])
