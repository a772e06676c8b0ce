"""What of a database hangs on files of its server's installation, and whether the source has them.

A source that has lost such a file goes on without it, and so does what is restored from it. Nothing
is loaded there that the server does not bring along itself: libraries are only looked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.engines.postgres.facts import Database
from blocks.engines.postgres.rows import Extension

MAY_LOOK = """
SELECT has_function_privilege('pg_stat_file(text, boolean)', 'EXECUTE')
  AND has_function_privilege('pg_config()', 'EXECUTE')
  AND pg_has_role('pg_read_server_files', 'USAGE') AS may
"""
"""Whether a role may ask LIBRARIES."""

# As the server itself looks for them: with and without the suffix. From 18 on, $libdir/NAME is
# looked for as NAME is; before that, to find it elsewhere, too, takes no library for lost.
LIBRARIES = """
SELECT l.name, coalesce(bool_or(NOT f.isdir), false) AS there
FROM (SELECT DISTINCT probin AS name FROM pg_proc
      WHERE probin IS NOT NULL AND oid >= 16384) AS l
CROSS JOIN LATERAL unnest(
  CASE WHEN l.name LIKE ANY ('{/%,$libdir/%/%}') THEN ARRAY[l.name]
       WHEN l.name LIKE '%/%' AND l.name NOT LIKE '$libdir/%'
       THEN ARRAY[current_setting('data_directory') || '/' || l.name]
       ELSE (SELECT array_agg(folder || '/' || regexp_replace(l.name, '^[$]libdir/', ''))
             FROM unnest(string_to_array(current_setting('dynamic_library_path') || ':$libdir',
                                         ':')) AS folder)
  END) AS path
CROSS JOIN (VALUES (''), ('.so')) AS ending(suffix)
CROSS JOIN LATERAL pg_stat_file(
  replace(path, '$libdir', (SELECT setting FROM pg_config() WHERE name = 'PKGLIBDIR')) || suffix,
  true) AS f
GROUP BY 1 ORDER BY 1
"""
"""The libraries of functions, and whether the server has their files."""

# A template of the server's own reads its files only. One of an extension would load a library, and
# so would a thesaurus, which may use any other dictionary.
DICTIONARIES = """
SET statement_timeout = '10s';
DO $farside$
DECLARE r record; found jsonb := '[]'; usable boolean;
BEGIN
  FOR r IN
    SELECT d.oid::regdictionary AS dictionary,
           CASE WHEN p.oid >= 16384 THEN p.probin END AS library,
           t.oid < 16384 AND (t.tmplname <> 'thesaurus' OR NOT EXISTS (
             SELECT 1 FROM pg_ts_dict o WHERE o.dicttemplate >= 16384)) AS own
    FROM pg_ts_dict d JOIN pg_ts_template t ON t.oid = d.dicttemplate
    LEFT JOIN pg_proc p ON p.oid = t.tmpllexize
    WHERE d.oid >= 16384 ORDER BY d.oid
  LOOP
    usable := NULL;
    IF r.own THEN
      BEGIN
        PERFORM ts_lexize(r.dictionary, 'a');
        usable := true;
      EXCEPTION WHEN OTHERS THEN
        -- Not what a server without memory or places says.
        usable := CASE WHEN SQLSTATE !~ '^5[357]' THEN false END;
      END;
    END IF;
    found := found || jsonb_build_object('name', r.dictionary::text, 'library', r.library,
                                         'usable', usable);
  END LOOP;
  PERFORM set_config('farside.dictionaries', found::text, false);
END $farside$;
RESET statement_timeout;
SELECT jsonb_build_object('part', 'dictionaries',
                          'rows', current_setting('farside.dictionaries')::jsonb);
"""
"""A script for `Psql.parts`: the dictionaries that were made, and whether they can be used."""

_NOT_ASKED = {
    "library": "whether the source has it is not known: only a role of pg_read_server_files that"
    " may call pg_stat_file(text, boolean) and pg_config() sees it",
    "dictionary": "whether the source can use it is not known",
}
_SINCE = "made at the source since it was asked"


@dataclass(frozen=True, slots=True)
class AtSource:
    """What the source said of the files of one database."""

    database: Database
    looked: Sequence[Extension] = ()
    """Its extensions at the last look."""

    def has(self, kind: str, name: str, subject: str) -> bool | None:
        """Whether the source has a `library`, `dictionary` or version of an `extension`.

        A library's `subject` is its extension, if it has one. None is not known.
        """
        libraries = {row.name: row.there for row in self.database.libraries or ()}
        if kind == "dictionary":
            known = (row for row in self.database.dictionaries or () if row.name == name)
            if (row := next(known, None)) is None:
                return None
            return False if libraries.get(row.library or "") is False else row.usable
        extensions = {row.name: row for row in (*self.database.extensions, *self.looked)}
        extension = extensions.get(subject)
        if kind == "extension":
            return None if extension is None else extension.offered
        if (there := libraries.get(name)) is not None:
            return there
        # Without its control file the source may well have a library: that is of another package.
        return True if extension is not None and extension.control else None

    def why(self, kind: str) -> str:
        """Why it is not known."""
        database = self.database
        read = {"library": database.libraries, "dictionary": database.dictionaries}
        return _NOT_ASKED[kind] if read.get(kind, database.extensions) is None else _SINCE

    def extensions_lost(self) -> set[str]:
        """Extensions that the source has no control file of."""
        return {row.name for row in self.database.extensions if not row.control}

    def libraries_lost(self) -> set[str]:
        """Libraries of functions that it has no file of."""
        return {row.name for row in self.database.libraries or () if not row.there}
