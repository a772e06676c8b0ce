"""The checks of a restored PostgreSQL server: each passed, failed, or could not run."""

import json
from collections.abc import Mapping
from typing import Any

from blocks.engines.base import checked, listed
from blocks.engines.pg.psql import LoginRefused, Psql, identifier
from blocks.engines.pg.replication import upstreams
from blocks.engines.pg.survey import (
    COLLATIONS,
    LARGE_OBJECTS,
    SCHEMA_DIGEST,
    SEQUENCES,
    TABLES,
    write_probe,
)
from blocks.errors import PermanentError, TransientError
from blocks.evidence.record import Check, CheckStatus

HOURS = 3600.0
_NONE = ("", "(disabled)")
_CRASHED = "server closed the connection unexpectedly"
EMPTIED = 100
"""A table of fewer rows may be empty a moment later (a queue)."""

_BTREES = """
SELECT i.indexrelid, i.indexrelid::regclass::text AS name, i.indrelid,
       i.indrelid::regclass::text AS rel, pg_get_expr(i.indpred, i.indrelid) AS predicate,
       c.relname
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am m ON m.oid = c.relam
WHERE m.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND i.indisready
  AND n.nspname !~ '^pg_(temp|toast_temp)' AND c.relpersistence = 'p'
ORDER BY 1
"""

# Every heap tuple must be found in the index, and parents agree with children (PostgreSQL docs,
# amcheck). The extension is made for the occasion, and rolled back.
_AMCHECK = f"""
BEGIN;
CREATE EXTENSION IF NOT EXISTS amcheck;
DO $farside$
DECLARE r record; done int := 0; bad jsonb := '[]';
BEGIN
  FOR r IN {_BTREES} LOOP
    BEGIN
      PERFORM bt_index_parent_check(r.indexrelid::regclass, true);
    EXCEPTION WHEN OTHERS THEN
      bad := bad || jsonb_build_object('index', r.name, 'problem', SQLERRM);
    END;
    done := done + 1;
  END LOOP;
  PERFORM set_config('farside.result', jsonb_build_object(
    'done', done, 'bad', bad, 'skipped', '[]'::jsonb)::text, false);
END $farside$;
SELECT current_setting('farside.result');
ROLLBACK;
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
# indexes are hidden from the planner meanwhile; everything is rolled back.
_SCANS = rf"""
BEGIN ISOLATION LEVEL REPEATABLE READ;
DO $farside$
DECLARE
  r record; key record; heap record; scan record; plan text; source text; through text;
  done int := 0; bad jsonb := '[]'; skipped jsonb := '[]';
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
    source := r.rel || CASE WHEN r.predicate IS NULL THEN '' ELSE ' WHERE ' || r.predicate END;
    SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_sort = on;
    EXECUTE format('SELECT count(*) AS n, sum(hashtextextended(ROW(ctid, %s)::text, 0)::numeric)'
                   ' AS h FROM %s', key.expressions, source) INTO heap;
    SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = on; SET LOCAL enable_sort = off;
    through := format('SELECT count(*) AS n, sum(h) AS h,'
                      ' count(*) FILTER (WHERE place > 1 AND coalesce(%s) = -1) AS disorder'
                      ' FROM (SELECT *, row_number() OVER w AS place, %s'
                      ' FROM (SELECT hashtextextended(ROW(ctid, %s)::text, 0)'
                      '::numeric AS h, %s FROM %s) AS q WINDOW w AS (ORDER BY %s)) AS s',
                      key.precedes, key.previous, key.expressions, key.columns, source,
                      key.ordering);
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || through INTO plan;
    IF position('"Index Name": ' || to_json(r.relname::text)::text IN plan) = 0
       OR plan ~ '"Node Type": "(Incremental )?Sort"' THEN
      skipped := skipped || to_jsonb(r.name);
    ELSE
      EXECUTE through INTO scan;
      IF (scan.n, scan.h) IS DISTINCT FROM (heap.n, heap.h) THEN
        bad := bad || jsonb_build_object('index', r.name, 'problem', format(
          'the index gives %s rows, the table %s, or other ones', scan.n, heap.n));
      ELSIF scan.disorder > 0 THEN
        bad := bad || jsonb_build_object('index', r.name, 'problem', format(
          '%s rows out of order', scan.disorder));
      END IF;
      done := done + 1;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'FS000';
   EXCEPTION
    WHEN SQLSTATE 'FS000' THEN NULL;
    WHEN OTHERS THEN
     bad := bad || jsonb_build_object('index', r.name, 'problem', SQLERRM);
   END;
  END LOOP;
  PERFORM set_config('farside.result', jsonb_build_object(
    'done', done, 'bad', bad, 'skipped', skipped)::text, false);
