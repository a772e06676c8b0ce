"""Galera in east: three nodes of MariaDB over TLS, and the application's writer."""

import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from typing_extensions import override

from blocks.errors import PermanentError
from deployments.lab import credentials, processes
from deployments.lab.accounts import Account
from deployments.lab.credentials import Vaults
from deployments.lab.part import Part, writer
from deployments.lab.places import Places, write
from deployments.lab.processes import PLAIN, Service
from deployments.lab.site import Endpoint, Host, Site
from deployments.lab.starting import Starter

NAME = "galera"
NODES = ("ga1", "ga2", "ga3")
#: MariaDB's for clients, and Galera's for the group, incremental and full state transfers.
PORTS = (3306, 4567, 4568, 4444)
CLUSTER = "shop-east"
#: Debian's: PyPI has no MariaDB.
BIN = "/usr/bin"
SERVER = "/usr/sbin/mariadbd"
PROVIDER = "/usr/lib/galera/libgalera_smm.so"
#: Accounts that money is moved between: it is never more or less.
ACCOUNTS = 1000
_PROGRAMS = (
    SERVER,
    PROVIDER,
    f"{BIN}/mariadb",
    f"{BIN}/mariadb-backup",
    f"{BIN}/mariadb-install-db",
)
#: What the plan calls, of which each domain has copies.
_COPIED = (SERVER, f"{BIN}/mariadb", f"{BIN}/mariadb-backup", f"{BIN}/mbstream")
_POSITION = re.compile(r"Recovered position: (\S+):(-?\d+)")
_TABLES = """
CREATE DATABASE shop;
CREATE TABLE shop.heartbeat (id BIGINT PRIMARY KEY, at DATETIME(6) NOT NULL);
CREATE TABLE shop.accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL);
CREATE TABLE shop.transfers (
  id BIGINT AUTO_INCREMENT PRIMARY KEY, payer INT NOT NULL, payee INT NOT NULL,
  amount BIGINT NOT NULL, at DATETIME(6) NOT NULL, KEY (payer), KEY (payee));
CREATE TABLE shop.notes (id INT PRIMARY KEY, body TEXT NOT NULL);
CREATE VIEW shop.wealth AS SELECT SUM(balance) AS total FROM shop.accounts;
"""


def programs(places: Places, domain: str) -> Path:
    """A domain's own copy of MariaDB's programs, so that one can be missing in west alone."""
    return places.runtime(domain) / "galera"


def listens(site: Site) -> dict[str, tuple[Endpoint, ...]]:
    """Where each node of east listens: one endpoint for each of PORTS."""
    return {name: tuple((site.address(name), port) for port in PORTS) for name in NODES}


def data_directory(places: Places, host: str) -> Path:
    """Where a host of east keeps its database."""
    return places.host("east", host) / "mariadb"


def _make(places: Places, site: Site, account: Account) -> None:
    """Make the first node's database and copy it to the others, and both domains' programs.

    A copy with the same position in the same history needs no state transfer to join. Raises
    PermanentError.
    """
    PART.check()
    for domain in PART.hosts:
        _copy(programs(places, domain))
    first, *others = NODES
    made = data_directory(places, first).with_suffix(".new")
    shutil.rmtree(made, ignore_errors=True)
    processes.tool(
        [
            f"{BIN}/mariadb-install-db",
            "--no-defaults",
            f"--datadir={made}",
            "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={account.name}",
            "--skip-test-db",
            "--skip-name-resolve",
            f"--tmpdir={places.host(site.name, first)}",
        ],
        places.host(site.name, first),
        account,
    )
    filling = _filling(places, site, account, made)
    processes.start(places, filling, account)
    processes.wait_ready(places, [filling])
    _fill(places, site, account)
    processes.stop(places, filling, signal.SIGTERM)
    for name in ("galera.cache", "gvwstate.dat"):
        (made / name).unlink(missing_ok=True)
    for host in (*others, first):
        data = data_directory(places, host)
        if host == first:
            made.rename(data)
        elif not data.exists():
            processes.tool(
                ["cp", "-a", "--sparse=always", str(made), str(data)], data.parent, account
            )


