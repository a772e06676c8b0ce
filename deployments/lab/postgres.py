"""East's databases: a primary, a streaming standby, and the application's tables."""

import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from psycopg import sql

from blocks.errors import PermanentError
from deployments.lab import credentials
from deployments.lab.accounts import Account
from deployments.lab.domains import EAST, Site
from deployments.lab.places import Places, write
from deployments.lab.processes import PLAIN, Service

PRIMARY, STANDBY = EAST.databases
#: Clients on a rate of transactions a second that two cores hardly notice.
LOAD_CLIENTS, LOAD_RATE = 4, 100
_FOREVER_SECONDS = 10**9
_TOOL_SECONDS = 600
_SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "50",
    "max_wal_size": "2GB",
    "wal_keep_size": "512MB",
    # Loopback labs may be in directories too long for a Unix socket.
    "unix_socket_directories": "",
    # Shared memory in files of the data directory: nothing is left in /dev/shm by a kill.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_ACCESS = """\
# TYPE  DATABASE     USER        ADDRESS      METHOD
host    all          all         127.0.0.0/8  scram-sha-256
host    replication  replicator  127.0.0.0/8  scram-sha-256
"""


def data_directory(places: Places, host: str) -> Path:
    """Where a host of east keeps its database."""
    return places.host(EAST.name, host) / "pgdata"


def service(places: Places, site: Site, host: str) -> Service:
    """The server of one host."""
    data = data_directory(places, host)
    return Service(
        name=f"{site.name}-postgres-{host}",
        tree=places.tree(site.name),
        argv=(str(places.postgres_bin(site.name) / "postgres"), "-D", str(data)),
        cwd=data,
        log=places.logs(site.name) / f"postgres-{host}.log",
        ready=lambda: _accepts(data),
        endpoint=site.postgres[host],
    )


def load(places: Places, site: Site) -> Service:
    """pgbench, until it is killed."""
    home = places.host(site.name, "app")
    pgbench = places.postgres_bin(site.name) / "pgbench"
    arguments = ("--no-vacuum", f"--client={LOAD_CLIENTS}", f"--rate={LOAD_RATE}")
    return Service(
        name=f"{site.name}-load",
        tree=places.tree(site.name),
        argv=(str(pgbench), *arguments, f"--time={_FOREVER_SECONDS}"),
        cwd=home,
        log=places.logs(site.name) / "load.log",
        ready=lambda: True,
        environment=_application(places, site),
    )


def heartbeat(places: Places, site: Site) -> Service:
    """The writer of the heartbeat."""
    ledger = places.ledger / "heartbeat.tsv"
    script = places.runtime(site.name) / "heartbeat.py"
    return Service(
        name=f"{site.name}-heartbeat",
        tree=places.tree(site.name),
        argv=(str(places.python(site.name)), "-P", str(script), str(ledger)),
        cwd=places.host(site.name, "app"),
        log=places.logs(site.name) / "heartbeat.log",
        ready=lambda: ledger.exists() and ledger.stat().st_size > 0,
        environment=_application(places, site),
    )


def initialise(places: Places, site: Site, account: Account) -> None:
    """Make the primary's data directory. Raises PermanentError."""
    data = data_directory(places, PRIMARY)
    settings = [f"--set={name}={value}" for name, value in _SETTINGS.items()]
    _tool(
        [
            places.postgres_bin(site.name) / "initdb",
            f"--pgdata={data}",
            "--username=postgres",
            f"--pwfile={places.secrets(site.name) / 'postgres-password'}",
            "--auth=scram-sha-256",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C",
            "--builtin-locale=C.UTF-8",
            # Only the making of it: the servers run with fsync on.
            "--no-sync",
            *settings,
        ],
        places.host(site.name, PRIMARY),
        account,
    )
    write(data / "pg_hba.conf", _ACCESS)
    account.own(data / "pg_hba.conf")
    _place(data, site, PRIMARY)


