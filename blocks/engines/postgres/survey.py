"""What a PostgreSQL server is: everything that the recovery side must be able to match."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from zlib import crc32

from blocks.agent.redaction import redacted_value
from blocks.engines.postgres import burden, counting, files, privileges, sequences
from blocks.engines.postgres.counting import USER_SCHEMAS
from blocks.engines.postgres.psql import CLUSTER, LoginRefused, NoDatabase, Psql, SqlError, literal
from blocks.errors import FarsideError, TransientError
from blocks.workers import Workers

AT_ONCE = 4
"""Databases that are looked into at the same time."""

_DIGEST = f"""
SELECT md5(coalesce(string_agg(line, E'\\n' ORDER BY line COLLATE "C"), '')) AS digest
FROM (
  SELECT format('relation %I.%I %s %s %s %s %s', n.nspname, c.relname, c.relkind,
                c.relpersistence, pg_get_userbyid(c.relowner), c.relacl, c.relrowsecurity) AS line
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind <> 't' AND {USER_SCHEMAS}
  UNION ALL
  SELECT format('column %I.%I.%I %s %s %s', n.nspname, c.relname, a.attname,
                format_type(a.atttypid, a.atttypmod), a.attnotnull,
                pg_get_expr(d.adbin, d.adrelid))
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
    AND {USER_SCHEMAS}
  UNION ALL
  SELECT 'index ' || pg_get_indexdef(i.indexrelid)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMAS}
  UNION ALL
  SELECT format('constraint %I.%I %s', n.nspname, k.conname, pg_get_constraintdef(k.oid))
  FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE {USER_SCHEMAS}
  UNION ALL
  SELECT format('routine %s %s %s', md5(ROUTINE), pg_get_userbyid(p.proowner),
                p.proacl)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE p.prokind IN ('f', 'p') AND {USER_SCHEMAS}
  UNION ALL
  SELECT format('view %I.%I %s', n.nspname, c.relname, md5(VIEW))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('v', 'm') AND {USER_SCHEMAS}
  UNION ALL
  SELECT 'trigger ' || pg_get_triggerdef(t.oid)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT t.tgisinternal AND {USER_SCHEMAS}
  UNION ALL
  SELECT format('schema %I %s %s', n.nspname, pg_get_userbyid(n.nspowner), n.nspacl)
  FROM pg_namespace n WHERE {USER_SCHEMAS}
  UNION ALL
  SELECT format('type %I.%I %s %s %s %s', n.nspname, t.typname, t.typtype,
                pg_get_userbyid(t.typowner), t.typacl,
                (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder)
                 FROM pg_enum WHERE enumtypid = t.oid))
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE t.typtype IN ('d', 'e', 'r') AND {USER_SCHEMAS}
  UNION ALL
  SELECT format('sequence %I.%I %s %s %s %s %s', n.nspname, c.relname, s.seqstart, s.seqincrement,
                s.seqmin, s.seqmax, s.seqcycle)
  FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMAS}
  UNION ALL
  SELECT format('policy %I.%I %I %s %s %s %s', n.nspname, c.relname, p.polname, p.polcmd,
                p.polpermissive, USING, CHECKED)
  FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMAS}
  UNION ALL
  SELECT format('extension %I %s', extname, extversion) FROM pg_extension
) AS lines
"""


CATALOG_WRITES = """
SELECT sum(pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
           + pg_stat_get_tuples_deleted(c.oid))::bigint AS count
FROM pg_class c
WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relname IN ('pg_class', 'pg_attribute',
  'pg_attrdef', 'pg_index', 'pg_constraint', 'pg_proc', 'pg_rewrite', 'pg_trigger', 'pg_namespace',
  'pg_type', 'pg_enum', 'pg_sequence', 'pg_policy', 'pg_extension')
