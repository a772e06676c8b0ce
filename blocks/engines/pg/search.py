"""What of a server names another failure domain: settings, and everything stored as text in it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from blocks.artifact.mentions import Belongings
from blocks.engines.pg.psql import Psql
from blocks.engines.pg.survey import USER_SCHEMAS
from blocks.evidence.findings import Finding, Severity, finding

_TEXTS = f"""
SELECT 'function ' || p.oid::regprocedure AS object, p.prosrc AS text
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prosrc <> '' AND {USER_SCHEMAS}
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT CASE c.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END || c.oid::regclass,
       pg_get_viewdef(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND {USER_SCHEMAS}
UNION ALL
SELECT 'rule ' || r.rulename || ' on ' || c.oid::regclass, pg_get_ruledef(r.oid)
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND {USER_SCHEMAS}
UNION ALL
SELECT 'default of ' || c.oid::regclass || '.' || a.attname, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {USER_SCHEMAS}
UNION ALL
SELECT 'constraint ' || k.conname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
WHERE k.contype = 'c' AND {USER_SCHEMAS}
UNION ALL
SELECT 'trigger ' || t.tgname || ' on ' || c.oid::regclass, pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT t.tgisinternal AND {USER_SCHEMAS}
UNION ALL
SELECT 'foreign server ' || srvname, array_to_string(srvoptions, E'\\n') FROM pg_foreign_server
WHERE srvoptions IS NOT NULL
UNION ALL
SELECT 'user mapping of ' || usename || ' on ' || srvname, array_to_string(umoptions, E'\\n')
FROM pg_user_mappings WHERE umoptions IS NOT NULL
UNION ALL
SELECT 'foreign table ' || ftrelid::regclass, array_to_string(ftoptions, E'\\n')
FROM pg_foreign_table WHERE ftoptions IS NOT NULL
UNION ALL
SELECT 'subscription ' || s.subname, s.subconninfo
FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
WHERE d.datname = current_database()
"""

# Of the whole server, so that each is met once.
_SHARED = """
SELECT concat_ws(' ', 'ALTER', CASE WHEN s.setrole <> 0 THEN 'ROLE ' || s.setrole::regrole END,
         CASE WHEN s.setdatabase <> 0 THEN 'DATABASE ' || d.datname END, 'SET',
         split_part(setting, '=', 1)) AS object,
       split_part(setting, '=', 2) || substr(setting, length(split_part(setting, '=', 1))
         + length(split_part(setting, '=', 2)) + 2) AS text
FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase,
     unnest(s.setconfig) AS setting
"""

# Jobs lie in tables of the schedulers' extensions, where there are any.
_JOBS = {
    "cron.job": "SELECT 'cron job ' || jobid AS object, nodename || E'\\n' || command AS text"
    " FROM cron.job",
    "pgagent.pga_jobstep": "SELECT 'pgAgent step ' || jstid AS object,"
    " jstconnstr || E'\\n' || jstcode AS text FROM pgagent.pga_jobstep",
}

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

# Files that the source's service needs beside its data; a restored one runs without them.
_FILES = ("ssl_", "krb_server_keyfile", "dynamic_library_path", "extension_control_path")


def in_catalogs(control: Psql, databases: Iterable[str], foreign: Belongings) -> Iterator[Finding]:
    """Objects of the restored server that name what belongs to `foreign`, with the line."""
    yield from _named("", control.rows("postgres", _SHARED), foreign)
    for database in databases:
        texts = control.rows(database, _TEXTS, timeout=600)
        for table, query in _JOBS.items():
            if control.value(database, f"SELECT to_regclass('{table}') IS NOT NULL") == "t":
                texts += control.rows(database, query)
        yield from _named(f"{database}: ", texts, foreign)


def in_doubt(control: Psql) -> Iterator[Finding]:
    """Prepared transactions that came along: they hold their locks until somebody ends them."""
    for row in control.rows("postgres", "SELECT gid, database FROM pg_prepared_xacts ORDER BY 1"):
        yield finding(
            "usable-not-restored",
            f"{row['database']}: prepared transaction {row['gid']}",
            "it came along, and holds its locks until it is committed or rolled back",
            "verify",
            severity=Severity.MEDIUM,
            remedy="Plan who decides after a recovery how transactions in doubt end.",
        )


def in_settings(facts: Mapping[str, Any], foreign: Belongings) -> Iterator[Finding]:
    """Settings of the source, other than those decided anew, that name what is `foreign`."""
    for row in facts["settings"]:
        if str(row["name"]).startswith(DECIDED):
            continue
        place = f"{row['sourcefile']}:{row['sourceline']}" if row["sourcefile"] else row["source"]
        for _, mention in foreign.lines(str(row["setting"])):
            evidence = f"{place}: {row['name']} names {mention}"
            yield _finding(f"setting {row['name']}", evidence, mention, foreign, "preflight")


def in_live_settings(server: Psql, foreign: Belongings) -> Iterator[Finding]:
    """Settings of a restored server that name what is `foreign`, whether or not they are in use.

    A standby has some that nobody calls before it is promoted. Whom it follows and whom commits
    wait for are checks, and where its files are is the plan's.
    """
    rows = server.rows(
        "postgres",
        "SELECT name, setting FROM pg_settings WHERE setting <> ''"
        " AND name NOT IN ('primary_conninfo', 'synchronous_standby_names', 'config_file',"
        " 'data_directory', 'hba_file', 'ident_file') ORDER BY 1",
    )
    for row in rows:
        for _, mention in foreign.lines(str(row["setting"])):
            evidence = f"{server.host.name}: {row['name']} names {mention}"
            yield _finding(f"setting {row['name']}", evidence, mention, foreign, "verify")


def files_in_settings(facts: Mapping[str, Any]) -> dict[str, str]:
    """Setting -> an absolute path in it that must exist on the recovery host to be of use."""
    found = {}
    for row in facts["settings"]:
        name, value = str(row["name"]), str(row["setting"])
        own = row["category"] == "Customized Options" or name.startswith(_FILES)
        if own and value.startswith("/") and not name.startswith(DECIDED):
            found[name] = value.partition(":")[0]
    return found


def _named(
    where: str, texts: Iterable[Mapping[str, Any]], foreign: Belongings
) -> Iterator[Finding]:
    for row in texts:
        for line, mention in foreign.lines(str(row["text"])):
            subject, evidence = f"{where}{row['object']}", f"its line {line} names {mention}"
            yield _finding(subject, evidence, mention, foreign, "verify")


def _finding(subject: str, evidence: str, mention: str, foreign: Belongings, stage: str) -> Finding:
    id = "path-hard-coded" if mention in foreign.paths else "address-hard-coded"
    return finding(id, subject, evidence, stage)


def with_path(foreign: Belongings, path: str) -> Belongings:
    """The same belongings and one more directory."""
    return replace(foreign, paths=(*foreign.paths, path))
