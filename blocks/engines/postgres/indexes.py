"""B-tree indexes against their tables: by amcheck, or by scans of both."""

import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from blocks.artifact import wire
from blocks.engines.checks import Answer, CheckSpec
from blocks.engines.postgres.facts import Database
from blocks.engines.postgres.psql import CLUSTER, Psql, literal
from blocks.engines.postgres.sessions import AS_OWNER, NO_EVENT_TRIGGERS
from blocks.engines.postgres.tally import DAMAGED, Tally
from blocks.errors import FarsideError, TransientError
from blocks.evidence.catalogue import FindingId

HOURS = 3600.0
_RESTART_SECONDS = 120.0
"""Time limit for a server to come back after one of its processes has died."""
_CRASHED = "server closed the connection unexpectedly"
_DAMAGED = ", ".join(f"'{state}'" for state in DAMAGED)

_BTREES = """
SELECT i.indexrelid, i.indexrelid::regclass::text AS name, i.indrelid,
       i.indrelid::regclass::text AS rel, pg_get_expr(i.indpred, i.indrelid) AS predicate,
       c.relname, n.nspname, pg_get_userbyid(c.relowner) AS owner,
       n.nspname IN ('pg_catalog', 'pg_toast') AS catalog
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am m ON m.oid = c.relam
WHERE m.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND i.indisready
  AND n.nspname !~ '^pg_(temp|toast_temp)' AND c.relpersistence = 'p'
ORDER BY 1
"""

# Where amcheck is, or could be made, in a version that compares heap and index.
_SCHEMA = """
SELECT coalesce(
  (SELECT n.nspname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   JOIN pg_extension e ON e.extname = 'amcheck' JOIN pg_depend d ON d.objid = p.oid
    AND d.refobjid = e.oid AND d.deptype = 'e'
   WHERE p.proname = 'bt_index_parent_check' AND p.pronargs >= 2 LIMIT 1),
  (SELECT 'farside_amcheck' FROM pg_available_extensions
   WHERE name = 'amcheck' AND installed_version IS NULL))
"""

_AMCHECK_SCHEMA = "$$SCHEMA$$"
_STATE = "GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT;"
_JUDGED = f"""
      {_STATE}
      IF state IN ({_DAMAGED}) THEN
        bad := bad || jsonb_build_object('index', r.name, 'problem', said);
      ELSE
        skipped := skipped || to_jsonb(r.name || ': ' || said);
      END IF;
"""
_RESULT = """
  PERFORM set_config('farside.result', jsonb_build_object(
    'done', done, 'leaves_only', leaves_only, 'bad', bad, 'skipped', skipped)::text, false);
END $farside$;
SELECT current_setting('farside.result');
ROLLBACK;
"""

# Every heap tuple must be found in the index, and parents agree with children (PostgreSQL docs,
# amcheck, which evaluates expressions as the table's owner). Where a transaction that came along
# prepared has locked the table, parents are not compared: that needs a lock that is never granted.
# What is made is rolled back, and so is that event triggers that always fire do not forbid it.
_AMCHECK = f"""
BEGIN;
SET LOCAL lock_timeout = '5s';
{NO_EVENT_TRIGGERS}
CREATE SCHEMA IF NOT EXISTS farside_amcheck;
CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA farside_amcheck;
DO $farside$
DECLARE
  r record; done int := 0; leaves_only int := 0; bad jsonb := '[]'; skipped jsonb := '[]';
  state text; said text;
BEGIN
  FOR r IN {_BTREES} LOOP
    BEGIN
      BEGIN
        EXECUTE format('SELECT %I.bt_index_parent_check($1::regclass, true)', {_AMCHECK_SCHEMA})
          USING r.indexrelid;
      EXCEPTION WHEN lock_not_available THEN
        EXECUTE format('SELECT %I.bt_index_check($1::regclass, true)', {_AMCHECK_SCHEMA})
          USING r.indexrelid;
        leaves_only := leaves_only + 1;
      END;
      done := done + 1;
    EXCEPTION
      -- An expression whose functions find others by the search_path that applications have.
      WHEN undefined_function OR undefined_table OR undefined_object THEN
        BEGIN
          PERFORM set_config('search_path', format('%I, %I, public', r.owner, r.nspname), true);
          EXECUTE format('SELECT %I.bt_index_check($1::pg_catalog.regclass, true)',
            {_AMCHECK_SCHEMA}) USING r.indexrelid;
          done := done + 1; leaves_only := leaves_only + 1;
        EXCEPTION WHEN OTHERS THEN
          {_JUDGED}
        END;
        PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
      WHEN OTHERS THEN
        {_JUDGED}
    END;
  END LOOP;
  {_RESULT}
"""

