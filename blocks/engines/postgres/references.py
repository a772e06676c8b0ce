"""What of a server names another failure domain: settings, and everything stored as text in it."""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from blocks import readings
from blocks.engines.checks import listed
from blocks.engines.postgres.psql import CLUSTER, Psql, identifier, literal
from blocks.errors import FarsideError
from blocks.evidence.catalogue import Severity
from blocks.evidence.findings import Finding, finding
from blocks.hosts.host import Host
from blocks.ownership import Belongings
from blocks.remote.resolving import hard_coded, used_by

# What a site has made, wherever it has put it: below are the objects that every database begins
# with. Members of extensions are no exception: a site packs its own into some.
_FIRST = 16384

_TEXTS = (
    # Without its body, which is searched by itself, so that its lines are counted as written.
    f"""SELECT CASE p.prokind WHEN 'p' THEN 'procedure ' ELSE 'function ' END
      || p.oid::regprocedure AS object, texts.text
    FROM pg_proc p, LATERAL (
      SELECT p.prosrc AS text UNION ALL
      SELECT replace(pg_get_functiondef(p.oid), coalesce(nullif(p.prosrc, ''), chr(1)), '')
    ) AS texts
    WHERE p.prokind <> 'a' AND p.oid >= {_FIRST}""",
    f"""SELECT 'aggregate ' || p.oid::regprocedure,
      concat_ws(E'\n', a.agginitval, a.aggminitval, pg_get_function_arguments(p.oid))
    FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid
    WHERE p.oid >= {_FIRST}""",
    f"""SELECT CASE c.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END
      || c.oid::regclass, pg_get_viewdef(c.oid)
    FROM pg_class c
    WHERE c.relkind IN ('v', 'm') AND c.oid >= {_FIRST}""",
    f"""SELECT 'rule ' || r.rulename || ' on ' || c.oid::regclass, pg_get_ruledef(r.oid)
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE r.rulename <> '_RETURN' AND r.oid >= {_FIRST}""",
    f"""SELECT 'default of ' || c.oid::regclass || '.' || a.attname,
      pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    JOIN pg_class c ON c.oid = d.adrelid
    WHERE d.oid >= {_FIRST}""",
    # What fills a column that was added to rows which are there already.
    f"""SELECT 'default of ' || c.oid::regclass || '.' || a.attname, a.attmissingval::text
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.atthasmissing AND c.oid >= {_FIRST}
      AND NOT EXISTS (SELECT 1 FROM pg_attrdef d
                      WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)""",
    f"""SELECT 'constraint ' || k.conname, pg_get_constraintdef(k.oid)
    FROM pg_constraint k
    WHERE k.contype IN ('c', 'x') AND k.oid >= {_FIRST}""",
    f"""SELECT 'trigger ' || t.tgname || ' on ' || c.oid::regclass, pg_get_triggerdef(t.oid)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND t.oid >= {_FIRST}""",
    "SELECT 'event trigger ' || evtname, array_to_string(evttags, E'\\n') FROM pg_event_trigger",
    """SELECT 'policy ' || p.polname || ' on ' || p.polrelid::regclass, concat_ws(E'\\n',
      pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p""",
    f"""SELECT 'index ' || c.oid::regclass, concat_ws(E'\\n', pg_get_expr(i.indexprs, i.indrelid),
      pg_get_expr(i.indpred, i.indrelid), array_to_string(c.reloptions, E'\\n'))
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.oid >= {_FIRST}""",
    "SELECT 'statistics ' || stxname, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext",
    f"""SELECT 'table ' || c.oid::regclass, concat_ws(E'\\n', array_to_string(c.reloptions, E'\\n'),
      pg_get_expr(c.relpartbound, c.oid),
      CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END)
    FROM pg_class c WHERE c.relkind IN ('r', 'p', 'f') AND c.oid >= {_FIRST}""",
    f"""SELECT 'column ' || c.oid::regclass || '.' || a.attname,
      concat_ws(E'\\n', array_to_string(a.attoptions, E'\\n'),
        array_to_string(a.attfdwoptions, E'\\n'))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE coalesce(a.attoptions, a.attfdwoptions) IS NOT NULL AND c.oid >= {_FIRST}""",
    f"""SELECT 'type ' || t.oid::regtype, concat_ws(E'\\n', t.typdefault,
      (SELECT string_agg(e.enumlabel, E'\\n' ORDER BY e.enumsortorder)
       FROM pg_enum e WHERE e.enumtypid = t.oid))
    FROM pg_type t
    WHERE t.typtype IN ('d', 'e', 'b') AND t.oid >= {_FIRST}""",
    "SELECT 'foreign data wrapper ' || fdwname, array_to_string(fdwoptions, E'\\n')"
    " FROM pg_foreign_data_wrapper WHERE fdwoptions IS NOT NULL",
    "SELECT 'foreign server ' || srvname,"
    " concat_ws(E'\\n', array_to_string(srvoptions, E'\\n'), srvtype, srvversion)"
    " FROM pg_foreign_server",
    "SELECT 'user mapping of ' || usename || ' on ' || srvname, array_to_string(umoptions, E'\\n')"
    " FROM pg_user_mappings WHERE umoptions IS NOT NULL",
    "SELECT 'foreign table ' || ftrelid::regclass, array_to_string(ftoptions, E'\\n')"
    " FROM pg_foreign_table WHERE ftoptions IS NOT NULL",
    "SELECT 'subscription ' || s.subname, concat_ws(E'\\n', s.subconninfo, s.subslotname)"
    " FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
    " WHERE d.datname = current_database()",
    "SELECT 'publication ' || p.pubname || ' of ' || r.prrelid::regclass,"
    " pg_get_expr(r.prqual, r.prrelid)"
    " FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid"
    " WHERE r.prqual IS NOT NULL",
    "SELECT 'text search dictionary ' || dictname, dictinitoption FROM pg_ts_dict"
    " WHERE dictinitoption IS NOT NULL",
    "SELECT 'security label of ' || objtype || ' ' || objname, label FROM pg_seclabels",
    "SELECT 'replication origin ' || roident, roname FROM pg_replication_origin",
)
"""Queries of `object` and `text`: every catalog of a database that holds text or expressions."""

