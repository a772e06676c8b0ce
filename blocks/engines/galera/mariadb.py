"""SQL on a host, through its own mariadb: no driver, no tunnel, no password outside stdin."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from blocks.agent.redaction import redacted
from blocks.artifact import wire
from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host

# What a shell reads from a here-document, some shells write to a disk first (bash before 5.1).
_WITH_LOGIN = """\
import os, sys
line, (program, *words) = b"", sys.argv[1:]
while not line.endswith(b"\\n"):
    line += os.read(0, 1) or b"\\n"
login = os.memfd_create("login", 0)
os.fchmod(login, 0o600)
os.write(login, b"[client]\\n" + line)
try:
    os.execv(program, [program, f"--defaults-file=/proc/self/fd/{login}", *words])
except OSError as error:
    sys.exit(f"{program}: {error.strerror}")
"""
"""Python: the first line of input becomes an option file in memory; the rest stays input."""
_AMBIENT = (
    *("MYSQL_HOST", "MARIADB_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT", "MARIADB_UNIX_PORT"),
    *("MYSQL_PWD", "MARIADB_TLS_DISABLE_PEER_VERIFICATION"),
)
_ALONE = ("env", *(f"-u{name}" for name in _AMBIENT))
"""What mariadb stands behind: what the account's environment says of servers is of another one,
and a host from there wins over a socket."""
_BEGIN = "farside asks"
_NUMBER = re.compile(r"^ERROR (\d+)(?: \(\w+\))?[ :]", re.MULTILINE)
_NEUTRAL = (
    "SET SESSION sql_mode='', autocommit=1, max_statement_time=0, sql_safe_updates=0,"
    " sql_select_limit=18446744073709551615, sql_big_selects=1, tx_read_only=0"
)
"""What a server, a database or a user has set must not change what farside's own sessions mean."""


class LoginRefused(PermanentError):
    """The server does not let this user in."""

    finding = FindingId.LOGIN_MISSING


class NotAllowed(LoginRefused):
    """The server lets this user in, but not do this."""


class Untrusted(PermanentError):
    """The server's certificate is not vouched for."""

    finding = FindingId.CA_UNKNOWN


class SqlError(PermanentError):
    """The server refused a statement; `number` says why in any language."""

    def __init__(self, message: str, *, number: int, **where: str) -> None:
        super().__init__(message, **where)
        self.number = number


_Kind = type[PermanentError | TransientError]
_KINDS: Mapping[int, tuple[_Kind, str]] = {
    **dict.fromkeys(
        (1045, 1044, 1698, 4151, 1820, 1862, 3118, 3159),
        (LoginRefused, "check the user and its password in the vault"),
    ),
    **dict.fromkeys((1142, 1143, 1227, 1370), (NotAllowed, "check the user's grants")),
    2026: (Untrusted, "compare the node's certificate with the plan's ca_file"),
    **dict.fromkeys(
        (2002, 2003, 2006, 2013, 1040, 1047, 1053, 1205, 1213, 1317),
        (TransientError, "see whether the node runs and is Synced"),
    ),
}
"""Error numbers of MariaDB's server and client."""


def literal(value: str) -> str:
    """A quoted text."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A quoted name."""
    return "`" + name.replace("`", "``") + "`"


def option(password: SecretStr) -> SecretStr:
    """A password as a line of an option file."""
    text = password.get_secret_value().replace("\\", "\\\\").replace('"', '\\"')
    return SecretStr(f'password="{text}"')