"""
"""What was written to the catalogs that the digest is made of: two equal digests may have had
another between them."""


def _digest(**definitions: str) -> str:
    text = _DIGEST
    for name, expression in definitions.items():
        text = text.replace(name, expression)
    return text


_FORMER = _digest(
    ROUTINE="pg_get_functiondef(p.oid)",
    VIEW="pg_get_viewdef(c.oid)",
    USING="pg_get_expr(p.polqual, p.polrelid)",
    CHECKED="pg_get_expr(p.polwithcheck, p.polrelid)",
)
# To put a stored query into words, the server locks all that it names until the statement's end:
# of thousands of views, that leaves production's transactions no room in the table of locks. A
# restored catalog is a copy: what is stored is the same there.
_AS_STORED = "2:"
SCHEMA_DIGEST = _digest(
    ROUTINE="CASE WHEN p.prosqlbody IS NULL THEN pg_get_functiondef(p.oid) ELSE p::text END",
    VIEW="(SELECT string_agg(r.ev_action::text, '' ORDER BY r.rulename)"
    " FROM pg_rewrite r WHERE r.ev_class = c.oid)",
    USING="p.polqual::text",
    CHECKED="p.polwithcheck::text",
).replace("SELECT md5(", f"SELECT '{_AS_STORED}' || md5(", 1)
"""One digest over the definitions of all of a database's own objects, owners and grants."""


def digest_like(former: str) -> str:
    """What asks for the digest of the same kind as one that a set has."""
    return SCHEMA_DIGEST if former.startswith(_AS_STORED) else _FORMER


TABLES = f"""
SELECT n.nspname AS schema, c.relname AS name, c.relpersistence = 'u' AS unlogged,
       has_table_privilege(c.oid, 'SELECT') AS readable,
       pg_relation_filenode(c.oid) AS file, c.reltoastrelid <> 0 AS apart,
       CASE WHEN c.reltuples < 0 THEN nullif(live.rows, 0)
            WHEN live.rows = 0 THEN c.reltuples::bigint
            ELSE least(c.reltuples::bigint, live.rows) END AS rows
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT coalesce(pg_stat_get_live_tuples(c.oid), 0) AS rows) AS live
WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't' AND {USER_SCHEMAS}
ORDER BY 1, 2
"""
"""Tables and materialized views that are filled, with the lower of two estimates of their rows,
where there are two; NULL without one.

A table that is emptied, rewritten or created again has another file, in a physical backup as
well. The planner's estimate is as old as the last ANALYZE; the statistics count rows twice that
were inserted in the transaction of an ANALYZE, and are empty after a crash and on a standby.
"""

INDEXES = """
SELECT indexrelid::regclass::text AS name, indexrelid::bigint AS oid,
       indisvalid AND indisready AND indislive AS usable
FROM pg_index
UNION ALL
SELECT oid::regclass::text, oid::bigint, relispopulated FROM pg_class WHERE relkind = 'm'
"""
"""Indexes and materialized views, and whether queries can use them."""
UNUSABLE = f"SELECT name, oid FROM ({INDEXES}) AS i WHERE NOT usable ORDER BY 1"
"""Indexes that no query uses, and materialized views that none can read."""

_SERVER = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_num,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline,
       current_setting('data_checksums') = 'on' AS data_checksums,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')
         AS wal_segment_size,
       pg_is_in_recovery() AS in_recovery,
       extract(epoch FROM pg_postmaster_start_time())::bigint AS started,
       current_setting('shared_preload_libraries') AS shared_preload_libraries,
       current_setting('data_directory') AS data_directory,
       current_database() AS maintenance_database,
       (SELECT rolname FROM pg_roles WHERE rolsuper AND (rolcanlogin OR rolname = current_user)
        ORDER BY rolname <> current_user, oid LIMIT 1) AS superuser
"""
# The superuser as which farside connects to the restored server, through its private socket.

_SETTINGS = """
SELECT name, reset_val AS setting, category, context, source, sourcefile, sourceline
FROM pg_settings
WHERE source NOT IN ('default', 'override', 'client', 'session', 'interactive')
   OR (source = 'session' AND reset_val <> boot_val)
   OR name IN ('max_connections', 'max_worker_processes', 'max_wal_senders',
               'max_prepared_transactions', 'max_locks_per_transaction',
               'TimeZone', 'DateStyle', 'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time',
               'default_text_search_config')