# Part of _SCANS. The key columns of an index: its expressions in the index's own collation, and
# the operator of its own operator class that sorts them (strategy 1 is <, 5 is >). `precedes` is
# -1 where the current key belongs before the previous one.
_KEYS = """
SELECT string_agg(expression, ', ' ORDER BY k) AS expressions,
       string_agg(expression || ' AS k' || k, ', ' ORDER BY k) AS columns,
       string_agg(format('lag(k%s) OVER w AS p%s', k, k), ', ' ORDER BY k) AS previous,
       string_agg(format('k%s USING %s NULLS %s', k, operator, nulls), ', ' ORDER BY k) AS ordering,
       string_agg(format('nullif(CASE WHEN num_nulls(k%1$s) + num_nulls(p%1$s) = 2 THEN 0'
         ' WHEN num_nulls(k%1$s) = 1 THEN %2$s WHEN num_nulls(p%1$s) = 1 THEN -(%2$s)'
         ' WHEN k%1$s %3$s p%1$s THEN -1 WHEN p%1$s %3$s k%1$s THEN 1 ELSE 0 END, 0)',
         k, CASE nulls WHEN 'FIRST' THEN -1 ELSE 1 END, operator), ', ' ORDER BY k) AS precedes
INTO STRICT key
FROM (
  SELECT k, '(' || pg_get_indexdef(i.indexrelid, k, false) || ')'
         || CASE WHEN co.oid IS NOT NULL
            THEN format(' COLLATE %I.%I', cn.nspname, co.collname) ELSE '' END AS expression,
         format('OPERATOR(%I.%s)', n.nspname, o.oprname) AS operator,
         CASE WHEN i.indoption[k - 1] & 2 = 2 THEN 'FIRST' ELSE 'LAST' END AS nulls
  FROM pg_index i CROSS JOIN generate_series(1, i.indnkeyatts) k
  JOIN pg_opclass oc ON oc.oid = i.indclass[k - 1]
  JOIN pg_amop a ON a.amopfamily = oc.opcfamily AND a.amoplefttype = oc.opcintype
   AND a.amoprighttype = oc.opcintype
   AND a.amopstrategy = CASE WHEN i.indoption[k - 1] & 1 = 1 THEN 5 ELSE 1 END
  JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
  LEFT JOIN pg_collation co ON co.oid = i.indcollation[k - 1]
  LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
  WHERE i.indexrelid = r.indexrelid
) AS columns;
"""

