"""The writer's client of Galera, through MariaDB's own: LOGIN_FILE ADDRESS:PORT...

Its load moves an amount from one account to another: the sum of all balances stays 0.
"""

import random
import subprocess

LOST = (OSError, ValueError)
ACCOUNTS, TRANSFERS_EACH_BEAT = 1000, 5
CLIENT = "/usr/bin/mariadb"


class Client:
    """A session at one node."""

    def __init__(self, endpoint: str, login_file: str) -> None:
        address, _, port = endpoint.rpartition(":")
        argv = [CLIENT, f"--defaults-file={login_file}", f"--host={address}", f"--port={port}"]
        argv += ["--batch", "--skip-column-names", "--unbuffered", "--connect-timeout=5", "shop"]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def committed(self, last: int) -> int:
        """See `writer.Client`."""
        del last
        self._value("SET SESSION wsrep_sync_wait = 1; SELECT 1")
        return int(self._value("SELECT COALESCE(MAX(id), 0) FROM heartbeat"))

    def write(self, number: int) -> None:
        """See `writer.Client`."""
        self._value(f"INSERT INTO heartbeat VALUES ({number}, UTC_TIMESTAMP(6)); SELECT 1")

    def load(self, number: int) -> None:
        """Transfers, each in one transaction."""
        del number
        for _ in range(TRANSFERS_EACH_BEAT):
            payer, payee = random.sample(range(1, ACCOUNTS + 1), 2)
            amount = random.randrange(1, 100)
            self._value(
                f"BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {payer};"
                f" UPDATE accounts SET balance = balance + {amount} WHERE id = {payee};"
                " INSERT INTO transfers (payer, payee, amount, at)"
                f" VALUES ({payer}, {payee}, {amount}, UTC_TIMESTAMP(6)); COMMIT; SELECT 1"
            )

    def close(self) -> None:
        """See `writer.Client`."""
        self._process.kill()
        self._process.communicate()

    def _value(self, sql: str) -> str:
        """The value that the last of some statements yields. Raises ConnectionError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{sql};\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ConnectionError("the session has ended")
        return line.strip()


def connect(attempt: int, login_file: str, *endpoints: str) -> Client:
    """A session at one of the nodes, each time at the next."""
    return Client(endpoints[attempt % len(endpoints)], login_file)