def fill(places: Places, site: Site, account: Account, scale: int) -> None:
    """Roles, standby and tables, on a running primary. Raises PermanentError."""
    _create_roles(places, site)
    with ThreadPoolExecutor() as pool:
        standby = pool.submit(make_standby, places, site, account)
        _create_tables(places, site, account, scale)
        standby.result()


def make_standby(places: Places, site: Site, account: Account) -> None:
    """Copy the primary to the standby's host. Raises PermanentError."""
    data = data_directory(places, STANDBY)
    address, port = site.postgres[PRIMARY]
    _tool(
        [
            places.postgres_bin(site.name) / "pg_basebackup",
            f"--pgdata={data}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ],
        places.host(site.name, STANDBY),
        account,
        {
            "PGHOST": address,
            "PGPORT": str(port),
            "PGUSER": "replicator",
            "PGPASSWORD": credentials.secret(places, site.name, "replication-password"),
            "PGAPPNAME": STANDBY,
        },
    )
    _place(data, site, STANDBY)


def _create_roles(places: Places, site: Site) -> None:
    passwords = {
        "replicator": credentials.secret(places, site.name, "replication-password"),
        "shop": credentials.application_password(places, site.name),
    }
    create = sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}")
    with _superuser(places, site) as connection:
        for role, password in passwords.items():
            right = sql.SQL("REPLICATION" if role == "replicator" else "")
            statement = create.format(sql.Identifier(role), right, sql.Literal(password))
            connection.execute(statement)
        connection.execute("CREATE DATABASE shop OWNER shop")


def _create_tables(places: Places, site: Site, account: Account, scale: int) -> None:
    environment = _application(places, site)
    bin_directory, home = places.postgres_bin(site.name), places.host(site.name, "app")
    table = "CREATE TABLE heartbeat (id bigint PRIMARY KEY, at timestamptz NOT NULL)"
    _tool([bin_directory / "psql", "-XqAt", "-c", table], home, account, environment)
    pgbench = [bin_directory / "pgbench", "--initialize", "--quiet", f"--scale={scale}"]
    _tool(pgbench, home, account, environment)


def _superuser(places: Places, site: Site) -> "psycopg.Connection[tuple[object, ...]]":
    address, port = site.postgres[PRIMARY]
    return psycopg.connect(
        host=address,
        port=port,
        user="postgres",
        password=credentials.secret(places, site.name, "postgres-password"),
        dbname="postgres",
        autocommit=True,
    )


def _application(places: Places, site: Site) -> dict[str, str]:
    address, port = site.postgres[PRIMARY]
    return {
        "PGHOST": address,
        "PGPORT": str(port),
        "PGUSER": "shop",
        "PGDATABASE": "shop",
        "PGPASSFILE": str(credentials.password_file(places, site.name)),
        "PGCONNECT_TIMEOUT": "5",
    }


def _place(data: Path, site: Site, host: str) -> None:
    """Say in the configuration which host this is; the last value of a setting holds."""
    address, port = site.postgres[host]
    with (data / "postgresql.conf").open("a") as file:
        file.write(
            f"listen_addresses = '{address}'\nport = {port}\ncluster_name = '{site.name}-{host}'\n"
        )


def _accepts(data: Path) -> bool:
    """What pg_ctl looks at: the last line of postmaster.pid."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() in ("ready", "standby")


def _tool(
    argv: Sequence[Path | str],
    cwd: Path,
    account: Account,
    environment: Mapping[str, str] | None = None,
) -> None:
    result = subprocess.run(
        argv,
        cwd=cwd,
        env={**PLAIN, "HOME": str(cwd), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TOOL_SECONDS,
        start_new_session=True,
        check=False,
        **account.identity,
    )
    if result.returncode != 0:
        raise PermanentError(
            f"{Path(argv[0]).name} failed:\n{result.stderr.decode(errors='replace').strip()}",
            operation="lab up",
            domain=EAST.name,
        )


def forget_dead(data: Path) -> None:
    """Remove the mark of a server that was killed: its process id may be somebody else's now."""
    (data / "postmaster.pid").unlink(missing_ok=True)