# Without amcheck: the same rows read through the index, in order, and from the table alone.
# Row contents and their places (ctid) are summed up as hashes; an index that misses a row, has
# one too many, points to a wrong one or is out of order gives another answer. The table's other
# indexes are hidden from the planner meanwhile, and no row policy applies to its owner, the role
# that runs expressions; everything is rolled back. Catalogs hold no code of users, and to become an
# owner changes them.
_SCANS = rf"""
BEGIN ISOLATION LEVEL REPEATABLE READ;
{NO_EVENT_TRIGGERS}{AS_OWNER}
CREATE FUNCTION pg_temp.farside_asked(catalog boolean, owner name, command text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $asked$
DECLARE answer jsonb;
BEGIN
  IF NOT catalog THEN
    RETURN pg_temp.farside_as_owner(owner, command);
  END IF;
  EXECUTE command INTO answer;
  RETURN answer;
END $asked$;
DO $farside$
DECLARE
  r record; key record; heap jsonb; scan jsonb; plan text; source text; through text;
  done int := 0; leaves_only int := 0; bad jsonb := '[]'; skipped jsonb := '[]';
  state text; said text;
BEGIN
  SET LOCAL max_parallel_workers_per_gather = 0;
  SET LOCAL jit = off;
  SET LOCAL enable_bitmapscan = off;
  SET LOCAL enable_indexonlyscan = off;
  FOR r IN {_BTREES} LOOP
   BEGIN
    {_KEYS}
    UPDATE pg_index SET indisvalid = false
     WHERE indrelid = r.indrelid AND indexrelid <> r.indexrelid;
    IF NOT r.catalog THEN -- an owner need not have it
      EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', r.nspname, r.owner);
    END IF;
    UPDATE pg_class SET relforcerowsecurity = false WHERE oid = r.indrelid AND relforcerowsecurity;
    source := r.rel || CASE WHEN r.predicate IS NULL THEN '' ELSE ' WHERE ' || r.predicate END;
    SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_sort = on;
    heap := pg_temp.farside_asked(r.catalog, r.owner, format(
      'SELECT jsonb_build_object(''n'', count(*),'
      ' ''h'', sum(hashtextextended(ROW(ctid, %s)::text, 0)::numeric)) FROM %s',
      key.expressions, source));
    SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = on; SET LOCAL enable_sort = off;
    through := format('SELECT jsonb_build_object(''n'', count(*), ''h'', sum(h), ''disorder'','
                      ' count(*) FILTER (WHERE place > 1 AND coalesce(%s) = -1))'
                      ' FROM (SELECT *, row_number() OVER w AS place, %s'
                      ' FROM (SELECT hashtextextended(ROW(ctid, %s)::text, 0)'
                      '::numeric AS h, %s FROM %s) AS q WINDOW w AS (ORDER BY %s)) AS s',
                      key.precedes, key.previous, key.expressions, key.columns, source,
                      key.ordering);
    plan := pg_temp.farside_asked(r.catalog, r.owner, 'EXPLAIN (FORMAT JSON) ' || through)::text;
    IF position('"Index Name": ' || to_json(r.relname::text)::text IN plan) = 0
       OR plan ~ '"Node Type": "(Incremental )?Sort"' THEN
      skipped := skipped || to_jsonb(r.name || ': the planner does not read it in order');
    ELSE
      scan := pg_temp.farside_asked(r.catalog, r.owner, through);
      IF (scan->'n', scan->'h') IS DISTINCT FROM (heap->'n', heap->'h') THEN
        bad := bad || jsonb_build_object('index', r.name, 'problem', format(
          'the index gives %s rows, the table %s, or other ones', scan->>'n', heap->>'n'));
      ELSIF (scan->>'disorder')::bigint > 0 THEN
        bad := bad || jsonb_build_object('index', r.name, 'problem', format(
          '%s rows out of order', scan->>'disorder'));
      END IF;
      done := done + 1;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'FS000';
   EXCEPTION
    WHEN SQLSTATE 'FS000' THEN NULL;
    WHEN OTHERS THEN
      {_JUDGED}
   END;
  END LOOP;
  {_RESULT}
"""


def btrees(control: Psql, databases: Iterable[Database]) -> CheckSpec:
    """Every B-tree against its table: amcheck where there is one, else ordered scans."""
    return CheckSpec(
        "btree-indexes",
        "every B-tree agrees with its table",
        partial(_btrees, control, databases),
        FindingId.INDEX_CORRUPT,
        grows=True,
    )


def _btrees(control: Psql, databases: Iterable[Database]) -> Answer:
    tally, done, leaves_only, methods = Tally(), 0, 0, set[str]()
    for name in (database.name for database in databases):
        with tally.looking(name):
            schema = control.value(name, _SCHEMA)
            script = _AMCHECK.replace(_AMCHECK_SCHEMA, literal(schema)) if schema else _SCANS
            methods.add("amcheck" if schema else "ordered index scans against sequential scans")
            text = _survived(control, name, "SET client_min_messages = error;\n" + script)
            if text is None:
                tally.fail(f"{name}: the server broke down over an index, twice")
                continue
            result = wire.parsed(text.strip().rpartition("\n")[2])
            done += result["done"]
            leaves_only += result["leaves_only"]
            tally.seen += 1
            tally.wrong += [f"{name}: {row['index']}: {row['problem']}" for row in result["bad"]]
            tally.unseen += [f"{name}: {index}" for index in result["skipped"]]
    method = " or ".join(sorted(methods)) or "amcheck"
    right = f"all {done} agree, by {method}"
    if leaves_only:
        right += f"; in {leaves_only} of them, parent pages were not compared with their children"
    return tally.answer(right)


def _survived(control: Psql, database: str, script: str) -> str | None:
    """What a script prints; None if the server has died of it twice.

    Once may be an accident: the system ends processes when memory is short. Raises as Psql.script.
    """
    for _ in range(2):
        try:
            return control.script(database, script, timeout=12 * HOURS)
        except TransientError as error:
            if _CRASHED not in error.message:
                raise
            _await_server(control)
    return None


def _await_server(control: Psql) -> None:
    give_up = time.monotonic() + _RESTART_SECONDS
    while time.monotonic() < give_up:
        with suppress(FarsideError):
            control.value(CLUSTER, "SELECT 1")
            return
        time.sleep(0.5)
