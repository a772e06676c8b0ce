"""SQL on a host, through its own psql: no driver, no tunnel, no password outside stdin."""

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import SecretStr

from blocks.agent.redaction import redacted
from blocks.artifact import wire
from blocks.engines.postgres.sessions import (
    ALONE,
    AMBIENT,
    AS_OWNER,
    AS_STORED,
    LOGIN_TRIGGERS_SINCE,
    NO_EVENT_TRIGGERS,
    NO_LOGIN_TRIGGERS,
    NO_TEMPORARY_LIMIT,
    NO_TRANSACTION_TIMEOUT,
    NO_VIEWS,
    OF_SITE,
    SEEING_DEFAULTS,
)
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host
from blocks.hosts.process import Completed

_BUSY = re.compile(
    r"the database system is|server closed the connection|too many (?:clients|connections)"
    r"|remaining connection slots"
)
# A server sees the end of a session late: the next one may not have its place yet.
_FULL, _FULL_SECONDS = re.compile(rb"too many (?:clients|connections)|remaining connection"), 5.0
_NO_DATABASE = re.compile(r'database ".*" does not exist')
_REFUSED = re.compile(
    r'authentication failed|password supplied|pg_hba\.conf|role ".*" does not exist'
    r"|not permitted to log in|permission denied|not currently accepting"
    r"|requires a valid client certificate|SSL (?:connection is )?required"
)
# Of a session that code refused as it began: psql tells no SQLSTATE of that, and the server itself
# refuses one without a context.
_CODE = re.compile(r"^CONTEXT: .*\bPL/", re.MULTILINE | re.DOTALL)
_SQLSTATE = re.compile(r"^(?:psql:[^\n]*?: )?[^\s:]+: +([0-9A-Z]{5}): ", re.MULTILINE)
_TRANSIENT = re.compile(r"08...|40...|53300|55P03|57P0[1-3]")
"""SQLSTATEs of what may succeed when it is tried again: no connection, no slot, no lock."""
_BEGIN = "farside asks"
"""What psql prints before the answers."""
_NO_CONNECTION, _SCRIPT_FAILED = 2, 3  # exit codes of psql

CLUSTER = ""
"""In the place of a database's name, which is never empty: the one where the server's own matters
are asked. That is `postgres`, unless it was dropped or lets nobody in."""


class LoginRefused(PermanentError):
    """The server does not let this role in."""

    finding = FindingId.LOGIN_MISSING


class RefusedByCode(LoginRefused):
    """Code of the site, an event trigger, ends each session of this role as it begins."""


class NoDatabase(PermanentError):
    """The server has no database of this name, as UTF-8: it compares names byte by byte."""


class Unexplained(TransientError):
    """A site's server begins no session, and says why in words that are not known here.

    psql tells no SQLSTATE of that, and the server's language is not this session's yet: the server
    may be full, or refuse the role, or have no such database.
    """


