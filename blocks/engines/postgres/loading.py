"""What hangs on the server's own files: libraries of functions, dictionaries, extensions."""

import re
from collections.abc import Iterable, Sequence
from functools import partial

from blocks.artifact import wire
from blocks.engines.checks import Answer, CheckSpec
from blocks.engines.postgres.facts import Database
from blocks.engines.postgres.files import AtSource
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import NO_LOOK, LastLook
from blocks.engines.postgres.psql import Psql, literal
from blocks.engines.postgres.rows import Extension
from blocks.engines.postgres.tally import Tally
from blocks.evidence.catalogue import FindingId

# A library is named by its extension, if it belongs to one.
_LOADED = """
BEGIN;
DO $farside$
DECLARE r record; bad jsonb := '[]'; done int := 0; state text; said text;
BEGIN
  FOR r IN
    SELECT DISTINCT coalesce((SELECT e.extname FROM pg_depend d JOIN pg_extension e
                              ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
                              WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass
                                AND d.deptype = 'e' LIMIT 1),
                             regexp_replace(probin, '^.*/', '')) AS subject,
           'library' AS kind, probin AS name, format('LOAD %L', probin) AS call
    FROM pg_proc p WHERE probin IS NOT NULL AND oid >= 16384
    UNION ALL
    SELECT oid::regdictionary::text, 'dictionary', oid::regdictionary::text,
           format('SELECT ts_lexize(%L::regdictionary, %L)', oid::regdictionary::text, 'a')
    FROM pg_ts_dict WHERE oid >= 16384
    UNION ALL
    SELECT extname, 'extension', extversion,
           CASE WHEN EXISTS (SELECT 1 FROM pg_available_extension_versions v
                             WHERE v.name = e.extname AND v.version = e.extversion)
                THEN 'SELECT 1' ELSE 'DO $$ BEGIN RAISE ''not installed here''; END $$' END
    FROM pg_extension e
  LOOP
    BEGIN
      done := done + 1;
      IF r.kind <> 'library' OR NOT regexp_replace(r.name, '^.*/', '') = ANY (ASLEEP) THEN
        EXECUTE r.call;
      ELSE
        bad := bad || jsonb_build_object('kind', 'asleep', 'subject', r.subject, 'name', r.name,
                                         'said', '');
      END IF;
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT;
      bad := bad || jsonb_build_object('kind', r.kind, 'subject', r.subject, 'name', r.name,
                                       'state', state, 'said', said);
    END;
  END LOOP;
  PERFORM set_config('farside.result',
    jsonb_build_object('bad', bad, 'done', done)::text, false);
END $farside$;
SELECT current_setting('farside.result');
ROLLBACK;
"""
# What the server itself says (its messages are never translated here) of a file that is no library
# of its own; all else is what a library says that will only be loaded at the server's start.
_NO_LIBRARY = re.compile(r"could not (access|load|find)|incompatible library|missing magic block")


def loadable(
    control: Psql,
    databases: Iterable[Database],
    bin_dir: str,
    asleep: Sequence[str] = (),
    last: LastLook = NO_LOOK,
) -> CheckSpec:
    """What hangs on the server's own files: libraries of functions, dictionaries, extensions.

    Libraries that are kept `asleep`, and those that refuse to be loaded by a session, are looked
    for as files. What the source has lost itself need not be here; of what it made after it was
    last asked, or did not show, it is unknown.
    """
    return CheckSpec(
        "loadable",
        "every library, dictionary and extension version is on this host",
        partial(_loadable, control, databases, bin_dir, asleep, last),
        FindingId.EXTENSION_MISSING,
    )


def _loadable(
    control: Psql,
    databases: Iterable[Database],
    bin_dir: str,
    asleep: Sequence[str],
    last: LastLook,
) -> Answer:
    tally, done, waiting = Tally(), 0, dict[str, tuple[AtSource, str]]()
    lost = list[str]()

    def hold(source: AtSource, kind: str, name: str, subject: str, text: str) -> None:
        there = source.has(kind, name, subject)
        if there:
            tally.fail(text, subject)
        elif there is None:
            tally.unseen.append(f"{text} ({source.why(kind)})")
        else:
            lost.append(name)

    names = ", ".join(literal(name) for name in asleep)
    script = _LOADED.replace("ASLEEP", f"ARRAY[{names}]::text[]")
    for database in databases:
        name = database.name
        with tally.looking(name):
            text = control.script(name, script, timeout=600)
            result = wire.parsed(text.strip().rpartition("\n")[2])
            done, tally.seen = done + result["done"], tally.seen + 1
            source = AtSource(database, last.of(name, "extensions", Extension) or ())
            for item in result["bad"]:
                label = f"{name}: {item['kind']} {item['subject']} {item['name']}: {item['said']}"
                refused = item["kind"] == "library" and not _NO_LIBRARY.search(item["said"])
                if item["kind"] == "asleep" or refused:
                    waiting[item["name"]] = source, item["subject"]
                else:
                    hold(source, item["kind"], item["name"], item["subject"], label)
    if waiting:
        with tally.looking(control.host.name):
            there = Installation(control.host, bin_dir, libraries=waiting)
            for library, why in there.lacking("libraries").items():
                source, subject = waiting[library]
                text = f"{source.database.name}: library {library}: {why}"
                hold(source, "library", library, subject, text)
            tally.unseen += [f"library {item}" for item in there.unseen("libraries")]
    right = f"all {done}" + (f"; {len(waiting)} are there, and not loaded" if waiting else "")
    right += f"; {len(lost)} that the source has lost as well" if lost else ""
    return tally.answer(right)