_COMMENTS = """
SELECT 'comment on ' || (pg_identify_object(classoid, objoid, objsubid)).identity AS object,
       description AS text
FROM pg_description
WHERE objoid >= 16384
   OR (classoid = 'pg_namespace'::regclass AND objoid = to_regnamespace('public'))
"""

# Of the whole server, so that each is met once.
_SHARED = (
    """SELECT concat_ws(' ', 'ALTER',
         CASE WHEN s.setrole <> 0 THEN 'ROLE ' || s.setrole::regrole
              WHEN s.setdatabase = 0 THEN 'ROLE ALL' END,
         CASE WHEN s.setdatabase <> 0 AND s.setrole <> 0 THEN 'IN' END,
         CASE WHEN s.setdatabase <> 0 THEN 'DATABASE ' || d.datname END, 'SET',
         split_part(setting, '=', 1)) AS object,
       split_part(setting, '=', 2) || substr(setting, length(split_part(setting, '=', 1))
         + length(split_part(setting, '=', 2)) + 2) AS text
    FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase,
      unnest(s.setconfig) AS setting""",
    "SELECT 'tablespace ' || spcname AS object, array_to_string(spcoptions, E'\\n') AS text"
    " FROM pg_tablespace WHERE spcoptions IS NOT NULL",
    "SELECT 'security label of ' || provider AS object, label AS text FROM pg_shseclabel",
    "SELECT 'comment on ' || o.type || ' ' || o.identity AS object, description AS text"
    " FROM pg_shdescription, pg_identify_object(classoid, objoid, 0) o",
)

# Of system tables, only those of a site are here: what it has added to pg_catalog, too.
_TABLES = f"""
SELECT n.nspname AS schema, c.relname AS name,
  c.relname NOT IN ('spatial_ref_sys', 'job_run_details') AND (
    n.nspname IN ('cron', 'pgagent', 'timetable', 'pglogical', 'bdr', 'net', 'pgmq', 'jobs')
    OR EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
               AND d.objid = c.oid AND d.deptype = 'e')) AS jobs,
  EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
          AND a.atttypid = 'pg_catalog.bytea'::regtype) AS binary,
  ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
        AND NOT a.attisdropped ORDER BY a.attnum LIMIT 90) AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND c.relispopulated
  AND c.oid >= {_FIRST}
ORDER BY jobs DESC, c.relpages, 1, 2
"""
"""Tables; `jobs` are jobs, nodes and queues of extensions and schedulers, however shaped."""
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

DECIDED = (
    "archive_",
    "cluster_name",
    "config_file",
    "data_directory",
    "event_source",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "log_",
    "port",
    "primary_",
    "recovery_",
    "restore_command",
    "synchronous_standby_names",
    "syslog_",
    "unix_socket_",
)
"""Settings, by prefix, that a restore decides anew for its host: what the source had is gone."""

OWN_PLACE = (
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "listen_addresses",
    "unix_socket_",
)
"""Settings, by prefix, that say where the source's own server is."""

