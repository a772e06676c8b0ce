"""What a PostgreSQL server is asked about itself."""

from blocks.engines.postgres import counting
from blocks.engines.postgres.counting import USER_SCHEMAS

TABLES = f"""
SELECT n.nspname AS schema, c.relname AS name, c.relpersistence = 'u' AS unlogged,
       coalesce(has_table_privilege(c.oid, 'SELECT'), false) AS readable,
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
Of one that is dropped meanwhile, the server tells no privilege: that is not readable.
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

SERVER = """
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

SETTINGS = """
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
TABLESPACES = """
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
DATABASES = f"""
SELECT datname AS name, oid::bigint AS oid,
       pg_encoding_to_char(encoding) AS encoding, datcollate AS collate,
       datctype AS ctype, datlocprovider::text AS provider, datcollversion AS recorded_version,
       pg_database_collation_actual_version(oid) AS actual_version,
       pg_database_size(oid) AS bytes,
       has_database_privilege(oid, 'CONNECT') AS may_connect
FROM pg_database WHERE {_OPEN} ORDER BY datname
"""

# Those that take no connections, and what a broken-off DROP DATABASE has left.
CLOSED = """
SELECT datname AS name, datconnlimit = -2 AS invalid
FROM pg_database WHERE (NOT datallowconn AND datname <> 'template0') OR datconnlimit = -2
ORDER BY 1
"""

LOGICAL_SLOTS = """
SELECT slot_name AS name, database FROM pg_replication_slots WHERE slot_type = 'logical' ORDER BY 1
"""

METHODS = f"""
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
PEERS = """
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
PAGES_IF_MODERATE = (
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
LOCALES = """
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

SUBSCRIPTIONS = (
    "SELECT subname AS name, subenabled AS enabled FROM pg_subscription s"
    " JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database() ORDER BY 1"
)
