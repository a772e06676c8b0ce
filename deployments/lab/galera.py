"""What runs Galera in east: three nodes of MariaDB over TLS, and the application's writer."""

import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet

from blocks.errors import PermanentError
from deployments.lab import credentials, processes
from deployments.lab.accounts import Account
from deployments.lab.domains import EAST, WEST, Site
from deployments.lab.places import Places, write
from deployments.lab.processes import PLAIN, Service

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
_TOOL_SECONDS = 120
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


def check() -> None:
    """Raise PermanentError where MariaDB is not installed."""
    missing = [path for path in _PROGRAMS if not Path(path).exists()]
    if missing:
        raise PermanentError(
            f"{', '.join(missing)}: not installed",
            operation="lab up",
            hint="apt-get install mariadb-server mariadb-backup galera-4 socat",
        )


def data_directory(places: Places, host: str) -> Path:
    """Where a host of east keeps its database."""
    return places.host(EAST.name, host) / "mariadb"


def is_made(places: Places) -> bool:
    """Whether every node has its data."""
    return all(data_directory(places, host).exists() for host in EAST.galera)


def make(places: Places, site: Site, account: Account) -> None:
    """Make the first node's database and copy it to the others, and both domains' programs.

    A copy with the same position in the same history needs no state transfer to join. Raises
    PermanentError.
    """
    check()
    for domain in (EAST, WEST):
        _copy(places.galera_bin(domain.name))
    first, *others = EAST.galera
    made = data_directory(places, first).with_suffix(".new")
    shutil.rmtree(made, ignore_errors=True)
    _tool(
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
            _tool(["cp", "-a", "--sparse=always", str(made), str(data)], data.parent, account)


def _copy(programs: Path) -> None:
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir()
    for path in _COPIED:
        shutil.copy2(path, programs)


def prepare(places: Places, site: Site, account: Account, dead: Sequence[str]) -> list[str]:
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
        if host == order[0] and len(order) == len(EAST.galera):
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
        endpoint=site.galera[host][0],
        namespace=site.namespace(host),
        environment={"TMPDIR": str(places.host(site.name, host))},
    )


def writer(places: Places, site: Site) -> Service:
    """The writer of the heartbeat and of the load."""
    ledger = places.ledger / "galera.tsv"
    script = places.runtime(site.name) / "galera_writer.py"
    return Service(
        name=f"{site.name}-galera-writer",
        tree=places.tree(site.name),
        argv=(
            *(str(places.python(site.name)), "-P", str(script), str(ledger)),
            str(credentials.galera_login_file(places, site.name)),
            *(f"{address}:{port}" for (address, port), *_ in site.galera.values()),
        ),
        cwd=places.host(site.name, "app"),
        log=places.logs(site.name) / "galera-writer.log",
        ready=lambda: ledger.exists() and ledger.stat().st_size > 0,
        namespace=site.namespace("app"),
    )


def _filling(places: Places, site: Site, account: Account, data: Path) -> Service:
    """The first node while it is filled: a cluster of its own, which nobody can call."""
    host = EAST.galera[0]
    text = _configuration(places, site, account, host, data)
    _own(_file(places, host), f"{text}wsrep-new-cluster\nskip-networking\n", account)
    (data.parent / "s").unlink(missing_ok=True)
    whole = service(places, site, host)
    return Service(
        name=f"{site.name}-galera-filling",
        tree=whole.tree,
        argv=whole.argv,
        cwd=whole.cwd,
        log=whole.log,
        ready=lambda: _answers(socket(places, host), account),
        namespace=whole.namespace,
        environment=whole.environment,
    )


def _fill(places: Places, site: Site, account: Account) -> None:
    backup = credentials.secret(places, site.name, "galera-backup-password")
    shop = credentials.galera_password(places, site.name)
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
    host = EAST.galera[0]
    argv = [f"{BIN}/mariadb", "--no-defaults", f"--socket={socket(places, host)}"]
    _tool(argv, places.host(site.name, host), account, text)


def _configuration(places: Places, site: Site, account: Account, host: str, data: Path) -> str:
    (address, port), (_, group), (_, ist), (_, sst) = site.galera[host]
    certificate, key = credentials.member_files(places, site.name, host)
    ca = credentials.authority_file(places, site.name)
    peers = ",".join(f"{a}:{p}" for _, (a, p), *_ in site.galera.values())
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
    found = _POSITION.search(_tool(argv, places.host(site.name, host), account))
    return (found[1], int(found[2])) if found else ("", -1)


def _file(places: Places, host: str) -> Path:
    return places.host(EAST.name, host) / "my.cnf"


def socket(places: Places, host: str) -> Path:
    """Where a node of east is asked by the account that it runs as."""
    return places.host(EAST.name, host) / "s"


def _own(path: Path, text: str, account: Account) -> None:
    write(path, text)
    account.own(path)


def _is_synced(places: Places, site: Site, host: str) -> bool:
    """Whether a node takes part; asked as the application, over the network as it does."""
    address, port = site.galera[host][0]
    argv = [
        f"{BIN}/mariadb",
        f"--defaults-file={credentials.galera_login_file(places, site.name)}",
        *(f"--host={address}", f"--port={port}", "--connect-timeout=2", "--batch", "--silent"),
        "--execute=SHOW STATUS LIKE 'wsrep_local_state_comment'",
    ]
    done = subprocess.run(argv, env=PLAIN, check=False, capture_output=True)
    return done.stdout.split()[1:] == [b"Synced"]


def _answers(path: Path, account: Account) -> bool:
    argv = [f"{BIN}/mariadb-admin", "--no-defaults", f"--socket={path}", "--silent", "ping"]
    done = subprocess.run(argv, env=PLAIN, check=False, capture_output=True, **account.identity)
    return done.returncode == 0


def _tool(argv: Sequence[str], cwd: Path, account: Account, said: str = "") -> str:
    """What a program wrote to standard error. Raises PermanentError."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**PLAIN, "HOME": str(cwd), "TMPDIR": str(cwd)},
        input=said.encode(),
        capture_output=True,
        timeout=_TOOL_SECONDS,
        check=False,
        **account.identity,
    )
    text = done.stderr.decode(errors="replace")
    if done.returncode != 0:
        raise PermanentError(
            f"{Path(argv[0]).name} failed:\n{text.strip()[-2000:]}",
            operation="lab up",
            domain=EAST.name,
        )
    return text