END $farside$;
SELECT current_setting('farside.result');
ROLLBACK;
"""


def login(application: Psql, database: str) -> Check:
    """The application's own role gets in, with the password from the recovery vault."""
    wrong = []
    try:
        found = application.value(database, "SELECT current_user::text")
        if found != application.role:
            wrong.append(f"it is {found} there")
    except LoginRefused as error:
        wrong.append(error.message)
    role = application.role
    return checked(
        "login",
        f"{role} logs in to {database}",
        wrong,
        f"{role} logged in to {database}",
        finding="login-missing",
    )


def schema(control: Psql, facts: Mapping[str, Any]) -> Check:
    """Definitions of all objects, owners and grants are those of the manifest."""
    wrong = []
    for database in facts["databases"]:
        found = control.rows(database["name"], SCHEMA_DIGEST, timeout=600)[0]["digest"]
        if found != database["schema_digest"]:
            wrong.append(f"{database['name']}: {found}, manifest {database['schema_digest']}")
    return checked(
        "schema-digest",
        "the manifest's schema digests (DDL after the snapshot changes them)",
        wrong,
        f"the same in {len(facts['databases'])} databases",
        finding="incomplete-restore",
    )


def roles(control: Psql, facts: Mapping[str, Any]) -> Check:
    """All roles of the manifest exist."""
    found = {
        row["name"] for row in control.rows("postgres", "SELECT rolname AS name FROM pg_roles")
    }
    wanted = {role["name"] for role in facts["roles"]}
    return checked(
        "roles",
        f"{len(wanted)} roles of the manifest",
        [f"{name} is missing" for name in sorted(wanted - found)],
        f"all {len(wanted)} roles",
        finding="login-missing",
    )


def row_counts(control: Psql, facts: Mapping[str, Any]) -> Check:
    """Every table is there, with no fewer rows than estimated at the source.

    The manifest holds estimates (the planner's, from the last ANALYZE), and the log goes on after
    it: a shortfall of more than a tenth and 1000 rows fails, growth does not. A table that had
    EMPTIED rows and has none now fails as well. Unlogged tables are empty: no backup holds them.
    """
    short, tables, total = [], 0, 0
    for database in facts["databases"]:
        name = database["name"]
        present = {(row["schema"], row["name"]) for row in control.rows(name, TABLES)}
        for table in database["tables"]:
            label = f"{name}.{table['schema']}.{table['name']}"
            if (table["schema"], table["name"]) not in present:
                short.append(f"{label} is missing")
                continue
            place = f"{identifier(table['schema'])}.{identifier(table['name'])}"
            try:
                answer = control.value(name, f"SELECT count(*) FROM {place}", timeout=HOURS)
            except PermanentError as error:
                short.append(f"{label} cannot be read: {error.message}")
                continue
            counted = int(answer or 0)
            tables, total = tables + 1, total + counted
            if table["unlogged"]:
                continue
            if counted < table["rows"] - max(1000, table["rows"] // 10) or (
                counted == 0 and table["rows"] >= EMPTIED
            ):
                short.append(f"{label} has {counted} of about {table['rows']} rows")
    return checked(
        "row-counts",
        "every table of the manifest, no fewer rows than estimated",
        short,
        f"{total} rows in {tables} tables",
        finding="incomplete-restore",
    )


def sequences(control: Psql, facts: Mapping[str, Any]) -> Check:
    """Every sequence goes on where it was, or further: none gives a value out again."""
    behind, total = [], 0
    for database in facts["databases"]:
        found = {
            (row["schema"], row["name"]): row["value"]
            for row in control.rows(database["name"], SEQUENCES)
        }
        for row in database["sequences"]:
            total += 1
            now, ascending = found.get((row["schema"], row["name"])), row["increment"] > 0
            if row["value"] is None or (now is not None and (now >= row["value"]) == ascending):
                continue
            if now != row["value"]:
                label = f"{database['name']}.{row['schema']}.{row['name']}"
                behind.append(f"{label} is at {now}, was at {row['value']}")
    return checked(
        "sequences",
        "every sequence of the manifest, no value behind",
        behind,
        f"all {total}",
        finding="incomplete-restore",
    )


def large_objects(control: Psql, facts: Mapping[str, Any]) -> Check:
    """As many large objects as there were, but for a tenth that may have been removed since."""
    short, total = [], 0
    for database in facts["databases"]:
        found = control.rows(database["name"], LARGE_OBJECTS)[0]["count"]
        had, total = database["large_objects"], total + found
        if found < had - had // 10:
            short.append(f"{database['name']} has {found} of {had}")
    return checked(
        "large-objects",
        "the manifest's large objects",
        short,
        f"{total}",
        finding="incomplete-restore",
    )


