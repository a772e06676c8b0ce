"""The writer's client of PostgreSQL; database and role are in the environment, as libpq reads it.

Its load is not the writer's: pgbench runs beside it.
"""

import psycopg

LOST = (psycopg.OperationalError,)


class Client:
    """A session, which commits each statement."""

    def __init__(self) -> None:
        self._connection: psycopg.Connection[tuple[int]]
        self._connection = psycopg.connect("", autocommit=True)

    def committed(self, last: int) -> int:
        """See `writer.Client`."""
        del last
        row = self._connection.execute("SELECT coalesce(max(id), 0) FROM heartbeat").fetchone()
        return row[0] if row else 0

    def write(self, number: int) -> None:
        """See `writer.Client`."""
        self._connection.execute("INSERT INTO heartbeat (id, at) VALUES (%s, now())", [number])

    def load(self, number: int) -> None:
        """None."""

    def close(self) -> None:
        """See `writer.Client`."""
        self._connection.close()


def connect(attempt: int) -> Client:
    """Connect to the primary. Raises psycopg.OperationalError."""
    del attempt  # there is one server
    return Client()
