"""Makes east's databases: the primary, its content, and the standby."""

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
from cryptography.fernet import Fernet
from psycopg import sql

from blocks.errors import PermanentError
from deployments.lab import credentials, postgres, processes
from deployments.lab.accounts import Account
from deployments.lab.domains import EAST, Site
from deployments.lab.places import Places, write
from deployments.lab.postgres import PRIMARY, STANDBY, application_environment, data_directory
from deployments.lab.processes import PLAIN, Service

_TOOL_SECONDS = 600
_SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "50",
    "max_wal_size": "2GB",
    "wal_keep_size": "512MB",
    "max_slot_wal_keep_size": "4GB",
    # Loopback labs may be in directories too long for a Unix socket.
    "unix_socket_directories": "",
    # Shared memory in files of the data directory: nothing is left in /dev/shm by a kill.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_FILLING = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "off",
    "shared_buffers": "256MB",
}
_NOTES = 5
# On loopback callers have any address of 127.0.0.0/8, which is the same network, too.
_ACCESS = """\
# TYPE  DATABASE     USER        ADDRESS  METHOD
host    all          all         samenet  scram-sha-256
host    replication  replicator  samenet  scram-sha-256
"""


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
    """Roles, database and tables. Raises PermanentError.

    The server that they are made with writes no WAL for them and waits for no disk; it is never
    seen by anybody, and a lab that is not finished is thrown away.
    """
    service = filling_service(places, site)
    processes.start(places, service, account)
    processes.wait_ready(places, [service])
    _create_roles(places, site)
    _create_tables(places, site, account, scale)
    processes.stop(places, service, signal.SIGINT)


def filling_service(places: Places, site: Site) -> Service:
    """The primary while it is filled."""
    service = postgres.service(places, site, PRIMARY)
    options = [f"-c{name}={value}" for name, value in _FILLING.items()]
    return replace(service, name=f"{site.name}-filling", argv=(*service.argv, *options))


def make_standby(places: Places, site: Site, account: Account) -> None:
    """Copy the running primary to the standby's host. Raises PermanentError."""
    data = data_directory(places, STANDBY)
    unfinished = data.with_suffix(".new")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    address, port = site.postgres[PRIMARY]
    _tool(
        [
            places.postgres_bin(site.name) / "pg_basebackup",
            f"--pgdata={unfinished}",
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
    _place(unfinished, site, STANDBY)
    unfinished.rename(data)


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
    environment = application_environment(places, site)
    bin_directory, home = places.postgres_bin(site.name), places.host(site.name, "app")
    table = "CREATE TABLE heartbeat (id bigint PRIMARY KEY, at timestamptz NOT NULL)"
    _tool([bin_directory / "psql", "-XqAt", "-c", table], home, account, environment)
    notes = "CREATE TABLE notes (id int PRIMARY KEY, body text NOT NULL);"
    key = Fernet(credentials.secret(places, site.name, "shop-notes-key"))
    for number in range(1, _NOTES + 1):
        body = key.encrypt(f"note {number}".encode()).decode()
        notes += f" INSERT INTO notes VALUES ({number}, '{body}');"
    _tool([bin_directory / "psql", "-XqAt", "-c", notes], home, account, environment)
    pgbench: list[Path | str]
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


def _place(data: Path, site: Site, host: str) -> None:
    """Say in the configuration which host this is; the last value of a setting holds."""
    address, port = site.postgres[host]
    with (data / "postgresql.conf").open("a") as file:
        file.write(
            f"listen_addresses = '{address}'\nport = {port}\ncluster_name = '{site.name}-{host}'\n"
        )


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