_LOADED = """
BEGIN;
DO $farside$
DECLARE r record; bad jsonb := '[]'; done int := 0;
BEGIN
  FOR r IN
    SELECT DISTINCT probin AS subject, 'library ' || probin AS name,
           format('LOAD %L', probin) AS call
    FROM pg_proc WHERE probin IS NOT NULL AND oid >= 16384
    UNION ALL
    SELECT oid::regdictionary::text, 'dictionary ' || oid::regdictionary,
           format('SELECT ts_lexize(%L::regdictionary, %L)', oid::regdictionary::text, 'a')
    FROM pg_ts_dict WHERE oid >= 16384
    UNION ALL
    SELECT extname, format('extension %s %s', extname, extversion),
           CASE WHEN EXISTS (SELECT 1 FROM pg_available_extension_versions v
                             WHERE v.name = e.extname AND v.version = e.extversion)
                THEN 'SELECT 1' ELSE 'DO $$ BEGIN RAISE ''not installed here''; END $$' END
    FROM pg_extension e
  LOOP
    BEGIN
      done := done + 1;
      EXECUTE r.call;
    EXCEPTION WHEN OTHERS THEN
      bad := bad || jsonb_build_object('subject', r.subject, 'text', r.name || ': ' || SQLERRM);
    END;
  END LOOP;
  PERFORM set_config('farside.result',
    jsonb_build_object('bad', bad, 'done', done)::text, false);
END $farside$;
SELECT current_setting('farside.result');
ROLLBACK;
"""


def loadable(control: Psql, facts: Mapping[str, Any]) -> Check:
    """What hangs on the server's own files: libraries of functions, dictionaries, extensions."""
    bad, subjects, done = [], list[str](), 0
    for database in facts["databases"]:
        text = control.script(database["name"], _LOADED, timeout=600)
        result = json.loads(text.strip().splitlines()[-1])
        bad += [f"{database['name']}: {item['text']}" for item in result["bad"]]
        subjects += [item["subject"] for item in result["bad"]]
        done += result["done"]
    return checked(
        "loadable",
        "every library, dictionary and extension version is on this host",
        bad,
        f"all {done}",
        finding="extension-missing",
        subjects=tuple(dict.fromkeys(subjects)),
    )


def indexes_valid(control: Psql, facts: Mapping[str, Any]) -> Check:
    """No index is left unusable by a build that was broken off, no materialized view unfilled."""
    bad, total = [], 0
    for database in facts["databases"]:
        for row in control.rows(
            database["name"],
            "SELECT indexrelid::regclass::text AS name,"
            " indisvalid AND indisready AND indislive AS ok FROM pg_index",
        ):
            total += 1
            if not row["ok"]:
                bad.append(f"{database['name']}: {row['name']} is invalid")
        unfilled = control.rows(
            database["name"],
            "SELECT oid::regclass::text AS name FROM pg_class"
            " WHERE relkind = 'm' AND NOT relispopulated",
        )
        bad += [f"{database['name']}: {row['name']} was never refreshed" for row in unfilled]
    return checked(
        "indexes-valid",
        "every index and materialized view can be used",
        bad,
        f"all {total}",
        finding="usable-not-restored",
    )


def collations(control: Psql, facts: Mapping[str, Any]) -> Check:
    """Text sorts here as it did there: recorded against actual collation versions."""
    changed, compared = [], 0
    for database in facts["databases"]:
        rows = control.rows(
            database["name"],
            "SELECT 'default' AS name, datcollversion AS recorded_version,"
            " pg_database_collation_actual_version(oid) AS actual_version"
            " FROM pg_database WHERE datname = current_database() UNION ALL"
            f" (SELECT * FROM ({COLLATIONS}) c)",
        )
        for row in rows:
            compared += row["recorded_version"] is not None
            if row["recorded_version"] != row["actual_version"]:
                changed.append(
                    f"{database['name']}: {row['name']} was {row['recorded_version']},"
                    f" is {row['actual_version']}"
                )
    return checked(
        "collation-versions",
        "the collation versions recorded in the data",
        changed,
        f"unchanged ({compared} versioned)",
        finding="locale-changed",
    )


def btrees(control: Psql, facts: Mapping[str, Any]) -> Check:
    """Every B-tree against its table: amcheck where there is one, else ordered scans."""
    has = control.value(
        "postgres", "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'"
    )
    method = "amcheck" if has == "1" else "ordered index scans against sequential scans"
    done, bad, skipped = 0, [], []
    for database in facts["databases"]:
        name = database["name"]
        script = "SET client_min_messages = error;\n" + (_AMCHECK if has == "1" else _SCANS)
        try:
            text = control.script(name, script, timeout=12 * HOURS)
        except TransientError as error:
            if _CRASHED not in error.message:
                raise
            bad.append(f"{name}: the server broke down over an index: {error.message}")
            break  # it is starting again now
        result = json.loads(text.strip().splitlines()[-1])
        done += result["done"]
        bad += [f"{name}: {row['index']}: {row['problem']}" for row in result["bad"]]
        skipped += [f"{name}: {index}" for index in result["skipped"]]
    name, expected = "btree-indexes", f"every B-tree agrees with its table, by {method}"
    if not bad and (skipped or not done):
        actual = f"{done} agree; not comparable without amcheck: {listed(skipped)}"
        return Check(name, CheckStatus.UNKNOWN, expected, actual)
    right = f"all {done} agree, by {method}"
    return checked(name, expected, bad, right, finding="index-corrupt")