class SqlError(PermanentError):
    """The server refused a statement; `sqlstate` says why in any language."""

    def __init__(self, message: str, *, sqlstate: str, **where: str) -> None:
        super().__init__(message, **where)
        self.sqlstate = sqlstate


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
    options: str = field(kw_only=True)
    """Settings of the session, in force from its start: UNHURRIED or PATIENT_WITH_PRODUCTION for
    an administrator; none for an application, which meets what its own sessions meet. It has no
    default: an administrator's session that lacks them runs what users have defined."""
    preamble: str = ""
    """Statements before each script."""
    major: int = 0
    """The server's major version, for an administrator: code of the site's that runs at each login
    may refuse it, so event triggers are off where there can be such code. 0 leaves them on."""
    of_site: bool = False
    """Whether the server is the site's own: how it is secured is then as the account has it."""
    candidates: tuple[str, ...] = ("postgres", "template1")
    """What CLUSTER may stand for: the first of them that lets the role in."""
    chosen: list[str] = field(default_factory=list, compare=False, repr=False)
    """What it does stand for, once that is known: for this one, and for all made of it."""

    def entering(self, database: str) -> "Psql":
        """The same, where CLUSTER may stand for `database`, too.

        Before template1: nobody can make a database while somebody is in that one.
        """
        first, *others = self.candidates
        return replace(self, candidates=(first, database, *others), chosen=[])

    def seeing_defaults(self) -> "Psql":
        """An administrator's session in which pg_settings shows what other sessions get.

        Unqualified names are as safe in it as in others; timeouts are those of the site.
        """
        return replace(self, options="", preamble=SEEING_DEFAULTS)

    def script(self, database: str, sql: str, *, timeout: float | None = None) -> str:
        """Run `sql`, stop at the first error; what it printed, unaligned, tuples only.

        Raises LoginRefused, SqlError, NoDatabase, TransientError (server not there, or busy).
        """
        if database != CLUSTER:
            return self._script(database, sql, timeout)
        first = self.chosen[0] if self.chosen else self.candidates[0]
        try:
            text = self._script(first, sql, timeout)
        except SqlError:
            raise
        except (PermanentError, Unexplained) as error:
            if self.chosen or (other := self._other(first)) is None:
                raise error
            self.chosen.append(other)
            return self._script(other, sql, timeout)
        if not self.chosen:
            self.chosen.append(first)
        return text

    def _other(self, refused: str) -> str | None:
        """The first candidate that lets the role in, if it is another than the one that did not."""
        for name in self.candidates:
            with suppress(PermanentError, Unexplained):
                self._script(name, "", None)
                return name if name != refused else None
        return None

    def _script(self, database: str, sql: str, timeout: float | None) -> str:
        own = AS_STORED + NO_TEMPORARY_LIMIT + NO_TRANSACTION_TIMEOUT + NO_VIEWS
        later = own if self.options else ""
        argv = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"]
        argv += ["-W" if self.password else "-w", "-d", self._conninfo(database)]
        give_up = time.monotonic() + _FULL_SECONDS
        while True:
            script = f"{later}\\echo {_BEGIN}\n{self.preamble}{sql}"
            done = self._run(argv, script, timeout, self.password or None)
            if done.exit_code == 0:
                # A wrapper around psql may print something first, and end lines as it likes.
                said = done.stdout.decode(errors="replace")
                _, begun, answers = said.partition(_BEGIN)
                return answers.partition("\n")[2] if begun else said
            full = done.exit_code == _NO_CONNECTION and _FULL.search(done.stderr)
            if not full or time.monotonic() > give_up:
                break
            time.sleep(0.2)
        error = self._error(database, done.exit_code, done.stderr.decode(errors="replace"))
        if self.of_site and not self.major and isinstance(error, RefusedByCode):
            # The version of a source is not known yet, nor whether the role may turn them off.
            with suppress(LoginRefused, Unexplained):
                asked = replace(self, major=LOGIN_TRIGGERS_SINCE)
                return asked._script(database, sql, timeout)
        raise error

    def _run(
        self,
        argv: Sequence[str],
        text: str,
        timeout: float | None,
        password: SecretStr | None = None,
    ) -> Completed:
        program, *rest = argv
        return self.host.run(
            [*(OF_SITE if self.of_site else ALONE), f"{self.bin_dir}/{program}", *rest],
            input=text.encode(),
            password=password,
            timeout=timeout or self.timeout,
            check=False,
        )

    def _conninfo(self, database: str) -> str:
        return " ".join(
            f"{key}={quote_conninfo(value)}"
            for key, value in (
                ("host", self.server),
                ("port", str(self.port)),
                ("user", self.role),
                ("dbname", database),
                *AMBIENT,
                ("connect_timeout", "10"),
                ("application_name", "farside"),
                ("client_encoding", "UTF8"),
                ("options", self.options + (NO_LOGIN_TRIGGERS if self._without_triggers else "")),
            )
        )

    @property
    def _without_triggers(self) -> bool:
        return self.major >= LOGIN_TRIGGERS_SINCE

    def rows(self, database: str, sql: str, *, timeout: float | None = None) -> list[Any]:
        """The rows of one query, each a JSON object. Raises as `script`."""
        text = self.script(
            database,
            "SET client_min_messages = warning; SET timezone = 'UTC';\n"
            f"SELECT coalesce(pg_catalog.json_agg(t), '[]') FROM (\n{sql}\n) t;",
            timeout=timeout,
        )
        rows: list[Any] = wire.parsed(text)
        return rows

    def user_rows(
        self,
        database: str,
        sql: str,
        *,
        timeout: float | None = None,
        path: str = "pg_catalog, pg_temp",
    ) -> list[Any]:
        """The rows of a query of users' tables, on a restored server. Raises as `script`.

        Merely to plan it, the server runs functions that owners of tables have put into their
        indexes: so it is asked by a role that may read everything, and nothing else. What is made
        for that is rolled back. With a search_path of users' schemas, `sql` is to qualify all that
        it names.
        """
        command = f"SELECT coalesce(pg_catalog.jsonb_agg(t), '[]') FROM (\n{sql}\n) t"
        reader = f"farside_reader_{secrets.token_hex(4)}"
        text = self.script(
            database,
            f"BEGIN;\n{NO_EVENT_TRIGGERS}{AS_OWNER}"
            f"CREATE ROLE {reader} BYPASSRLS IN ROLE pg_read_all_data;\n"
            f"SELECT pg_temp.farside_as_owner('{reader}', {literal(command)},{literal(path)});\n"
            "ROLLBACK;",
            timeout=timeout,
        )
        rows: list[Any] = wire.parsed(text)
        return rows

    def parts(
        self,
        database: str,
        queries: Mapping[str, str],
        *,
        more: str = "",
        timeout: float | None = None,
    ) -> tuple[dict[str, list[Any]], dict[str, str]]:
        """The rows of several queries in one session, and the SQLSTATEs of those that failed.

        Each is a transaction of its own: one that fails hides no other. `more` is run after them,
        and prints lines of the same form: {"part": NAME, "rows": [...]}. Raises as `script` where
        there is no session.
        """
        script = "\\set ON_ERROR_STOP off\n"
        for name, sql in queries.items():
            script += (
                "SELECT pg_catalog.jsonb_build_object("
                f"'part', '{name}', 'rows', coalesce(pg_catalog.jsonb_agg(t), '[]'))"
                f" FROM (\n{sql}\n) t;\n"
                f"\\if :ERROR\n\\echo - {name} :SQLSTATE\n\\endif\n"
            )
        found, failed = dict[str, list[Any]](), dict[str, str]()
        # A value may hold whatever else Python takes for the end of a line.
        said = self.script(database, script + more, timeout=timeout)
        for line in filter(None, said.split("\n")):
            if line.startswith("- "):
                _, name, state = line.split()
                failed[name] = f"SQLSTATE {state}"
            else:
                answer: Any = wire.parsed(line)
                found.setdefault(answer["part"], []).extend(answer["rows"])
        return found, failed

    def value(self, database: str, sql: str, *, timeout: float | None = None) -> str | None:
        """The only value of a query as psql prints it; None for NULL or no row.

        Raises as `script`.
        """
        rows = self.rows(
            database,
            "SELECT n, CASE WHEN first IS NOT NULL THEN pg_catalog.format('%s', first) END AS value"
            " FROM (SELECT (pg_catalog.array_agg(v))[1] AS first, pg_catalog.count(*) AS n"
            f" FROM (\n{sql}\n) AS q(v)) AS counted",
            timeout=timeout,
        )
        if rows[0]["n"] > 1:
            raise PermanentError(
                f"the query yields {rows[0]['n']} rows; a check needs exactly one value",
                operation="psql",
                domain=self.host.domain,
                host=self.host.name,
            )
        answer: str | None = rows[0]["value"]
        return answer

    def _error(self, database: str, exit_code: int, stderr: str) -> FarsideError:
        lines = [
            line for line in stderr.splitlines() if not line.startswith(("Password", "LOCATION:"))
        ]
        text = redacted(" ".join(lines).removeprefix("psql: ").strip())
        text = text or "psql failed without a word"
        text = f"database {database!r} as {self.role!r} at {self.server}:{self.port}: {text}"
        where = {"operation": "psql", "domain": self.host.domain, "host": self.host.name}
        states = [state for state in _SQLSTATE.findall(stderr) if state[:2] not in ("00", "01")]
        if states and exit_code in (_NO_CONNECTION, _SCRIPT_FAILED):
            if _TRANSIENT.fullmatch(states[-1]):
                return TransientError(text, **where)
            return SqlError(text, sqlstate=states[-1], **where)
        if exit_code != _NO_CONNECTION:
            return PermanentError(text, **where)
        if _NO_DATABASE.search(text):
            if not database.isascii():
                text += "; if it is there, its name is not in UTF-8, and no session can give it"
            return NoDatabase(text, **where)
        if _BUSY.search(text) or not self._accepts(database):
            return TransientError(text, **where)
        if _CODE.search(stderr):
            hint = "turn off the event trigger that fires at its login, or except the role there"
            return RefusedByCode(text, hint=hint, **where)
        hint = "check the role, its password in the vault, and pg_hba.conf"
        # A restored server says it in English: it is configured to.
        if self.of_site and not _REFUSED.search(text):
            return Unexplained(text, hint=f"{hint}; or is the server full?", **where)
        return LoginRefused(text, hint=hint, **where)

    def _accepts(self, database: str) -> bool:
        """Whether the server takes connections: then one that failed was refused.

        psql tells no SQLSTATE of a connection that failed, and the server's words may be in any
        language.
        """
        argv = ["pg_isready", "-q", "-t", "10", "-d", self._conninfo(database)]
        return self._run(argv, "", None).exit_code == 0