@dataclass(frozen=True, slots=True)
class Mariadb:
    """A user of one node, reached by the mariadb of `host`.

    Over the node's socket, without a password as the account of the host; else over the network.
    """

    host: Host
    bin_dir: str
    user: str
    socket: str = ""
    address: str = ""
    port: int = 0
    password: SecretStr | None = None
    ca_file: str = ""
    """Who must vouch for the server's certificate; empty: nobody."""
    neutral: bool = True
    """Whether the session is farside's own; an application's has what the server gives it."""
    timeout: float = 60.0

    def script(self, database: str, sql: str, *, timeout: float | None = None) -> str:
        """Run `sql`, stop at the first error; what it printed: lines of values between tabs.

        Raises LoginRefused, Untrusted, PermanentError (SQL error), TransientError (not there).
        """
        client = f"{self.bin_dir}/mariadb"
        options = ["--batch", "--skip-column-names", "--default-character-set=utf8mb4"]
        options += ["--connect-timeout=10", f"--user={self.user}"]
        if self.ca_file:
            options += [f"--ssl-ca={self.ca_file}", "--ssl-verify-server-cert"]
        if self.neutral:
            options.append(f"--init-command={_NEUTRAL}")
        if database:
            options.append(f"--database={database}")
        if self.password is None:
            argv = [client, "--no-defaults", *self._place(), *options]
        else:
            argv = [self.host.python, "-I", "-S", "-c", _WITH_LOGIN, client]
            argv += [*self._place(), *options]
        done = self.host.run(
            [*_ALONE, *argv],
            input=f"SELECT '{_BEGIN}';\n{sql}".encode(),
            password=option(self.password) if self.password else None,
            timeout=timeout or self.timeout,
            check=False,
        )
        if done.exit_code == 0:
            # A wrapper around mariadb may print something first.
            said = done.stdout.decode(errors="replace")
            _, begun, answers = said.partition(f"{_BEGIN}\n")
            return answers if begun else said
        raise self._error(done.stderr.decode(errors="replace"))

    def rows(self, sql: str, *, timeout: float | None = None) -> list[list[str]]:
        """The rows of a query, each a list of texts; NULL is the text NULL. Raises as `script`."""
        lines = _lines(self.script("", f"{sql.strip().rstrip(';')};", timeout=timeout))
        return [[_plain(cell) for cell in line.split("\t")] for line in lines]

    def objects(self, sql: str, *, timeout: float | None = None) -> list[Any]:
        """The rows of a query whose only column is JSON. Raises as `script`."""
        # What mariadb escapes for its own sake is unescaped first.
        lines = _lines(self.script("", f"{sql.strip().rstrip(';')};", timeout=timeout))
        return [wire.parsed(_plain(line)) for line in lines]

    def value(self, database: str, sql: str, *, timeout: float | None = None) -> str:
        """The only value of a query, NULL as the text NULL. Raises as `script`."""
        query = f"{sql.strip().rstrip(';')};"
        lines = _lines(self.script(database, query, timeout=timeout))
        if len(lines) != 1 or "\t" in lines[0]:
            raise PermanentError(
                f"the query yields {len(lines)} rows; a check needs exactly one value",
                operation="mariadb",
                domain=self.host.domain,
                host=self.host.name,
            )
        return _plain(lines[0])

    def status(self) -> dict[str, str]:
        """What the node says of its part in the cluster. Raises as `script`."""
        return {row[0]: row[-1] for row in self.rows("SHOW GLOBAL STATUS LIKE 'wsrep%'")}

    def _place(self) -> list[str]:
        if self.socket:
            return [f"--socket={self.socket}"]
        return [f"--host={self.address}", f"--port={self.port}", "--protocol=tcp"]

    def _error(self, stderr: str) -> PermanentError | TransientError:
        text = redacted(" ".join(stderr.split()))[-1000:] or "mariadb failed without a word"
        where = f"{self.user!r} at {self.socket or f'{self.address}:{self.port}'}"
        # The statement that failed may be shown first, between two lines.
        number = _NUMBER.search(stderr.rpartition("--------------\n")[2])
        place = {"operation": "mariadb", "domain": self.host.domain, "host": self.host.name}
        if number and (known := _KINDS.get(int(number[1]))):
            kind, hint = known
            return kind(f"{where}: {text}", hint=hint, **place)
        message = f"{where}: {text}"
        if number:
            return SqlError(message, number=int(number[1]), **place)
        return PermanentError(message, **place)


def _lines(text: str) -> list[str]:
    """The rows of a batch: a value may hold whatever else Python takes for the end of a line."""
    return text.removesuffix("\n").split("\n") if text else []


def _plain(text: str) -> str:
    """A value without the escapes of mariadb's batch mode."""
    marks = {"\\n": "\n", "\\t": "\t", "\\0": "\0", "\\\\": "\\"}
    return re.sub(r"\\[nt0\\]", lambda found: marks[found[0]], text)