def _copy(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in _COPIED:
        shutil.copy2(path, target)


def _prepare(places: Places, site: Site, account: Account, dead: Sequence[str]) -> list[str]:
    """Write the configuration of the nodes that do not run, and where in history each goes on.

    Returns them in the order in which to start them: the one that has seen most comes first, and
    makes the cluster anew if none runs. Raises PermanentError.
    """
    positions = {host: _position(places, site, account, host) for host in dead}
    order = sorted(dead, key=lambda host: -positions[host][1])
    for host in order:
        data, (uuid, seqno) = data_directory(places, host), positions[host]
        text = _configuration(places, site, account, host, data)
        if seqno >= 0:
            text += f"wsrep-start-position = {uuid}:{seqno}\n"
        if host == order[0] and len(order) == len(NODES):
            text += "wsrep-new-cluster\n"
            state = data / "grastate.dat"
            _own(state, state.read_text().replace("bootstrap: 0", "bootstrap: 1"), account)
        # Whom it met before it died is no longer so.
        (data / "gvwstate.dat").unlink(missing_ok=True)
        (places.host(site.name, host) / "s").unlink(missing_ok=True)
        _own(_file(places, host), text, account)
    return order


def service(places: Places, site: Site, host: str) -> Service:
    """One node."""
    return Service(
        name=f"{site.name}-galera-{host}",
        tree=places.tree(site.name),
        argv=(SERVER, f"--defaults-file={_file(places, host)}"),
        cwd=places.host(site.name, host),
        log=places.logs(site.name) / f"galera-{host}.log",
        ready=lambda: _is_synced(places, site, host),
        endpoint=listens(site)[host][0],
        namespace=site.namespace(host),
        environment={"TMPDIR": str(places.host(site.name, host))},
    )


def _filling(places: Places, site: Site, account: Account, data: Path) -> Service:
    """The first node while it is filled: a cluster of its own, which nobody can call."""
    host = NODES[0]
    text = _configuration(places, site, account, host, data)
    _own(_file(places, host), f"{text}wsrep-new-cluster\nskip-networking\n", account)
    (data.parent / "s").unlink(missing_ok=True)
    return replace(
        service(places, site, host),
        name=f"{site.name}-galera-filling",
        ready=lambda: _answers(socket(places, host), account),
        endpoint=None,
    )


def _fill(places: Places, site: Site, account: Account) -> None:
    backup = credentials.secret(places, site.name, "galera-backup-password")
    shop = _login_file(places).read_text().strip().rpartition("=")[2]
    rights = (
        "SELECT, SHOW VIEW, EVENT, TRIGGER, RELOAD, PROCESS, LOCK TABLES,"
        " BINLOG MONITOR, REPLICA MONITOR"
    )
    note = Fernet(credentials.secret(places, site.name, "shop-notes-key")).encrypt(b"a note")
    numbers = ", ".join(f"({number}, 0)" for number in range(1, ACCOUNTS + 1))
    text = f"""
{_TABLES}
INSERT INTO shop.accounts VALUES {numbers};
INSERT INTO shop.notes VALUES (1, '{note.decode()}');
CREATE USER backup@'%' IDENTIFIED BY '{backup}';
GRANT {rights} ON *.* TO backup@'%';
CREATE USER shop@'%' IDENTIFIED BY '{shop}';
GRANT ALL ON shop.* TO shop@'%';
"""
    host = NODES[0]
    argv = [f"{BIN}/mariadb", "--no-defaults", f"--socket={socket(places, host)}"]
    processes.tool(argv, places.host(site.name, host), account, text)


def _configuration(places: Places, site: Site, account: Account, host: str, data: Path) -> str:
    (address, port), (_, group), (_, ist), (_, sst) = listens(site)[host]
    certificate, key = credentials.member_files(places, site.name, host)
    ca = credentials.authority_file(places, site.name)
    peers = ",".join(f"{a}:{p}" for _, (a, p), *_ in listens(site).values())
    options = {
        "gmcast.listen_addr": f"ssl://{address}:{group}",
        "ist.recv_addr": f"{address}:{ist}",
        "ist.recv_bind": f"{address}:{ist}",
        "socket.ssl_ca": ca,
        "socket.ssl_cert": certificate,
        "socket.ssl_key": key,
        "gcache.size": "32M",
    }
    return f"""\
[sst]
ssl-mode = VERIFY_CA
# On one machine every node has the same port: each on its own address.
sockopt = ,bind={address}

[mariadbd]
datadir = {data}
socket = {socket(places, host)}
pid-file = {places.host(site.name, host) / "mariadbd.pid"}
tmpdir = {places.host(site.name, host)}
bind-address = {address}
port = {port}
skip-name-resolve
ssl-ca = {ca}
ssl-cert = {certificate}
ssl-key = {key}
performance-schema = OFF
innodb-buffer-pool-size = 64M
innodb-log-file-size = 32M
# A process that is killed loses nothing that it has written.
innodb-flush-log-at-trx-commit = 2
innodb-autoinc-lock-mode = 2
binlog-format = ROW
wsrep-on = ON
wsrep-provider = {PROVIDER}
wsrep-provider-options = "{";".join(f"{name}={value}" for name, value in options.items())}"
wsrep-cluster-name = {CLUSTER}
wsrep-cluster-address = gcomm://{peers}
wsrep-node-name = {host}
wsrep-node-address = {address}:{group}
wsrep-node-incoming-address = {address}:{port}
wsrep-sst-method = mariabackup
wsrep-sst-auth = "{account.name}:"
wsrep-sst-receive-address = {address}:{sst}
"""


def _position(places: Places, site: Site, account: Account, host: str) -> tuple[str, int]:
    """How far a node that does not run has come in the cluster's history, and which history."""
    text = _configuration(places, site, account, host, data_directory(places, host))
    _own(_file(places, host), text, account)
    argv = [SERVER, f"--defaults-file={_file(places, host)}", "--wsrep-recover"]
    found = _POSITION.search(processes.tool(argv, places.host(site.name, host), account))
    return (found[1], int(found[2])) if found else ("", -1)


def _login_file(places: Places) -> Path:
    """The application's login, as MariaDB's clients read it."""
    return places.host("east", "app") / "galera.cnf"


def _file(places: Places, host: str) -> Path:
    return places.host("east", host) / "my.cnf"


def socket(places: Places, host: str) -> Path:
    """Where a node of east is asked by the account that it runs as."""
    return places.host("east", host) / "s"


def _own(path: Path, text: str, account: Account) -> None:
    write(path, text)
    account.own(path)


def _is_synced(places: Places, site: Site, host: str) -> bool:
    """Whether a node takes part; asked as the application, over the network as it does."""
    address, port = listens(site)[host][0]
    argv = [
        f"{BIN}/mariadb",
        f"--defaults-file={_login_file(places)}",
        *(f"--host={address}", f"--port={port}", "--connect-timeout=2", "--batch", "--silent"),
        "--execute=SHOW STATUS LIKE 'wsrep_local_state_comment'",
    ]
    done = subprocess.run(argv, env=PLAIN, check=False, capture_output=True)
    return done.stdout.split()[1:] == [b"Synced"]


def _answers(path: Path, account: Account) -> bool:
    argv = [f"{BIN}/mariadb-admin", "--no-defaults", f"--socket={path}", "--silent", "ping"]
    done = subprocess.run(argv, env=PLAIN, check=False, capture_output=True, **account.identity)
    return done.returncode == 0


class _Galera(Part):
    name = NAME
    certified = True
    hosts = {  # noqa: RUF012 (a ClassVar of the contract)
        "east": [Host(name, 19 + number) for number, name in enumerate(NODES)],
        "west": [Host(name, 30 + number) for number, name in enumerate(NODES)],
    }

    @override
    def check(self) -> None:
        missing = [path for path in _PROGRAMS if not Path(path).exists()]
        if missing:
            raise PermanentError(
                f"{', '.join(missing)}: not installed",
                operation="lab up",
                hint="apt-get install mariadb-server mariadb-backup galera-4 socat",
            )

    @override
    def mint(self, places: Places, vaults: Vaults) -> None:
        application = secrets.token_hex(18)
        vaults.keep("east", "galera-backup-password", secrets.token_hex(18))
        vaults.keep("west", "galera-shop-password", application)
        vaults.write(_login_file(places), f"[client]\nuser=shop\npassword={application}\n")

    @override
    def endpoints(self, site: Site) -> Sequence[Endpoint]:
        return [endpoint for of_node in listens(site).values() for endpoint in of_node]

    @override
    def servers(self, places: Places, site: Site) -> Sequence[Service]:
        return [service(places, site, host) for host in NODES]

    @override
    def writers(self, places: Places, site: Site) -> Sequence[Service]:
        nodes = [f"{address}:{port}" for (address, port), *_ in listens(site).values()]
        return [writer(places, site, NAME, (str(_login_file(places)), *nodes))]

    @override
    def start(self, places: Places, site: Site, starter: Starter) -> None:
        if not all(data_directory(places, host).exists() for host in NODES):
            starter.say("making the Galera cluster")
            _make(places, site, starter.account)
        writers = self.writers(places, site)
        nodes = {host: service(places, site, host) for host in NODES}
        dead = [host for host, node in nodes.items() if not processes.running(places, node.name)]
        for host in _prepare(places, site, starter.account, dead):
            # Each joins those before it.
            starter.announce(starter.start(nodes[host]))
            starter.wait(nodes[host])
        if dead:
            starter.restart(*writers)
        starter.announce(starter.start(*writers))
        starter.wait(*writers)

    @override
    def values(self, places: Places, east: Site, west: Site) -> dict[str, Any]:
        found: dict[str, Any] = {
            "galera_ledger": str(places.ledger / f"{NAME}.tsv"),
            "galera_accounts": ACCOUNTS,
            "galera_provider": PROVIDER,
        }
        for site in (east, west):
            folder = programs(places, site.name)
            found[f"{site.name}_galera_bin"] = str(folder)
            found[f"{site.name}_galera_server"] = str(folder / "mariadbd")
        return found


PART = _Galera()
