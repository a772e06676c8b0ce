"""A node on a recovery host, from its backup to a process that serves, and back to nothing."""

import json
import re
import secrets
import time
from collections.abc import Iterable, Sequence

from blocks.agent.protocol.parts import OpenItem, ProgramTarget
from blocks.agent.redaction import redacted
from blocks.block import url_host
from blocks.engines.galera.facts import GaleraFacts, own
from blocks.engines.galera.mariadb import Mariadb, literal
from blocks.engines.galera.plan import TargetCluster, TargetNode
from blocks.engines.galera.settings import LIBRARY, PLUGIN, carried
from blocks.engines.restoration import Restoration
from blocks.errors import FarsideError, PermanentError
from blocks.hosts.host import Host
from blocks.remote.jobs import kill_started

BACKUP = "backup.xb.zst.age"
START_SECONDS = 600.0
"""Time limit for a node to become Synced: it replays what the others have committed meanwhile."""
_HOURS = 24 * 3600.0
_POLL_SECONDS = 0.1
_LEAST_POOL = 2**27
_START = (
    'cd "$2"; TMPDIR="$1" setsid nohup "$3" --defaults-file="$1/my.cnf"'
    ' --pid-file="$1/mariadbd.pid" $4 >"$1/mariadbd.log" 2>&1 </dev/null &'
    ' echo $! >"$1/mariadbd.pid"'
)
_ALONE = 'log="$1/bootstrap.log"; shift; exec "$@" >"$log" 2>&1'
# A server that crashes names the signal and the statement, then lists the limits of its process.
_TOLD = r"""grep -E '\[ERROR\]|^ERROR|got signal|^Query \(' "$1" | tail -n 5"""
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
        """Take the node's place and bring the backup; returns the bytes read.

        Raises TargetOccupied where the place is not free.
        """
        data = self.node.data_dir
        self._using.reader.claim(self.host, [data, self.socket_dir], self.node.ports)
        (sealed,) = (item for item in self._using.manifest.objects if item.name == BACKUP)
        argv = (f"{self._target.bin_dir}/mbstream", "-x", "-C", data)
        item = OpenItem(object=sealed, target=ProgramTarget(argv=argv, directory=data))
        return self._using.reader.open(self.host, [item], self._using.identity)

    def prepare(self) -> None:
        """Make the backup consistent: replay the log that was written while it was taken.

        What its files look like is in its own backup-my.cnf: no other option file is read. What
        unpacks compressed pages is loaded from here, whatever directory is named there.
        """
        argv = [f"{self._target.bin_dir}/mariadb-backup", "--prepare"]
        argv += [f"--use-memory={self._pool()}", f"--target-dir={self.node.data_dir}"]
        argv.append(f"--plugin-dir={plugin_directory(self.host, self._target.server)}")
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
            own(self._using.facts),
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
        argv = ["sh", "-c", _ALONE, "sh", self._work, server, defaults, *alone]
        sql = administrators(accounts).encode()
        done = self.host.run(argv, input=sql, timeout=START_SECONDS, check=False)
        if done.exit_code != 0:
            state = f"the server that makes farside its administrator ended with {done.exit_code}"
            raise self._failed(state, "bootstrap.log")
        self.host.put(_state(uuid), f"{self.node.data_dir}/grastate.dat")
        self.start("--wsrep-new-cluster --wsrep-cluster-address=gcomm:// --skip-networking")
        self.await_synced()
        self.control().script("", "SHUTDOWN;")
        self._await_end()

    def start(self, options: str = "") -> None:
        """Start the server; `options` come behind its configuration."""
        script = ["sh", "-c", _START, "sh", self._work, self.node.data_dir, self._target.server]
        self.host.run(self._using.reader.stamped([*script, options]))

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

    def _failed(self, state: str, file: str = "mariadbd.log") -> PermanentError:
        log = self.host.run(["sh", "-c", _TOLD, "sh", f"{self._work}/{file}"], check=False)
        said = redacted(" | ".join(log.text.splitlines()))[-1000:]
        return PermanentError(
            f"the restored node is not Synced: {said or state}",
            operation="start",
            domain=self._using.recovery.name,
            host=self.host.name,
            hint=f"read {self._work}/{file} there (run with --keep to have it left)",
        )

    def _pool(self) -> int:
        """Bytes of memory for pages: what the data can use, and no more than a quarter of all."""
        found = re.search(r"MemTotal:\s+(\d+) kB", self.host.run(["cat", "/proc/meminfo"]).text)
        memory = int(found[1]) * 1024 if found else 2**30
        wanted = max(own(self._using.facts).bytes, _LEAST_POOL)
        return min(wanted, memory // 4)


def configuration(  # noqa: PLR0913 (each is a value of the file, by name)
    facts: GaleraFacts,
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
    lines += _of_source(facts, work)
    transfer = ["ssl-mode = VERIFY_CA", f"sockopt = ,bind={url_host(node.address)}"]
    return "\n".join(["[sst]", *transfer, "", "[mariadbd]", *lines, ""])


def _of_source(facts: GaleraFacts, work: str) -> list[str]:
    """The lines that follow the source: its settings that come along, and its plugins."""
    lines = list[str]()
    # Where the source lets no statement read any file, this one does not either.
    if facts.settings.get("secure_file_priv"):
        lines.append(f"secure-file-priv = {_quoted(work)}")
    for name, value in carried(facts.settings).items():
        if (name, value) != ("time_zone", "SYSTEM"):
            # This server may be a little older, and not know one of them.
            lines.append(f"loose_{_OPTIONS.get(name, name)} = {_quoted(value)}")
    loaded = [item.library for item in facts.plugins if item.is_needed and not item.installed]
    for library in dict.fromkeys(loaded):
        if LIBRARY.fullmatch(library):
            lines.append(f"plugin-load-add = {_quoted(library)}")
    # These come with the data and start with the server: they are kept off.
    for item in facts.plugins:
        if item.may_act and PLUGIN.fullmatch(item.name):
            lines.append(f"loose-{item.name.lower()} = OFF")
    return lines


_OPTIONS = {
    "time_zone": "default_time_zone",
    "tx_isolation": "transaction_isolation",
    "wsrep_certify_nonpk": "wsrep_certify_nonPK",
    "wsrep_osu_method": "wsrep_OSU_method",
}
"""Settings that are given under another name than they are shown."""


def _quoted(value: str) -> str:
    assert value.isprintable(), value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def administrators(accounts: Iterable[str]) -> str:
    """What makes accounts of a host administrators, for a server that reads it on its input.

    Such a server has read no accounts and takes one statement a line. To have it read them (FLUSH
    PRIVILEGES) crashes MariaDB 10.11 where CREATE SERVER was ever used: it is told by the table.
    """
    demands = {"access": -1, "plugin": "unix_socket", "authentication_string": ""}
    lines = ["SET SESSION sql_mode = '';"] + [
        "REPLACE INTO mysql.global_priv (Host, User, Priv)"
        f" VALUES ('localhost', {literal(name)}, {literal(json.dumps(demands))});"
        for name in accounts
    ]
    return "".join(f"{line}\n" for line in lines)


def _state(uuid: str) -> bytes:
    """grastate.dat of a node that may begin a cluster with this history."""
    text = (
        f"# GALERA saved state\nversion: 2.1\nuuid:    {uuid}\nseqno:   1\nsafe_to_bootstrap: 1\n"
    )
    return text.encode()


def plugin_directory(host: Host, server: str) -> str:
    """Where a host's server has its plugins."""
    said = host.run([server, "--no-defaults", "--verbose", "--help"], check=False).text
    found = re.search(r"^plugin-dir\s+(\S+?)/?$", said, re.MULTILINE)
    return found[1] if found else "/usr/lib/mysql/plugin"


def kill(host: Host, work: str) -> None:
    """End a node as a crash would; without effect where there is none."""
    kill_started(host, work, "mariadbd.pid")