ORDER BY name
"""

# One within the data directory is a tablespace like others from 16 on: pg_basebackup of 15 leaves
# it out, and what it holds is missing from every restore. Of one whose directory is gone, the
# server tells no size.
_TABLESPACES = """
SELECT oid::text AS oid, spcname AS name, pg_tablespace_location(oid) AS location,
       coalesce(pg_tablespace_size(oid), 0) AS bytes
FROM pg_tablespace
WHERE pg_tablespace_location(oid) LIKE CASE
  WHEN current_setting('server_version_num')::int < 160000 THEN '/%' ELSE '_%' END
ORDER BY oid
"""

ROLES = """
SELECT rolname AS name, oid::bigint AS oid, rolsuper AS superuser, rolcanlogin AS login,
       rolreplication AS replication, coalesce(rolvaliduntil < now(), false) AS expired
FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname
"""

_OPEN = "datallowconn AND datconnlimit <> -2"
OPEN = f"SELECT datname AS name, oid::bigint AS oid FROM pg_database WHERE {_OPEN}"
"""The databases that take connections."""

# Columns for locale providers and versions came with 15.
_DATABASES = f"""
SELECT datname AS name, oid::bigint AS oid,
       pg_encoding_to_char(encoding) AS encoding, datcollate AS collate,
       datctype AS ctype, datlocprovider::text AS provider, datcollversion AS recorded_version,
       pg_database_collation_actual_version(oid) AS actual_version,
       pg_database_size(oid) AS bytes,
       has_database_privilege(oid, 'CONNECT') AS may_connect
FROM pg_database WHERE {_OPEN} ORDER BY datname
"""

# Those that take no connections, and what a broken-off DROP DATABASE has left.
_CLOSED = """
SELECT datname AS name, datconnlimit = -2 AS invalid
FROM pg_database WHERE (NOT datallowconn AND datname <> 'template0') OR datconnlimit = -2
ORDER BY 1
"""

_LOGICAL_SLOTS = """
SELECT slot_name AS name, database FROM pg_replication_slots WHERE slot_type = 'logical' ORDER BY 1
"""

_METHODS = f"""
SELECT m.amname AS method, count(*) AS count
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE m.amname <> 'btree' AND {USER_SCHEMAS} GROUP BY 1 ORDER BY 1
"""

STANDBYS = """
SELECT r.application_name AS name, host(r.client_addr) AS address, r.pid
FROM pg_stat_replication r
WHERE r.state <> 'backup' AND r.replay_lsn IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM pg_replication_slots s
                  WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
ORDER BY 1, 2, 3
"""

# Farside's own receivers come later, and from the source's own hosts.
_PEERS = """
SELECT coalesce(application_name, '') AS name, host(client_addr) AS address,
       coalesce(sync_state, 'sync') <> 'async' AS awaited
FROM pg_stat_replication WHERE client_addr IS NOT NULL
UNION ALL
SELECT 'primary', sender_host, true FROM pg_stat_wal_receiver WHERE sender_host IS NOT NULL
ORDER BY 1, 2
"""

COLLATIONS = """
SELECT n.nspname || '.' || c.collname AS name, c.collversion AS recorded_version,
       pg_collation_actual_version(c.oid) AS actual_version
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE c.collversion IS NOT NULL
  AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attcollation = c.oid)
ORDER BY 1
"""

LARGE_OBJECTS = "SELECT count(ctid) AS count FROM pg_largeobject_metadata"
OBJECT_PAGES = "SELECT count(ctid) AS count FROM pg_largeobject"
_PAGES_IF_MODERATE = (
    f"SELECT CASE WHEN pg_relation_size('pg_largeobject') <= {counting.MODERATE_PAGES * 8192}"
    f" THEN ({OBJECT_PAGES}) END AS count"
)

EXTENSIONS = """
SELECT extname AS name, extversion AS version,
       EXISTS (SELECT 1 FROM pg_available_extension_versions v
               WHERE v.name = e.extname AND v.version = e.extversion) AS offered,
       EXISTS (SELECT 1 FROM pg_available_extensions a WHERE a.name = e.extname) AS control
