"""What of a restored server names another failure domain: everything stored as text in it."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from blocks import readings
from blocks.engines.checks import listed
from blocks.engines.postgres.definitions import COMMENTS, SHARED, TABLES, TEXTS
from blocks.engines.postgres.mentions import OWN_PLACE
from blocks.engines.postgres.psql import CLUSTER, Psql, identifier, literal
from blocks.engines.postgres.rows import Setting
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.hosts.host import Host
from blocks.ownership import Belongings
from blocks.remote.resolving import hard_coded, used_by

_HOSTS = r"://|host|server|node|peer|addr"
"""What a row of jobs may also hold: a host by a name that says nothing of whose it is."""
ROWS_MOST = 10_000
_GZIP = r"\\x1f8b08"
_COMPRESSED = r"\\x(1f8b08|504b0304|28b52ffd|fd377a585a00|425a68)"
"""As binary values are shown that gzip compressed, or that, zip, zstd, xz or bzip2."""
_COMPRESSED_ROWS = 200
_COMPRESSED_MOST = 2**18
"""So many rows with such values, and characters of one, are looked into."""
LOCK_SECONDS = 10.0
_JOBS_SECONDS = 60

_FOREIGN = re.compile(r"(?:^|: )(?:foreign (?:table|server|data wrapper)|user mapping of) ")
_FILE_OPTION = re.compile(
    r"^(filename|program|passfile|servicefile|sslcert|sslkey|sslrootcert|sslcrl)=(/\S+)",
    re.MULTILINE,
)
_SET = re.compile(r"ALTER .* SET (\S+)", re.DOTALL)
_ASKED = re.compile(
    r"\bcurrent_setting\(\s*'([\w.]+)'(?:::text)?\s*(?:,\s*\w+\s*)?\)(?:::\w+)?", re.IGNORECASE
)


@dataclass(slots=True)
class Texts:
    """What was read of a restored server, and what could not be."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    """Object, with its database before it, and its text."""
    unread: list[str] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)
    """Tables with values that are compressed in a way that is not undone: documents, mostly."""

    def resolve_settings(self) -> None:
        """Have calls of current_setting read as what is set for a role or a database."""
        values = {
            match[1].lower(): text
            for subject, text in self.rows
            if (match := _SET.fullmatch(subject)) and "\n" not in text
        }

        def value(call: re.Match[str]) -> str:
            text = values.get(call[1].lower())
            return call[0] if text is None else literal(text)

        if values:
            self.rows = [(subject, _ASKED.sub(value, text)) for subject, text in self.rows]

    def findings(self, foreign: Belongings) -> Iterator[Finding]:
        """Objects that name what belongs to `foreign`, with the line."""
        for subject, text in self.rows:
            comments = readings.comments(text)
            for line, mention in foreign.lines(text):
                said = f"its line {line} names {mention}"
                comment = _is_comment(subject) or line in comments
                severity = Severity.INFO if comment else None
                yield hard_coded(subject, said, mention, foreign, severity)
        if self.packed:
            yield finding(
                FindingId.ADDRESS_HARD_CODED,
                "compressed values",
                f"whether they name the source was not looked at, in {listed(self.packed)}",
                severity=Severity.INFO,
            )

    def files_missing(self, host: Host, foreign: Belongings) -> Iterator[Finding]:
        """Files and programs of foreign data that are not on a host; those of the source's own
        directories are told of in any case.
        """
        for subject, text in self.rows:
            if _FOREIGN.search(subject):
                for option, path in _FILE_OPTION.findall(text):
                    if any(foreign.paths_in(path)):
                        continue
                    if host.run(["test", "-e", path], check=False).exit_code != 0:
                        said = f"its {option} is {path}, which is not on {host.domain}/{host.name}"
                        yield finding(
                            FindingId.PATH_HARD_CODED, subject, said, severity=Severity.MEDIUM
                        )

    def hosts(self, settings: Iterable[Setting], foreign: Belongings) -> dict[str, str]:
        """Other hosts that they use, and the source's `settings`, each with the objects that do."""
        named = (
            (f"setting {row.name}", f"{row.name}={row.value}")
            for row in settings
            if not row.name.startswith(OWN_PLACE)
        )
        rows = (row for row in self.rows if not _is_comment(row[0]))
        return used_by(chain(rows, named), foreign)


def _is_comment(subject: str) -> bool:
    return subject.startswith("comment on ") or ": comment on " in subject


