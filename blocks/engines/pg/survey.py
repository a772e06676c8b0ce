"""What a PostgreSQL server is: everything that the recovery side must be able to match."""

from dataclasses import replace
from typing import Any

from blocks.engines.pg.psql import Psql, identifier, literal

USER_SCHEMAS = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND n.nspname !~ '^pg_(toast|temp)' AND n.nspname !~ '^farside_'"
)
"""Schemas that hold the site's own objects (farside's write probe is not one of them)."""

SCHEMA_DIGEST = f"""
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
  SELECT format('routine %s %s %s', md5(pg_get_functiondef(p.oid)), pg_get_userbyid(p.proowner),
                p.proacl)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE p.prokind IN ('f', 'p') AND {USER_SCHEMAS}
  UNION ALL
  SELECT format('view %I.%I %s', n.nspname, c.relname, md5(pg_get_viewdef(c.oid)))
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
                p.polpermissive, pg_get_expr(p.polqual, p.polrelid),
                pg_get_expr(p.polwithcheck, p.polrelid))
  FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {USER_SCHEMAS}
  UNION ALL
  SELECT format('extension %I %s', extname, extversion) FROM pg_extension
) AS lines
"""
"""One digest over the definitions of all of a database's own objects, owners and grants."""

TABLES = f"""
SELECT n.nspname AS schema, c.relname AS name, c.relpersistence = 'u' AS unlogged,
       CASE WHEN c.reltuples < 0 THEN live.rows WHEN live.rows = 0 THEN c.reltuples::bigint
            ELSE least(c.reltuples::bigint, live.rows) END AS rows
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT coalesce(pg_stat_get_live_tuples(c.oid), 0) AS rows) AS live
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {USER_SCHEMAS}
ORDER BY 1, 2
"""
"""Tables with the lower of two estimates of their rows, where there are two.

The planner's is as old as the last ANALYZE; the statistics count rows twice that were inserted in
the transaction of an ANALYZE.
"""

_SERVER = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_num,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline,
       current_setting('data_checksums') = 'on' AS data_checksums,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')
         AS wal_segment_size,
       pg_is_in_recovery() AS in_recovery,
       current_setting('shared_preload_libraries') AS shared_preload_libraries,
       current_setting('data_directory') AS data_directory,
       current_user AS superuser
"""

_SETTINGS = """
SELECT name, reset_val AS setting, category, context, source, sourcefile, sourceline
FROM pg_settings
WHERE source NOT IN ('default', 'override', 'client', 'session', 'interactive')
   OR name IN ('max_connections', 'max_worker_processes', 'max_wal_senders',
               'max_prepared_transactions', 'max_locks_per_transaction',
               'TimeZone', 'DateStyle', 'lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time',
               'default_text_search_config')
UNION ALL
SELECT f.name, f.setting, 'Customized Options', 'user', 'configuration file', sourcefile, sourceline
FROM pg_file_settings f
WHERE f.applied AND f.name LIKE '%.%'
  AND NOT EXISTS (SELECT 1 FROM pg_settings s WHERE s.name = f.name)
ORDER BY name
"""
# pg_settings hides the names that no loaded library knows; an application may rely on them.

_TABLESPACES = """
SELECT oid::text AS oid, spcname AS name, pg_tablespace_location(oid) AS location,
       pg_tablespace_size(oid) AS bytes
FROM pg_tablespace WHERE pg_tablespace_location(oid) <> '' ORDER BY oid
"""

_ROLES = """
SELECT rolname AS name, rolsuper AS superuser, rolcanlogin AS login,
       rolreplication AS replication,
       CASE WHEN rolpassword IS NULL THEN 'none' WHEN rolpassword LIKE 'SCRAM-SHA-256$%'
            THEN 'scram-sha-256' ELSE 'md5' END AS password
FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY rolname
"""

# Columns for locale providers and versions came with 15.
_DATABASES = """
SELECT datname AS name, pg_encoding_to_char(encoding) AS encoding, datcollate AS collate,
       datctype AS ctype, datlocprovider::text AS provider, datcollversion AS recorded_version,
       pg_database_collation_actual_version(oid) AS actual_version,
       pg_database_size(oid) AS bytes
FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname
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

# Of the rules by which clients are let in, those that need somebody else, or name somebody.
_LOGINS = """
SELECT line_number AS line, auth_method AS method, array_to_string(options, ' ') AS options
FROM pg_hba_file_rules
WHERE auth_method NOT IN ('trust', 'reject', 'md5', 'scram-sha-256', 'password', 'peer', 'ident')
ORDER BY 1
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

COLLATIONS = """
SELECT n.nspname || '.' || c.collname AS name, c.collversion AS recorded_version,
       pg_collation_actual_version(c.oid) AS actual_version
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
WHERE c.collversion IS NOT NULL
  AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attcollation = c.oid)
ORDER BY 1
"""

SEQUENCES = f"""
SELECT n.nspname AS schema, c.relname AS name, s.seqincrement AS increment,
       pg_sequence_last_value(c.oid::regclass) AS value
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relpersistence = 'p' AND {USER_SCHEMAS}
ORDER BY 1, 2
"""

LARGE_OBJECTS = "SELECT count(*) AS count FROM pg_largeobject_metadata"

_EXTENSIONS = "SELECT extname AS name, extversion AS version FROM pg_extension ORDER BY 1"

_SUBSCRIPTIONS = (
    "SELECT subname AS name, subenabled AS enabled FROM pg_subscription s"
    " JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database() ORDER BY 1"
)


def survey(psql: Psql) -> dict[str, Any]:
    """Facts of the server as plain JSON. Reads only. Raises as Psql does."""
    facts: dict[str, Any] = psql.rows("postgres", _SERVER)[0]
    # A session with settings of its own would not see what others get.
    facts["settings"] = replace(psql, options="").rows("postgres", _SETTINGS)
    facts["tablespaces"] = psql.rows("postgres", _TABLESPACES)
    facts["roles"] = psql.rows("postgres", _ROLES)
    facts["databases"] = psql.rows("postgres", _DATABASES)
    facts["closed_databases"] = psql.rows("postgres", _CLOSED)
    facts["logical_slots"] = psql.rows("postgres", _LOGICAL_SLOTS)
    facts["logins"] = psql.rows("postgres", _LOGINS)
    for database in facts["databases"]:
        name = database["name"]
        database["collations"] = psql.rows(name, COLLATIONS)
        database["extensions"] = psql.rows(name, _EXTENSIONS)
        database["subscriptions"] = psql.rows(name, _SUBSCRIPTIONS)
        database["tables"] = psql.rows(name, TABLES)
        database["sequences"] = psql.rows(name, SEQUENCES)
        database["large_objects"] = psql.rows(name, LARGE_OBJECTS)[0]["count"]
        database["index_methods"] = psql.rows(name, _METHODS)
        database["schema_digest"] = psql.rows(name, SCHEMA_DIGEST)[0]["digest"]
    return facts


def data_bytes(facts: Any) -> int:
    """Bytes of all databases outside tablespaces' own accounting: what a restore will take."""
    return sum(int(database["bytes"]) for database in facts["databases"])


def major(facts: Any) -> int:
    """The major version: a set is restored by the same one."""
    return int(facts["version_num"]) // 10000


def write_probe(rehearsal_id: str) -> tuple[str, str, str]:
    """SQL that commits a row in a schema of our own, reads it in another session, removes it."""
    schema = identifier("farside_" + rehearsal_id.replace("-", "_"))
    token = literal(rehearsal_id)
    return (
        f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.probe (token text);"
        f" INSERT INTO {schema}.probe VALUES ({token});",
        f"SELECT token FROM {schema}.probe",
        f"DROP SCHEMA {schema} CASCADE;",
    )