# Files that the source's service needs beside its data; a restored one runs without them.
_FILES = ("ssl_", "krb_server_keyfile", "dynamic_library_path", "extension_control_path")


_FOREIGN = re.compile(r"(?:^|: )(?:foreign (?:table|server|data wrapper)|user mapping of) ")
_FILE_OPTION = re.compile(
    r"^(filename|program|passfile|servicefile|sslcert|sslkey|sslrootcert|sslcrl)=(/\S+)",
    re.MULTILINE,
)
_PATH = re.compile(r"(?<![\w.:/@-])/[\w.+%-]+(?:/[\w.+%-]+)+")
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
                "address-hard-coded",
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
                        yield finding("path-hard-coded", subject, said, severity=Severity.MEDIUM)

    def hosts(self, facts: Mapping[str, Any], foreign: Belongings) -> dict[str, str]:
        """Other hosts that they use, and the source's settings, each with the objects that do."""
        settings = (
            (f"setting {row['name']}", f"{row['name']}={row['setting']}")
            for row in facts["settings"]
            if not str(row["name"]).startswith(OWN_PLACE)
        )
        rows = (row for row in self.rows if not _is_comment(row[0]))
        return used_by(chain(rows, settings), foreign)


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
    _read(control, CLUSTER, "", _SHARED, found)
    likely = foreign.likely()
    for database in databases:
        lead = f"{database}: "
        before = len(found.unread)
        with _looking(database, found):
            control.value(database, "SELECT 1")
        if len(found.unread) > before:
            continue
        _read(control, database, lead, _TEXTS, found)
        _read(control, database, lead, (_COMMENTS,), found)
        tables = list[Mapping[str, Any]]()
        with _looking(f"{lead}tables", found):
            tables = control.rows(database, _TABLES, timeout=600)
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


def _read_rows(
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


def _read_compressed(
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


def _read_large(
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
            "usable-not-restored",
            f"{row['database']}: prepared transaction {row['gid']}",
            "it came along, and holds its locks until it is committed or rolled back",
            severity=Severity.MEDIUM,
            remedy="Plan who decides after a recovery how transactions in doubt end.",
        )


def in_settings(facts: Mapping[str, Any], foreign: Belongings) -> Iterator[Finding]:
    """Settings of the source that name what is `foreign`.

    Those that a restore decides anew are less grave: on the day they would be taken over with the
    rest. Where the source's own server lies, and listens, is its own affair; a file of settings
    somewhere else is in no backup.
    """
    files = {str(row["sourcefile"] or "") for row in facts["settings"]}
    near = [PurePosixPath(file).parent for file in files if file.endswith("/postgresql.conf")]
    near.append(PurePosixPath(facts["data_directory"]))
    elsewhere: dict[str, str] = {}
    for row in facts["settings"]:
        name = str(row["name"])
        if name.startswith(OWN_PLACE):
            continue
        file = str(row["sourcefile"] or "")
        if file and not any(PurePosixPath(file).is_relative_to(folder) for folder in near):
            elsewhere.setdefault(file, name)
        place = f"{file}:{row['sourceline']}" if file else row["source"]
        for _, mention in foreign.lines(str(row["setting"])):
            evidence = f"{place}: {name} names {mention}"
            severity = Severity.MEDIUM if name.startswith(DECIDED) else None
            yield hard_coded(f"setting {name}", evidence, mention, foreign, severity)

    for file, name in elsewhere.items():
        for path in foreign.paths_in(file):
            evidence = f"{name} is set there; the file is no part of a backup"
            yield hard_coded(file, evidence, path, foreign, Severity.MEDIUM)


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


def files_in_settings(facts: Mapping[str, Any]) -> dict[str, str]:
    """Setting -> an absolute path in it that must exist on the recovery host to be of use."""
    found = {}
    for row in facts["settings"]:
        name, value = str(row["name"]), str(row["setting"])
        own = row["category"] == "Customized Options" or name.startswith(_FILES)
        if own and value.startswith("/") and not name.startswith(DECIDED):
            found[name] = value.partition(":")[0]
    return found


def files_in_commands(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings that are commands, with absolute paths in them, up to what the server fills in."""
    for row in facts["settings"]:
        if str(row["name"]).endswith(("_command", "_cmd")):
            for path in _PATH.findall(str(row["setting"])):
                yield str(row["name"]), path.rpartition("/")[0] if "%" in path else path


def with_path(foreign: Belongings, path: str) -> Belongings:
    """The same belongings and one more directory."""
    return replace(foreign, paths=(*foreign.paths, path))
