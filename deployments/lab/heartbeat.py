"""The application's pulse: commits a row several times a second and notes each acknowledgement.

    python3 heartbeat.py LEDGER

Runs from the domain's own runtime, on the application's host; the database and the role are in
the environment, as libpq reads it. The ledger is outside the
database and outside the domain: one line for each row, its id, a tab and the UTC time at which
its commit was known to be acknowledged. Ids have no gaps.
"""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import psycopg

INTERVAL_SECONDS = 0.2


def beat(connection: "psycopg.Connection[tuple[int]]", ledger: TextIO, last: int) -> None:
    """Write rows until the connection breaks. `last` is the last id in the ledger."""
    row = connection.execute("SELECT coalesce(max(id), 0) FROM heartbeat").fetchone()
    committed = row[0] if row else 0
    # Committed, but the writer died or lost its connection before it was told: told now.
    for number in range(last + 1, committed + 1):
        note(ledger, number)
    number = max(last, committed)
    due = time.monotonic()
    while True:
        number += 1
        connection.execute("INSERT INTO heartbeat (id, at) VALUES (%s, now())", [number])
        note(ledger, number)
        due = max(due + INTERVAL_SECONDS, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def note(ledger: TextIO, number: int) -> None:
    """Note that a row's commit was acknowledged."""
    ledger.write(f"{number}\t{datetime.now(UTC).isoformat()}\n")
    ledger.flush()


def last_id(path: Path) -> int:
    """The last id in the ledger, 0 if it is empty."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return 0
    return int(lines[-1].split("\t")[0]) if lines else 0


def main(path: Path) -> None:
    """Write for ever; connect again whenever the connection is lost."""
    while True:
        try:
            with (
                psycopg.connect("", autocommit=True) as connection,
                path.open("a") as ledger,
            ):
                beat(connection, ledger, last_id(path))
        except psycopg.OperationalError as error:
            print(f"{datetime.now(UTC).isoformat()} {error}", file=sys.stderr, flush=True)
            time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