FROM pg_extension e ORDER BY 1
"""

SESSIONS = """
SELECT CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) ELSE '' END AS role,
       coalesce(d.datname, '') AS database,
       split_part(setting, '=', 1) AS name, substr(setting, strpos(setting, '=') + 1) AS value
FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase,
     unnest(s.setconfig) AS setting
WHERE lower(split_part(setting, '=', 1)) IN ('session_preload_libraries',
  'local_preload_libraries', 'lc_monetary', 'lc_numeric', 'lc_time', 'lc_messages', 'timezone',
  'timezone_abbreviations', 'default_transaction_read_only')
ORDER BY 1, 2, 3
"""
"""What sessions of some roles, or in some databases, are made to load or to set."""

# Of the C library's locales, those that columns sort by, or that anything else is made with: a
# domain, a partition key, an expression.
_LOCALES = """
SELECT DISTINCT n.nspname || '.' || c.collname AS name, l.locale
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
CROSS JOIN LATERAL (VALUES (c.collcollate), (c.collctype)) AS l(locale)
WHERE c.collprovider = 'c' AND l.locale IS NOT NULL
  AND (EXISTS (SELECT 1 FROM pg_attribute a
               WHERE a.attcollation = c.oid AND a.attrelid >= 16384)
    OR EXISTS (SELECT 1 FROM pg_depend d
               WHERE d.refclassid = 'pg_collation'::regclass AND d.refobjid = c.oid))
