"""What runs PostgreSQL in east: a primary, a streaming standby, and the application's writers."""

from pathlib import Path

from blocks.settings import lab_load
from deployments.lab.credentials import password_file
from deployments.lab.domains import EAST, Site
from deployments.lab.places import Places
from deployments.lab.processes import Service

PRIMARY, STANDBY = EAST.databases
#: Clients on a rate of transactions a second that two cores hardly notice.
LOAD_CLIENTS = 4
_FOREVER_SECONDS = 10**9


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
        namespace=site.namespace(host),
    )


def load(places: Places, site: Site) -> Service:
    """pgbench, until it is killed."""
    home = places.host(site.name, "app")
    pgbench = places.postgres_bin(site.name) / "pgbench"
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
    ledger = places.ledger / "heartbeat.tsv"
    script = places.runtime(site.name) / "heartbeat.py"
    return Service(
        name=f"{site.name}-heartbeat",
        tree=places.tree(site.name),
        argv=(str(places.python(site.name)), "-P", str(script), str(ledger)),
        cwd=places.host(site.name, "app"),
        log=places.logs(site.name) / "heartbeat.log",
        ready=lambda: ledger.exists() and ledger.stat().st_size > 0,
        namespace=site.namespace("app"),
        environment=application_environment(places, site),
    )


def application_environment(places: Places, site: Site) -> dict[str, str]:
    """How the application's host reaches the primary, as libpq reads it."""
    address, port = site.postgres[PRIMARY]
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