def committed_write(control: Psql, rehearsal_id: str) -> Check:
    """A row is committed, read back in another session, and removed again."""
    write, read, undo = write_probe(rehearsal_id)
    control.script("postgres", write)
    found = control.value("postgres", read)
    control.script("postgres", undo)
    return checked(
        "committed-write",
        "a committed row is read back in another session",
        [] if found == rehearsal_id else [f"read back {found!r}"],
        f"read back {found!r}",
        finding="usable-not-restored",
    )


def application_write(application: Psql, database: str, statement: str) -> Check:
    """The application's own write, as its own role, committed."""
    expected = f"{application.role} commits a write in {database}"
    # A statement that writes nothing is given no transaction id.
    script = (
        f"BEGIN;\n{statement.strip().rstrip(';')};\n"
        "SELECT coalesce(pg_current_xact_id_if_assigned()::text, 'none');\nCOMMIT;"
    )
    wrong, right = list[str](), ""
    try:
        transaction = application.script(database, script).strip().splitlines()[-1]
        if transaction == "none":
            wrong.append("the plan's statement wrote nothing")
        else:
            state = application.value(database, f"SELECT pg_xact_status('{transaction}')")
            right = f"transaction {transaction} is {state}"
            if state != "committed":
                wrong.append(right)
    except LoginRefused:
        actual = "could not run: the application cannot log in"
        return Check("application-write", CheckStatus.UNKNOWN, expected, actual)
    except PermanentError as error:
        wrong.append(error.message)
    return checked("application-write", expected, wrong, right, finding="usable-not-restored")


def archiving(control: Psql) -> Check:
    """The live server archives nowhere."""
    wrong = _other_settings(
        control, {"archive_mode": ("off",), "archive_command": _NONE, "archive_library": _NONE}
    ) + _running(control, "archiver")
    return checked(
        "archiving",
        "archives nowhere",
        wrong,
        "archiving is off",
        finding="archive-into-production",
    )


def isolation(
    control: Psql, allowed_libraries: list[str], *, replica: str = "", standby: bool = False
) -> Check:
    """The live server streams from nowhere, subscribes to nothing, starts no job by itself.

    Nobody follows it but its own standbys, by the role `replica`, for which commits may wait. Whom
    a `standby` itself streams from is told by replication.check.
    """
    wrong = _other_settings(
        control,
        {
            "max_logical_replication_workers": ("0",),
            **({} if replica else {"synchronous_standby_names": _NONE}),
            "shared_preload_libraries": (",".join(allowed_libraries),),
            "session_preload_libraries": _NONE,
            "local_preload_libraries": _NONE,
        },
    )
    wrong += _running(
        control,
        *(() if standby else ("walreceiver",)),
        "logical replication apply worker",
        "logical replication launcher",
    )
    if not standby:
        wrong += [f"{what} {upstream}" for what, upstream in upstreams(control)]
    senders = control.rows(
        "postgres",
        "SELECT usename AS role, application_name AS name FROM pg_stat_replication",
    )
    wrong += [
        f"{row['name']} follows it as {row['role']}" for row in senders if row["role"] != replica
    ]
    slots = control.value("postgres", "SELECT count(*) FROM pg_replication_slots")
    if slots != "0":
        wrong.append(f"{slots} replication slots")
    streams = "" if standby else "streams from nowhere, "
    return checked(
        "isolation",
        f"{streams}subscribes to nothing, starts no job",
        wrong,
        f"{'' if standby else 'streaming, '}subscriptions, slots and schedulers are all off",
        finding="restored-jobs-fire",
    )


def _other_settings(control: Psql, wanted: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Settings whose value is none of those wanted."""
    names = ", ".join(f"'{name}'" for name in wanted)
    found = {
        row["name"]: row["setting"]
        for row in control.rows(
            "postgres", f"SELECT name, setting FROM pg_settings WHERE name IN ({names})"
        )
    }
    return [
        f"{name} = {found.get(name)!r}"
        for name, values in wanted.items()
        if found.get(name, "") not in values
    ]


def _running(control: Psql, *kinds: str) -> list[str]:
    names = ", ".join(f"'{kind}'" for kind in kinds)
    rows = control.rows(
        "postgres",
        f"SELECT backend_type FROM pg_stat_activity WHERE backend_type IN ({names})",
    )
    return [f"a {row['backend_type']} runs" for row in rows]
