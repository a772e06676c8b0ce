"""East's primary as drills see it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from blocks.engines.postgres import Postgres
from blocks.plan.model import Plan
from deployments.lab import credentials, lifecycle, processes
from deployments.lab.parts import postgres
from deployments.lab.places import Places
from deployments.lab.site import Endpoint, Site


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
        return postgres.programs(self._places, domain)

    @property
    def endpoint(self) -> Endpoint:
        """See Live."""
        return postgres.listens(self._east, postgres.PRIMARY)

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
