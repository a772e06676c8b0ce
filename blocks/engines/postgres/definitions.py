"""Queries of what a server stores as text: definitions, settings, comments; and its tables."""

# What a site has made, wherever it has put it: below are the objects that every database begins
# with. Members of extensions are no exception: a site packs its own into some.
FIRST = 16384

TEXTS = (
    # Without its body, which is searched by itself, so that its lines are counted as written.
    f"""SELECT CASE p.prokind WHEN 'p' THEN 'procedure ' ELSE 'function ' END
      || p.oid::regprocedure AS object, texts.text
    FROM pg_proc p, LATERAL (
      SELECT p.prosrc AS text UNION ALL
      SELECT replace(pg_get_functiondef(p.oid), coalesce(nullif(p.prosrc, ''), chr(1)), '')
    ) AS texts
    WHERE p.prokind <> 'a' AND p.oid >= {FIRST}""",
    f"""SELECT 'aggregate ' || p.oid::regprocedure,
      concat_ws(E'\n', a.agginitval, a.aggminitval, pg_get_function_arguments(p.oid))
    FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid
    WHERE p.oid >= {FIRST}""",
    f"""SELECT CASE c.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END
      || c.oid::regclass, pg_get_viewdef(c.oid)
    FROM pg_class c
    WHERE c.relkind IN ('v', 'm') AND c.oid >= {FIRST}""",
    f"""SELECT 'rule ' || r.rulename || ' on ' || c.oid::regclass, pg_get_ruledef(r.oid)
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE r.rulename <> '_RETURN' AND r.oid >= {FIRST}""",
    f"""SELECT 'default of ' || c.oid::regclass || '.' || a.attname,
      pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    JOIN pg_class c ON c.oid = d.adrelid
    WHERE d.oid >= {FIRST}""",
    # What fills a column that was added to rows which are there already.
    f"""SELECT 'default of ' || c.oid::regclass || '.' || a.attname, a.attmissingval::text
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.atthasmissing AND c.oid >= {FIRST}
      AND NOT EXISTS (SELECT 1 FROM pg_attrdef d
                      WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)""",
    f"""SELECT 'constraint ' || k.conname, pg_get_constraintdef(k.oid)
    FROM pg_constraint k
    WHERE k.contype IN ('c', 'x') AND k.oid >= {FIRST}""",
    f"""SELECT 'trigger ' || t.tgname || ' on ' || c.oid::regclass, pg_get_triggerdef(t.oid)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND t.oid >= {FIRST}""",
    "SELECT 'event trigger ' || evtname, array_to_string(evttags, E'\\n') FROM pg_event_trigger",
    """SELECT 'policy ' || p.polname || ' on ' || p.polrelid::regclass, concat_ws(E'\\n',
      pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p""",
    f"""SELECT 'index ' || c.oid::regclass, concat_ws(E'\\n', pg_get_expr(i.indexprs, i.indrelid),
      pg_get_expr(i.indpred, i.indrelid), array_to_string(c.reloptions, E'\\n'))
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.oid >= {FIRST}""",
    "SELECT 'statistics ' || stxname, pg_get_statisticsobjdef(oid) FROM pg_statistic_ext",
    f"""SELECT 'table ' || c.oid::regclass, concat_ws(E'\\n', array_to_string(c.reloptions, E'\\n'),
      pg_get_expr(c.relpartbound, c.oid),
      CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END)
    FROM pg_class c WHERE c.relkind IN ('r', 'p', 'f') AND c.oid >= {FIRST}""",
    f"""SELECT 'column ' || c.oid::regclass || '.' || a.attname,
      concat_ws(E'\\n', array_to_string(a.attoptions, E'\\n'),
        array_to_string(a.attfdwoptions, E'\\n'))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE coalesce(a.attoptions, a.attfdwoptions) IS NOT NULL AND c.oid >= {FIRST}""",
    f"""SELECT 'type ' || t.oid::regtype, concat_ws(E'\\n', t.typdefault,
      (SELECT string_agg(e.enumlabel, E'\\n' ORDER BY e.enumsortorder)
       FROM pg_enum e WHERE e.enumtypid = t.oid))
    FROM pg_type t
    WHERE t.typtype IN ('d', 'e', 'b') AND t.oid >= {FIRST}""",
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

COMMENTS = """
SELECT 'comment on ' || (pg_identify_object(classoid, objoid, objsubid)).identity AS object,
       description AS text
FROM pg_description
WHERE objoid >= 16384
   OR (classoid = 'pg_namespace'::regclass AND objoid = to_regnamespace('public'))
"""

# Of the whole server, so that each is met once.
SHARED = (
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
TABLES = f"""
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
  AND c.oid >= {FIRST}
ORDER BY jobs DESC, c.relpages, 1, 2
"""
"""Tables; `jobs` are jobs, nodes and queues of extensions and schedulers, however shaped."""