def databases(control: Psql) -> tuple[list[str], list[str]]:
    """The databases of a restored server: those that can be entered, and all others but the
    template that none ever enters, and what a DROP that broke off has left.
    """
    rows = control.rows(
        CLUSTER,
        "SELECT datname AS name, datallowconn AS open"
        " FROM pg_database WHERE datname <> 'template0' AND datconnlimit <> -2 ORDER BY 1",
    )
    named = {True: list[str](), False: list[str]()}
    for row in rows:
        named[row["open"]].append(row["name"])
    return named[True], named[False]


def texts(
    control: Psql, databases: Iterable[str], foreign: Belongings, *, rows: float = 0.0
) -> Texts:
    """All definitions in a restored server, and of the rows of its tables, those of jobs' and with
    `rows` (seconds) of all, what may name what is `foreign`.

    A query that fails hides no other one's result: it is named in `unread`.
    """
    found = Texts()
    # What came along prepared holds its locks for ever.
    control = replace(control, preamble=f"SET lock_timeout = '{LOCK_SECONDS}s';\n")
    give_up = time.monotonic() + rows
    _read(control, CLUSTER, "", SHARED, found)
    likely = foreign.likely()
    for database in databases:
        lead = f"{database}: "
        before = len(found.unread)
        with _looking(database, found):
            control.value(database, "SELECT 1")
        if len(found.unread) > before:
            continue
        _read(control, database, lead, TEXTS, found)
        _read(control, database, lead, (COMMENTS,), found)
        tables = list[Mapping[str, Any]]()
        with _looking(f"{lead}tables", found):
            tables = control.rows(database, TABLES, timeout=600)
        for table in tables:
            if table["jobs"]:
                until = time.monotonic() + _JOBS_SECONDS
                _read_rows(control, database, table, f"{likely}|{_HOSTS}", until, found)
            elif rows:
                _read_rows(control, database, table, likely, give_up, found)
        if rows:
            _read_large(control, lead, database, likely, give_up - time.monotonic(), found)
    found.resolve_settings()
    return found


@contextmanager
def _looking(at: str, found: Texts) -> Iterator[None]:
    try:
        yield
    except FarsideError as error:
        found.unread.append(f"{at}: {error.message}")


def _read(control: Psql, database: str, lead: str, queries: Sequence[str], found: Texts) -> None:
    """The rows of all queries at once; where that fails, of each that works."""
    whole = [
        f"SELECT q.* FROM (\n{query}\n) AS q(object, text) WHERE q.text <> ''" for query in queries
    ]
    try:
        rows = control.rows(database, "\nUNION ALL\n".join(whole), timeout=600)
    except FarsideError as error:
        if len(queries) == 1:
            found.unread.append(f"{lead}{queries[0].split(maxsplit=3)[1]}: {error.message}")
            return
        for query in queries:
            _read(control, database, lead, (query,), found)
        return
    found.rows += [(f"{lead}{row['object']}", str(row["text"])) for row in rows]


def _read_rows(  # noqa: PLR0913 (where to read, what is likely there, how long, and what was found)
    control: Psql,
    database: str,
    table: Mapping[str, Any],
    likely: str,
    until: float,
    found: Texts,
) -> None:
    """Rows of a table that look like `likely`, as text; `until` is of the monotonic clock.

    As anonymous records: a cast of the table's own type would be its owner's code. Their dotted
    names are those of tables before columns are asked.
    """
    name = f"{table['schema']}.{table['name']}"
    subject = f"{database}: table {name}"
    place = f"{identifier(table['schema'])}.{identifier(table['name'])}"
    row = "ROW(t.*)::text"
    if table["jobs"]:  # only a column's name may say that a short name in it is a host's
        columns = [
            f"pg_catalog.format('%s=%s', {literal(column)}, t.{identifier(column)})"
            for column in table["columns"]
        ]
        row = f"pg_catalog.concat_ws(' ', {', '.join(columns)})" if columns else row
    query = (
        f"SELECT t.ctid::text || ' ' || q.text AS text FROM ONLY {place} t"
        f" CROSS JOIN LATERAL (SELECT {row} AS text) q"
        f" WHERE q.text ~* {literal(likely)} LIMIT {ROWS_MOST + 1}"
    )
    if (seconds := until - time.monotonic()) < 1:
        found.unread.append(f"{subject}: rows not searched, the time was up")
        return
    with _looking(subject, found):
        rows = control.user_rows(database, query, timeout=seconds)
        if len(rows) > ROWS_MOST:
            found.unread.append(f"{subject}: more than {ROWS_MOST} rows may name the source")
        found.rows += [(subject, str(row["text"])) for row in rows[:ROWS_MOST]]
    if table["binary"]:
        _read_compressed(control, database, place, subject, likely, until, found)


