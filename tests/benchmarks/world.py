"""Where the benchmarks run: a lab of their own, with a database that is worth moving."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from blocks.agent.protocol.events import Done
from blocks.agent.protocol.jobs import Job
from blocks.domain import FailureDomain
from blocks.engines.postgres import Postgres
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from blocks.remote.leases import Leases
from blocks.remote.run import AgentRun
from blocks.stores.s3 import S3Store
from deployments import lab
from deployments.lab import credentials, processes, runtime
from deployments.lab.accounts import Account, service_account
from deployments.lab.domains import EAST, WEST
from deployments.lab.parts import postgres
from deployments.lab.places import Network, Places
from deployments.lab.site import Site
from deployments.lab.state import load_state

ID = "r20000101-000000-bench0"
"""Stands in for a rehearsal's: names the work directories on the lab's hosts."""

PREFIX = "bench/"
_PGBENCH_SCALE = 15_000_000
_ROW = 64 * 1024
_BASE_BACKUP = ("-F", "tar", "-X", "none", "-c", "fast", "--no-sync", "-D", "-")


@dataclass(frozen=True, slots=True)
class World:
    """A lab that is up, quiet, and filled."""

    folder: Path
    places: Places
    plan: Plan
    account: Account
    environment: Mapping[str, str]

    @property
    def database(self) -> str:
        """How the primary is reached for a backup."""
        source = _engine(self.plan).source
        return f"host={source.address} port={source.port} user=replicator"

    @property
    def password(self) -> str:
        """The replication role's."""
        return credentials.secret(self.places, EAST.name, "replication-password")

    @property
    def identity(self) -> str:
        """The private key that west opens backups with."""
        return credentials.secret(self.places, WEST.name, "farside-age-identity").strip()

    @property
    def sites(self) -> tuple[Site, Site]:
        """Both domains' networks."""
        state = load_state(self.places)
        assert state is not None
        return state.sites

    @property
    def base_backup(self) -> tuple[str, ...]:
        """`pg_basebackup` to standard output, the same command for both sides."""
        program = postgres.programs(self.places, EAST.name) / "pg_basebackup"
        return (str(program), "-d", self.database, *_BASE_BACKUP)

    def recovered(self, domain: str = WEST.name) -> Path:
        """A directory on a host's own disk, in which the account may make others."""
        return self.places.host(domain, "db1")

    def run_ours(self, domain: FailureDomain, host: str, job: Job, leases: Leases) -> Done:
        """A job of the agent on a host, through SSH."""
        with AgentRun(domain.host(host), ID, job, leases) as run:
            return run.run()

    def run_theirs(self, script: str) -> None:
        """A shell pipeline, as the account that the agent runs as."""
        subprocess.run(
            ["bash", "-o", "pipefail", "-c", script],
            env={**self.environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=1800,
            **self.account.identity,
        )


@contextmanager
def world(size: int, network: Network = "loopback") -> Iterator[World]:
    """A lab with a database of `size` bytes, half of which does not compress. Removed at the end.

    pgbench's rows compress 15:1 and would flatter whoever is slow with bulk.
    """
    folder = Path(tempfile.mkdtemp(prefix="farside-benchmarks-"))
    folder.chmod(0o755)  # as root the lab's services run as another account
    places = Places.at(folder / "lab")
    try:
        scale = max(1, size // 2 // _PGBENCH_SCALE)
        lab.up(places.root, scale, network=network)
        _quieten(places)
        plan = load_plan(lab.plan_path(places.root, "postgres"))
        _add_noise(places, plan, max(_ROW, size - scale * _PGBENCH_SCALE))
        yield World(folder, places, plan, service_account(), _environment(folder, places, plan))
        plan.source.close()
        plan.recovery.close()
    finally:
        lab.down(places.root)
        shutil.rmtree(folder)


def _quieten(places: Places) -> None:
    """What the load and the standby do is not what is measured."""
    state = load_state(places)
    assert state is not None
    east: Site = state.sites[0]
    names = [
        writer.name for writer in (postgres.heartbeat(places, east), postgres.load(places, east))
    ]
    for name in (*names, postgres.service(places, east, postgres.STANDBY).name):
        processes.kill_service(places, name)


def _engine(plan: Plan) -> Postgres:
    assert isinstance(plan.engine, Postgres)
    return plan.engine


def _add_noise(places: Places, plan: Plan, size: int) -> None:
    source = _engine(plan).source
    with psycopg.connect(
        host=source.address,
        port=source.port,
        user=source.superuser,
        password=credentials.secret(places, EAST.name, "postgres-password"),
        dbname="shop",
        autocommit=True,
    ) as connection:
        connection.execute("CREATE TABLE noise (id bigint, body bytea STORAGE EXTERNAL)")
        with connection.cursor().copy("COPY noise FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "bytea"])
            for number in range(size // _ROW):
                copy.write_row((number, os.urandom(_ROW)))
        connection.execute("CHECKPOINT")


def _environment(folder: Path, places: Places, plan: Plan) -> dict[str, str]:
    """What the reference commands need: both stores as rclone's remotes, and the password."""
    authorities = folder / "authorities.pem"
    authorities.write_text("".join(_store(d).ca_pem or "" for d in (plan.source, plan.recovery)))
    identity = folder / "identity"
    identity.write_text(credentials.secret(places, WEST.name, "farside-age-identity"))
    service_account().own(identity)
    identity.chmod(0o600)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "PGPASSWORD": credentials.secret(places, EAST.name, "replication-password"),
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CA_CERT": str(authorities),
        "RCLONE": str(runtime.rclone(places, WEST.name)),
        "IDENTITY": str(identity),
    }
    for domain in (plan.source, plan.recovery):
        store = _store(domain)
        access, secret = credentials.store_key(places, domain.name)
        remote = f"RCLONE_CONFIG_{domain.name.upper()}"
        environment |= {
            f"{remote}_TYPE": "s3",
            f"{remote}_PROVIDER": "Rclone",
            f"{remote}_ENDPOINT": store.endpoint or "",
            f"{remote}_REGION": store.region,
            f"{remote}_ACCESS_KEY_ID": access,
            f"{remote}_SECRET_ACCESS_KEY": secret,
        }
    return environment


def _store(domain: FailureDomain) -> S3Store:
    assert isinstance(domain.store, S3Store)
    return domain.store
