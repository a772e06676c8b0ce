"""Counting in the source: what is cheap there, and what tells later that it still holds."""

USER_SCHEMAS = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema')"
    " AND n.nspname !~ '^pg_(toast|temp)' AND n.nspname !~ '^farside_r\\d{8}_\\d{6}_'"
)
"""Schemas that hold the site's own objects (farside's write probe is not one of them)."""

MODERATE_PAGES = 8192
"""A table of more pages (64 MiB) is not counted in production."""
ALL_PAGES = 32768
"""Nor are more than so many pages (256 MiB) of one database."""
MOST_TABLES = 2000
"""Nor more than so many tables of one database."""

# Merely to plan a count, the server may run functions in expressions of indexes and statistics.
# What is not a superuser's own never runs as one in production; for others, writing is forbidden.
_OTHERS_CODE = """
SELECT FROM (
  SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid = t.oid UNION ALL
  SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext WHERE stxrelid = t.oid
) AS planned(class, oid)
JOIN pg_depend d ON d.classid = planned.class AND d.objid = planned.oid
LEFT JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND d.refobjid = o.oid
LEFT JOIN pg_type y ON d.refclassid = 'pg_type'::regclass AND d.refobjid = y.oid
JOIN pg_roles r ON r.oid = coalesce(p.proowner, o.oprowner, y.typowner) AND NOT r.rolsuper
"""

# Each count is a transaction of its own: none holds a lock or a snapshot for long, and one that
# is refused (a lock, a policy, a missing privilege) leaves the others alone.
COUNT = rf"""
SET statement_timeout = '5s';
SET lock_timeout = '200ms';
SET default_transaction_read_only = on;
SELECT format('SELECT json_build_object(''part'', ''counted'', ''rows'', json_build_array('
              'json_build_object(''schema'', %L::text, ''name'', %L::text, ''count'','
              ' CASE WHEN (SELECT pg_relation_size(%s)) <= {MODERATE_PAGES * 8192}'
              ' THEN count(*) END))) FROM ONLY %I.%I'
              ' WHERE (SELECT pg_relation_size(%s)) <= {MODERATE_PAGES * 8192}',
              schema, name, oid, schema, name, oid)
FROM (SELECT n.nspname AS schema, c.relname AS name, c.oid, c.relpages,
             sum(c.relpages::bigint) OVER (ORDER BY c.relpages, c.oid) AS pages
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence = 'p'
        AND {USER_SCHEMAS}) AS t
WHERE relpages <= {MODERATE_PAGES} AND pages <= {ALL_PAGES}
  AND (current_setting('is_superuser') = 'off' OR NOT EXISTS ({_OTHERS_CODE}))
ORDER BY pages LIMIT {MOST_TABLES}
\gexec
"""
"""A script for `Psql.parts`: exact numbers of rows, of what may be read and is of moderate size."""

COUNTERS = f"""
SELECT n.nspname AS schema, c.relname AS name,
       coalesce(pg_relation_filenode(c.oid)::text, '0')
         || ' ' || pg_stat_get_tuples_inserted(c.oid)
         || ' ' || pg_stat_get_tuples_updated(c.oid) AS written,
       pg_stat_get_tuples_deleted(c.oid) AS deleted
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND current_setting('track_counts') = 'on'
  AND NOT pg_is_in_recovery() AND ({USER_SCHEMAS} OR c.relname ~ '^pg_largeobject(_metadata)?$')
  AND NOT EXISTS (SELECT 1 FROM pg_locks l WHERE l.relation = c.oid AND l.pid <> pg_backend_pid()
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND l.mode ~ '^(RowExclusive|ShareRowExclusive|Exclusive|AccessExclusive)')
"""
"""What has been written to each table, of those to which nobody is writing now.

One that is dropped meanwhile has no file any more: 0.
"""
