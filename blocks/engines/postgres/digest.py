"""One digest over the definitions of all of a database's own objects."""

from blocks.engines.postgres.counting import USER_SCHEMAS

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