def _read_compressed(  # noqa: PLR0913 (where to read, what is likely there, how long, and what was found)
    control: Psql,
    database: str,
    place: str,
    subject: str,
    likely: str,
    until: float,
    found: Texts,
) -> None:
    """Rows with values that gzip compressed, if they look like `likely` once these are unpacked.

    Where some are compressed otherwise, or too long, the table is told of.
    """
    query = (
        f"SELECT CASE WHEN length(q.text) <= {_COMPRESSED_MOST} AND q.text ~ {literal(_GZIP)}"
        f" THEN q.text END AS text FROM (SELECT ROW(t.*)::text AS text FROM ONLY {place} t) q"
        f" WHERE q.text ~ {literal(_COMPRESSED)} LIMIT {_COMPRESSED_ROWS + 1}"
    )
    if (seconds := until - time.monotonic()) < 1:
        found.unread.append(f"{subject}: compressed values not searched, the time was up")
        return
    with _looking(f"{subject}, compressed values", found):
        rows = control.user_rows(database, query, timeout=seconds)
        read = [str(row["text"]) for row in rows[:_COMPRESSED_ROWS] if row["text"] is not None]
        if len(read) < len(rows):
            found.packed.append(subject)
        like = re.compile(likely, re.IGNORECASE)
        found.rows += [(subject, text) for text in read if like.search(readings.without_hex(text))]


def _read_large(  # noqa: PLR0913 (where to read, what is likely there, how long, and what was found)
    control: Psql, lead: str, database: str, likely: str, seconds: float, found: Texts
) -> None:
    """Large objects that look like `likely`, page by page."""
    subject = f"{lead}large objects"
    if seconds < 1:
        found.unread.append(f"{subject}: not searched, the time was up")
        return
    query = (
        "SELECT 'large object ' || loid AS object, encode(data, 'escape') AS text"
        " FROM pg_largeobject"
        f" WHERE encode(data, 'escape') ~* {literal(likely)} LIMIT {ROWS_MOST + 1}"
    )
    with _looking(subject, found):
        rows = control.rows(database, query, timeout=seconds)
        if len(rows) > ROWS_MOST:
            found.unread.append(f"{subject}: more than {ROWS_MOST} pages may name the source")
        found.rows += [(f"{lead}{row['object']}", str(row["text"])) for row in rows[:ROWS_MOST]]


def in_doubt(control: Psql) -> Iterator[Finding]:
    """Prepared transactions that came along: they hold their locks until somebody ends them."""
    for row in control.rows(CLUSTER, "SELECT gid, database FROM pg_prepared_xacts ORDER BY 1"):
        yield finding(
            FindingId.USABLE_NOT_RESTORED,
            f"{row['database']}: prepared transaction {row['gid']}",
            "it came along, and holds its locks until it is committed or rolled back",
            severity=Severity.MEDIUM,
            remedy="Plan who decides after a recovery how transactions in doubt end.",
        )


def in_live_settings(server: Psql, foreign: Belongings) -> Iterator[Finding]:
    """Settings of a restored server that name what is `foreign`, whether or not they are in use.

    A standby has some that nobody calls before it is promoted. Whom it follows and whom commits
    wait for are checks, and where its files are is the plan's.
    """
    rows = server.rows(
        CLUSTER,
        "SELECT name, setting FROM pg_settings WHERE setting <> ''"
        " AND name NOT IN ('primary_conninfo', 'synchronous_standby_names', 'config_file',"
        " 'data_directory', 'hba_file', 'ident_file') ORDER BY 1",
    )
    for row in rows:
        for _, mention in foreign.lines(str(row["setting"])):
            evidence = f"{server.host.name}: {row['name']} names {mention}"
            yield hard_coded(f"setting {row['name']}", evidence, mention, foreign)


def with_path(foreign: Belongings, path: str) -> Belongings:
    """The same belongings and one more directory."""
    return replace(foreign, paths=(*foreign.paths, path))
