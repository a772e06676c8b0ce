"""The application's writer to Galera: a heartbeat, a note of each acknowledgement, and some load.

    python3 galera_writer.py LEDGER LOGIN_FILE ADDRESS:PORT...

Runs from the domain's own runtime, on the application's host, through MariaDB's own client. The
ledger is as that of heartbeat.py. A transfer moves an amount from one account to another: the sum
of all balances stays 0.
"""

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

INTERVAL_SECONDS = 0.2
ACCOUNTS, TRANSFERS_EACH_BEAT = 1000, 5
CLIENT = "/usr/bin/mariadb"


class Connection:
    """A session at one node."""

    def __init__(self, endpoint: str, login_file: Path) -> None:
        address, _, port = endpoint.rpartition(":")
        argv = [CLIENT, f"--defaults-file={login_file}", f"--host={address}", f"--port={port}"]
        argv += ["--batch", "--skip-column-names", "--unbuffered", "--connect-timeout=5", "shop"]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def value(self, sql: str) -> str:
        """The value that the last of some statements yields. Raises ConnectionError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{sql};\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ConnectionError("the session has ended")
        return line.strip()

    def close(self) -> None:
        """End the session, whatever state it is in."""
        self._process.kill()
        self._process.communicate()


def beat(connection: Connection, ledger: TextIO, last: int) -> None:
    """Write until the connection breaks. `last` is the last number in the ledger."""
    connection.value("SET SESSION wsrep_sync_wait = 1; SELECT 1")
    committed = int(connection.value("SELECT COALESCE(MAX(id), 0) FROM heartbeat"))
    # Committed, but the writer was not told: told now, for no number may be left out.
    for number in range(last + 1, committed + 1):
        note(ledger, number)
    number, due = max(last, committed), time.monotonic()
    while True:
        number += 1
        connection.value(f"INSERT INTO heartbeat VALUES ({number}, UTC_TIMESTAMP(6)); SELECT 1")
        note(ledger, number)
        for _ in range(TRANSFERS_EACH_BEAT):
            transfer(connection)
        due = max(due + INTERVAL_SECONDS, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def transfer(connection: Connection) -> None:
    """Move an amount between two accounts, in one transaction."""
    payer, payee = random.sample(range(1, ACCOUNTS + 1), 2)
    amount = random.randrange(1, 100)
    connection.value(
        f"BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {payer};"
        f" UPDATE accounts SET balance = balance + {amount} WHERE id = {payee};"
        " INSERT INTO transfers (payer, payee, amount, at)"
        f" VALUES ({payer}, {payee}, {amount}, UTC_TIMESTAMP(6)); COMMIT; SELECT 1"
    )


def note(ledger: TextIO, number: int) -> None:
    """Note that a beat's commit was acknowledged."""
    ledger.write(f"{number}\t{datetime.now(UTC).isoformat()}\n")
    ledger.flush()


def last_number(path: Path) -> int:
    """The last number in the ledger, 0 if it is empty."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return 0
    return int(lines[-1].split("\t")[0]) if lines else 0


def main(path: Path, login_file: Path, endpoints: Sequence[str]) -> None:
    """Write for ever; go on at the next node whenever a session is lost."""
    for endpoint in itertools.cycle(endpoints):
        connection = Connection(endpoint, login_file)
        try:
            with path.open("a") as ledger:
                beat(connection, ledger, last_number(path))
        except (OSError, ValueError) as error:
            print(f"{datetime.now(UTC).isoformat()} {error}", file=sys.stderr, flush=True)
            time.sleep(INTERVAL_SECONDS)
        finally:
            connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
