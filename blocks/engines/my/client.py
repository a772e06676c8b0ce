"""SQL on a host, through its own mariadb: no driver, no tunnel, no password outside stdin."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from blocks.errors import PermanentError, TransientError
from blocks.hosts import Host

_WITH_LOGIN = """\
IFS= read -r line
exec 3<<END
[client]
$line
END
exec "$@"
"""
"""Shell: the first line of input becomes an option file, which is a pipe; the rest stays input."""
_NOT_THERE = re.compile(
    r"ERROR (2002|2003|2006|2013|1040|1047|1053|1205|1213|1317) |Can't connect|Lost connection"
)
_REFUSED = re.compile(r"ERROR (1045|1044|1698|4151) ")
_FORBIDDEN = re.compile(r"ERROR (1142|1143|1227|1370) ")
_UNTRUSTED = re.compile(r"ERROR 2026 |certificate")


class LoginRefused(PermanentError):
    """The server does not let this user in."""

    finding = "login-missing"


class NotAllowed(LoginRefused):
    """The server lets this user in, but not do this."""


class Untrusted(PermanentError):
    """The server's certificate is not vouched for."""

    finding = "ca-unknown"


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

    With a password over the network, else over the node's socket as the account of the host.
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
    timeout: float = 60.0

    def script(self, database: str, sql: str, *, timeout: float | None = None) -> str:
        """Run `sql`, stop at the first error; what it printed: lines of values between tabs.

        Raises LoginRefused, Untrusted, PermanentError (SQL error), TransientError (not there).
        """
        client = [f"{self.bin_dir}/mariadb"]
        options = ["--batch", "--skip-column-names", "--default-character-set=utf8mb4"]
        options += ["--connect-timeout=10", f"--user={self.user}"]
        if self.ca_file:
            options += [f"--ssl-ca={self.ca_file}", "--ssl-verify-server-cert"]
        if database:
            options.append(f"--database={database}")
        secret = b""
        if self.password is None:
            argv = [*client, "--no-defaults", f"--socket={self.socket}", *options]
        else:
            argv = ["sh", "-c", _WITH_LOGIN, "sh", *client, "--defaults-file=/dev/fd/3"]
            argv += [f"--host={self.address}", f"--port={self.port}", "--protocol=tcp", *options]
            secret = f"{option(self.password).get_secret_value()}\n".encode()
        done = self.host.run(
            argv, input=secret + sql.encode(), timeout=timeout or self.timeout, check=False
        )
        if done.exit_code == 0:
            return done.stdout.decode(errors="replace")
        raise self._error(done.stderr.decode(errors="replace"))

    def rows(self, sql: str, *, timeout: float | None = None) -> list[list[str]]:
        """The rows of a query, each a list of texts; NULL is the text NULL. Raises as `script`."""
        lines = _lines(self.script("", f"{sql.strip().rstrip(';')};", timeout=timeout))
        return [[_plain(cell) for cell in line.split("\t")] for line in lines]

    def objects(self, sql: str, *, timeout: float | None = None) -> list[Any]:
        """The rows of a query whose only column is JSON. Raises as `script`."""
        # What mariadb escapes for its own sake is unescaped first.
        lines = _lines(self.script("", f"{sql.strip().rstrip(';')};", timeout=timeout))
        return [json.loads(_plain(line)) for line in lines]

    def value(self, database: str, sql: str, *, timeout: float | None = None) -> str:
        """The only value of a query, NULL as the text NULL. Raises as `script`."""
        query = f"{sql.strip().rstrip(';')};"
        lines = _lines(self.script(database, query, timeout=timeout))
        if len(lines) != 1 or "\t" in lines[0]:
            raise PermanentError(
                f"the query yields {len(lines)} rows; a check needs exactly one value",
                operation="mariadb",
                host=self.host.name,
            )
        return _plain(lines[0])

    def status(self) -> dict[str, str]:
        """What the node says of its part in the cluster. Raises as `script`."""
        return {row[0]: row[-1] for row in self.rows("SHOW GLOBAL STATUS LIKE 'wsrep%'")}

    def _error(self, stderr: str) -> PermanentError | TransientError:
        text = " ".join(stderr.split())[-1000:] or "mariadb failed without a word"
        where = f"{self.user!r} at {self.socket or f'{self.address}:{self.port}'}"
        kinds: Sequence[tuple[re.Pattern[str], type[PermanentError | TransientError], str]] = (
            (_REFUSED, LoginRefused, "check the user and its password in the vault"),
            (_FORBIDDEN, NotAllowed, "check the user's grants"),
            (_UNTRUSTED, Untrusted, "compare the node's certificate with the plan's ca_file"),
            (_NOT_THERE, TransientError, "see whether the node runs and is Synced"),
        )
        for pattern, kind, hint in kinds:
            if pattern.search(text):
                return kind(f"{where}: {text}", operation="mariadb", host=self.host.name, hint=hint)
        return PermanentError(f"{where}: {text}", operation="mariadb", host=self.host.name)


def _lines(text: str) -> list[str]:
    """The rows of a batch: a value may hold whatever else Python takes for the end of a line."""
    return text.removesuffix("\n").split("\n") if text else []


def _plain(text: str) -> str:
    """A value without the escapes of mariadb's batch mode."""
    marks = {"\\n": "\n", "\\t": "\t", "\\0": "\0", "\\\\": "\\"}
    return re.sub(r"\\[nt0\\]", lambda found: marks[found[0]], text)
