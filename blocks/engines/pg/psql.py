"""SQL on a host, through its own psql: no driver, no tunnel, no password outside stdin."""

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from blocks.errors import PermanentError, TransientError
from blocks.hosts import Host

_BUSY = re.compile(
    r"could not connect|connection to server|the database system is|server closed the connection"
    r"|too many clients|remaining connection slots"
)
_REFUSED = re.compile(
    r"password authentication failed|no pg_hba\.conf entry|role .* does not exist"
    r"|is not permitted to log in|permission denied"
)


UNHURRIED = "-c statement_timeout=0 -c lock_timeout=0"
"""Session options: what a site sets for its applications would cut long questions short."""
UNHURRIED_LATER = "SET statement_timeout = 0; SET lock_timeout = 0;\n"
"""The same as statements, which leave visible what the server's own defaults are."""

PATIENT_WITH_PRODUCTION = (
    "-c lock_timeout=5s -c statement_timeout=50s -c client_connection_check_interval=5s"
)
"""Never wait in production's queue, and leave no session there when nobody asks any more."""


class LoginRefused(PermanentError):
    """The server does not let this role in."""

    finding = "login-missing"


def quote_conninfo(value: str) -> str:
    """A value inside a connection string (libpq, section Connection Strings)."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def literal(value: str) -> str:
    """A text literal that is safe whatever standard_conforming_strings says."""
    return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Psql:
    """A role on one server, reached by the psql of `host`.

    With a password, psql is made to ask for it and reads it as the first line of standard
    input: it has no terminal, so it never appears in argv, the environment or a file.
    """

    host: Host
    bin_dir: str
    server: str
    """Address, or the directory of a Unix socket."""
    port: int
    role: str
    password: SecretStr | None = None
    timeout: float = 60.0
    options: str = ""
    """Settings of the session, in force from its start, as in a connection string."""
    preamble: str = ""
    """Statements before each script, where the server's own defaults are to be seen in it."""

    def script(self, database: str, sql: str, *, timeout: float | None = None) -> str:
        """Run `sql`, stop at the first error; what it printed, unaligned, tuples only.

        Raises LoginRefused, PermanentError (SQL error), TransientError (server not there).
        """
        conninfo = " ".join(
            f"{key}={quote_conninfo(value)}"
            for key, value in (
                ("host", self.server),
                ("port", str(self.port)),
                ("user", self.role),
                ("dbname", database),
                ("connect_timeout", "10"),
                ("application_name", "farside"),
                ("options", self.options),
            )
        )
        argv = [f"{self.bin_dir}/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        argv += ["-W" if self.password else "-w", "-d", conninfo]
        secret = f"{self.password.get_secret_value()}\n" if self.password else ""
        done = self.host.run(
            argv,
            input=(secret + self.preamble + sql).encode(),
            timeout=timeout or self.timeout,
            check=False,
        )
        if done.exit_code == 0:
            return done.stdout.decode(errors="replace")
        raise self._error(database, done.stderr.decode(errors="replace"))

    def rows(self, database: str, sql: str, *, timeout: float | None = None) -> list[Any]:
        """The rows of one query, each a JSON object. Raises as `script`."""
        text = self.script(
            database,
            "SET client_min_messages = warning; SET timezone = 'UTC';\n"
            f"SELECT coalesce(json_agg(t), '[]') FROM (\n{sql}\n) t;",
            timeout=timeout,
        )
        rows: list[Any] = json.loads(text)
        return rows

    def value(self, database: str, sql: str, *, timeout: float | None = None) -> str | None:
        """The only value of a query as psql prints it; None for NULL or no row.

        Raises as `script`.
        """
        rows = self.rows(
            database,
            "SELECT n, CASE WHEN first IS NOT NULL THEN format('%s', first) END AS value FROM"
            " (SELECT (array_agg(v))[1] AS first, count(*) AS n"
            f" FROM (\n{sql}\n) AS q(v)) AS counted",
            timeout=timeout,
        )
        if rows[0]["n"] > 1:
            raise PermanentError(
                f"the query yields {rows[0]['n']} rows; a check needs exactly one value",
                operation="psql",
                host=self.host.name,
            )
        answer: str | None = rows[0]["value"]
        return answer

    def _error(self, database: str, stderr: str) -> PermanentError | TransientError:
        lines = [line for line in stderr.splitlines() if not line.startswith("Password")]
        text = " ".join(lines).removeprefix("psql: ").strip() or "psql failed without a word"
        where = f"database {database!r} as {self.role!r} at {self.server}:{self.port}"
        if "FATAL" in text and _REFUSED.search(text):
            return LoginRefused(
                f"{where}: {text}",
                operation="psql",
                host=self.host.name,
                hint="check the role, its password in the vault, and pg_hba.conf",
            )
        kind = TransientError if _BUSY.search(text) else PermanentError
        return kind(f"{where}: {text}", operation="psql", host=self.host.name)