ORDER BY 1, 2
"""

_SUBSCRIPTIONS = (
    "SELECT subname AS name, subenabled AS enabled FROM pg_subscription s"
    " JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database() ORDER BY 1"
)


_OF_DATABASE = {
    "counters": counting.COUNTERS,
    "collations": COLLATIONS,
    "locales": _LOCALES,
    "extensions": EXTENSIONS,
    "subscriptions": _SUBSCRIPTIONS,
    "tables": TABLES,
    "sequences": sequences.LIST,
    "large_objects": LARGE_OBJECTS,
    "object_pages": _PAGES_IF_MODERATE,
    "index_methods": _METHODS,
    "unusable": UNUSABLE,
    "schema_digest": SCHEMA_DIGEST,
    "catalog_writes": CATALOG_WRITES,
}
_MORE = files.DICTIONARIES + sequences.VALUES + counting.COUNT
_SINGLE = {
    "large_objects": "count",
    "object_pages": "count",
    "schema_digest": "digest",
    "catalog_writes": "count",
}
"""Parts that are one number or text: the column that holds it."""
SECONDS = 180.0
"""Time limit for looking into one database."""
_LISTS = ("extensions", "subscriptions", "index_methods", "locales")
"""Parts that hold nothing, rather than None, where they could not be read."""


def survey(psql: Psql) -> dict[str, Any]:
    """Facts of the server as plain JSON. Reads only. Raises as Psql does, and Lacking.

    A part that cannot be read (a lock, a missing privilege) is None, and `unread`, the server's or
    the database's, says why: a physical backup needs none of it.
    """
    privileges.require(psql)
    facts: dict[str, Any] = psql.rows(CLUSTER, _SERVER)[0]
    # A session with settings of its own would not see what others get.
    facts["settings"] = psql.seeing_defaults().rows(CLUSTER, _SETTINGS)
    facts["burden"] = burden.survey(psql)
    facts["tablespaces"] = psql.rows(CLUSTER, _TABLESPACES)
    facts["roles"] = psql.rows(CLUSTER, ROLES)
    privileges.add_what_few_may_see(psql, facts)
    # A manifest is signed, not sealed: who reads a store reads it.
    for row in facts["settings"]:
        row["setting"] = redacted_value(row["name"], row["setting"] or "")
    facts["databases"] = psql.rows(CLUSTER, _DATABASES)
    facts["closed_databases"] = psql.rows(CLUSTER, _CLOSED)
    facts["peers"] = psql.rows(CLUSTER, _PEERS)
    facts["logical_slots"] = psql.rows(CLUSTER, _LOGICAL_SLOTS)
    facts["sessions"] = psql.rows(CLUSTER, SESSIONS)
    queries = dict(_OF_DATABASE)
    if psql.rows(CLUSTER, files.MAY_LOOK)[0]["may"]:
        queries["libraries"] = files.LIBRARIES
    # A site may have many databases, and each session takes its time: a few at once.
    with Workers(AT_ONCE, "survey") as pool:
        there = list(
            pool.map(lambda database: _look_into(psql, database, queries), facts["databases"])
        )
    facts["databases"] = [row for row, kept in zip(facts["databases"], there, strict=True) if kept]
    return facts


_NO_TEXT = "\N{REPLACEMENT CHARACTER}"
"""Where bytes of a name are no text: the server knows none of the name that is read."""


def _is_there(psql: Psql, database: str) -> bool:
    """Whether the server has a database; where it cannot say, it has."""
    if _NO_TEXT in database:
        return True
    with suppress(FarsideError):
        ask = f"SELECT 1 AS one FROM pg_database WHERE datname = {literal(database)}"
        return bool(psql.rows(CLUSTER, ask))
    return True


def _look_into(psql: Psql, database: dict[str, Any], queries: Mapping[str, str]) -> bool:
    """Add to the row of a database what only a session in it can tell; false if it was dropped."""
    name = database["name"]
    found, database["unread"] = dict[str, Any](), dict[str, str]()
    try:
        if database["may_connect"]:
            found, database["unread"] = psql.parts(name, queries, more=_MORE, timeout=SECONDS)
        else:
            database["unread"] = {"contents": privileges.to_connect(psql, name)}
    except FarsideError as error:
        # psql tells no SQLSTATE of a connection that failed, and its words may be in any language.
        if not _is_there(psql, name):
            return False
        if not isinstance(error, LoginRefused | NoDatabase | SqlError | TransientError):
            raise
        database["unread"] = {"contents": error.message}
    sequences.add_values(found)
    for part in (*_OF_DATABASE, "libraries", "dictionaries"):
        database[part] = found.get(part, [] if part in _LISTS else None)
    for part, column in _SINGLE.items():
        if database[part] is not None:
            database[part] = database[part][0][column]
    numbers = {(row["schema"], row["name"]): row["count"] for row in found.get("counted", ())}
    for table in database["tables"] or ():
        table["count"] = numbers.get((table["schema"], table["name"]))
    return True


_PROBES = 4_000_000_000
"""Numbers of large objects from here on, which servers give away last, are for write_probe."""


def data_bytes(facts: Any) -> int:
    """Bytes of all databases outside tablespaces' own accounting: what a restore will take."""
    return sum(int(database["bytes"]) for database in facts["databases"])


def data_files(facts: Any) -> int:
    """How many files the data have at least: those that every database has, and of tables two."""
    tables = sum(len(database["tables"] or ()) for database in facts["databases"])
    return 500 + 250 * len(facts["databases"]) + 2 * tables


def major(facts: Any) -> int:
    """The major version: a set is restored by the same one."""
    return int(facts["version_num"]) // 10000


def write_probe(rehearsal_id: str) -> tuple[str, str, str]:
    """SQL that commits a row, reads it in another session, and removes it.

    A large object: a table would be DDL, which a site's event triggers may forbid.
    """
    number = _PROBES + crc32(rehearsal_id.encode()) % (2**32 - _PROBES)
    return (
        f"SELECT lo_from_bytea({number}, {literal(rehearsal_id)}::bytea);",
        f"SELECT convert_from(lo_get({number}), 'UTF8')",
        f"SELECT lo_unlink({number});",
    )
