"""The database of a plan while it is alive in east: what differs for drills from one to another."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg

from blocks.engines.etcd import Etcd
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.engines.galera import Galera
from blocks.engines.galera.mariadb import Mariadb
from blocks.engines.postgres import Postgres
from blocks.plan.model import Plan
from deployments.lab import credentials, galera, lifecycle, postgres, processes
from deployments.lab.domains import Endpoint, Site
from deployments.lab.places import Places


class Live(Protocol):
    """What a drill of any database asks."""

    base: str
    """The object of a set that holds the data; the first of its volumes."""
    tools: tuple[str, str]
    """Two programs without which nothing is restored."""

    def bin(self, domain: str) -> Path:
        """Where a domain has its programs."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """Where clients reach it."""
        ...

    @property
    def data(self) -> Path:
        """Where the first node of the service is restored."""
        ...

    def grow(self, facts: Any) -> None:
        """Have the facts of a set say that the database is larger than any disk."""
        ...

    def left(self) -> list[str]:
        """What a rehearsal left in it."""
        ...


class LivePostgres:
    """East's primary."""

    base = "base.tar.zst.age.000"
    tools = ("psql", "pg_ctl")

    def __init__(self, places: Places, east: Site, plan: Plan) -> None:
        assert isinstance(plan.engine, Postgres)
        self._places = places
        self._east = east
        self._engine = plan.engine

    def bin(self, domain: str) -> Path:
        """See Live."""
        return self._places.postgres_bin(domain)

    @property
    def endpoint(self) -> Endpoint:
        """See Live."""
        return self._east.postgres[postgres.PRIMARY]

    @property
    def data(self) -> Path:
        """See Live."""
        return Path(self._engine.target.data_dir)

    def grow(self, facts: Any) -> None:
        """See Live."""
        facts["databases"][0]["bytes"] = 2**60

    def left(self) -> list[str]:
        """See Live."""
        slots = "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'farside%'"
        return [f"slot {name}" for (name,) in self.sql(slots)]

    def sql(self, *statements: str, database: str = "shop") -> list[tuple[Any, ...]]:
        """Run statements as superuser; the rows of the last one."""
        address, port = self.endpoint
        with psycopg.connect(
            host=address,
            port=port,
            user="postgres",
            password=credentials.secret(self._places, "east", "postgres-password"),
            dbname=database,
            autocommit=True,
        ) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def sql_undone(self, *statements: str, undo: tuple[str, ...]) -> Iterator[None]:
        """Statements, and at the end those that undo them."""
        self.sql(*statements)
        try:
            yield
        finally:
            self.sql(*undo)

    def restart(self) -> None:
        """Stop the primary and start it, so that it reads its configuration."""
        primary = postgres.service(self._places, self._east, postgres.PRIMARY)
        processes.stop(self._places, primary, signal.SIGINT)
        lifecycle.up(self._places, None, lambda _step: None)


class LiveEtcd:
    """East's cluster."""

    base = "snapshot.db.zst.age.000"
    tools = ("etcdctl", "etcd")

    def __init__(self, places: Places, east: Site, plan: Plan) -> None:
        assert isinstance(plan.engine, Etcd)
        self._places = places
        self._east = east
        self._plan = plan
        self.engine = plan.engine

    def bin(self, domain: str) -> Path:
        """See Live."""
        return self._places.etcd_bin(domain)

    @property
    def snapshot_tool(self) -> str:
        """The program that restores a snapshot in west."""
        return "etcdutl" if (self.bin("west") / "etcdutl").exists() else "etcdctl"

    @property
    def endpoint(self) -> Endpoint:
        """See Live."""
        return self._east.etcd[self.engine.source.host][0]

    @property
    def peer(self) -> str:
        """Where the other members of east reach the one at `endpoint`."""
        address, port = self._east.etcd[self.engine.source.host][1]
        return f"https://{address}:{port}"

    @property
    def data(self) -> Path:
        """See Live."""
        return Path(self.engine.target.members[0].data_dir)

    def grow(self, facts: Any) -> None:
        """See Live."""
        facts["bytes"] = 2**60

    def left(self) -> list[str]:
        """See Live: a snapshot makes nothing there."""
        return []

    def ctl(self) -> Etcdctl:
        """Its administrator."""
        self._plan.source.close()  # east's hosts were lost since: what was open is dead
        return self.engine.living(self._plan.source)

    @contextmanager
    def value(self, key: str, value: str) -> Iterator[None]:
        """A key with a value, then removed."""
        self.ctl().put(key, value)
        try:
            yield
        finally:
            self.ctl().text("del", key)


class LiveGalera:
    """East's cluster, by its first node."""

    base = "backup.xb.zst.age.000"
    tools = ("mbstream", "mariadb-backup")

    def __init__(self, places: Places, east: Site, plan: Plan) -> None:
        assert isinstance(plan.engine, Galera)
        self._places = places
        self._east = east
        self._plan = plan
        self.engine = plan.engine

    def bin(self, domain: str) -> Path:
        """See Live."""
        return self._places.galera_bin(domain)

    def address(self, number: int) -> str:
        """Where one of the nodes is, by its place in the plan."""
        return self.engine.source.nodes[number].address

    @property
    def endpoint(self) -> Endpoint:
        """See Live."""
        first = self.engine.source.nodes[0]
        return first.address, first.port

    @property
    def data(self) -> Path:
        """See Live."""
        return Path(self.engine.target.nodes[0].data_dir)

    def grow(self, facts: Any) -> None:
        """See Live."""
        facts["bytes"] = 2**60

    def left(self) -> list[str]:
        """See Live: a backup makes nothing there."""
        return []

    def sql(self, statement: str) -> None:
        """Run a statement in the application's database, as administrator."""
        self._plan.source.close()  # east's hosts were lost since: what was open is dead
        host = self._plan.source.host(self.engine.source.nodes[0].host)
        account = host.run(["id", "-un"]).text.strip()
        socket = galera.socket(self._places, host.name)
        Mariadb(host, galera.BIN, account, socket=str(socket)).script("shop", f"{statement};")

    @contextmanager
    def sql_undone(self, statement: str, *, undo: str) -> Iterator[None]:
        """A statement, and at the end the one that undoes it."""
        self.sql(statement)
        try:
            yield
        finally:
            self.sql(undo)


def live(places: Places, east: Site, plan: Plan) -> LivePostgres | LiveEtcd | LiveGalera:
    """The database of a plan."""
    match plan.engine:
        case Etcd():
            return LiveEtcd(places, east, plan)
        case Galera():
            return LiveGalera(places, east, plan)
        case _:
            return LivePostgres(places, east, plan)
