"""The checks of a restored PostgreSQL server: each passed, failed, or could not run."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blocks.artifact import wire
from blocks.engines.common.tally import NOT_ASKED
from blocks.engines.postgres.files import AtSource
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import MADE_AGAIN, NO_LOOK, LastLook, still_there
from blocks.engines.postgres.psql import CLUSTER, LoginRefused, Psql, RefusedByCode, literal
from blocks.engines.postgres.sequences import restored
from blocks.engines.postgres.survey import COLLATIONS, OPEN, UNUSABLE, digest_like
from blocks.engines.postgres.tally import Tally
from blocks.evidence.record import Check

HOURS = 3600.0
NONE = ("", "(disabled)")


class Databases:
    """Which databases of the manifest are there and can be entered; all checks ask those."""

    def __init__(
        self, control: Psql, facts: Mapping[str, Any], last: LastLook, installed: Installation
    ) -> None:
        self._control, self._facts, self._last = control, facts, last
        self._installed = installed
        self.here: list[Mapping[str, Any]] = []

    def check(self) -> Check:
        """Every database of the manifest is there, and can be entered."""
        tally, cause = Tally(), "incomplete-restore"
        present = {row["name"] for row in self._control.rows(CLUSTER, OPEN)}
        self.here = []
        for database in self._facts["databases"]:
            name = database["name"]
            if name in present:
                with tally.looking(name):
                    try:
                        self._control.value(name, "SELECT 1")
                        self.here.append(database)
                        tally.seen += 1
                    except RefusedByCode as error:
                        tally.unseen.append(f"{name}: {error.message}")
                    except LoginRefused as error:
                        lacking = self._installed.lacking("locales")
                        no_locale = not {database["collate"], database["ctype"]}.isdisjoint(lacking)
                        if "contents" in database.get("unread", ()) and not no_locale:
                            tally.unseen.append(f"{name}: not entered at the source either")
                            continue
                        cause = (
                            PostgresFinding.LOCALE_MISSING if no_locale else "usable-not-restored"
                        )
                        tally.fail(f"{name} cannot be entered: {error.message}", f"database {name}")
            else:
                text = f"{name} is not there, or takes no connections"
                had = self._last.has("databases", database)
                tally.compare(name, text, False, True, had, subject=f"database {name}")
        right = f"{len(self.here)} databases"
        return tally.check("databases", "every database, to be entered", right, finding=cause)


def schema(
    control: Psql, databases: Iterable[Mapping[str, Any]], last: LastLook = NO_LOOK
) -> Check:
    """Definitions of all objects, owners and grants are those of the source."""
    tally, same = Tally(), 0
    for database in databases:
        name, digest = database["name"], database["schema_digest"]
        if digest is None:
            tally.unseen.append(f"{name}: its definitions could not be read at the source")
            continue
        with tally.looking(name):
            found = control.rows(name, digest_like(digest), timeout=600)[0]["digest"]
            tally.seen += 1
            rows, same = last.of(name, "schema_digest"), same + (found == digest)
            had = rows[0]["digest"] if rows else NOT_ASKED
            if had == digest and _redefined(database, last):
                had = MADE_AGAIN
            tally.compare(name, f"{name}: {found}, manifest {digest}", found, digest, had)
    return tally.check(
        "schema-digest",
        "the source's schema digests, of the survey or of the last look before the loss",
        f"the same in {same} databases"
        if same == tally.seen
        else f"the same in {same} databases of {tally.seen}",
        finding="incomplete-restore",
    )


def _redefined(database: Mapping[str, Any], last: LastLook) -> bool:
    """Whether definitions changed at the source between the survey and the last look."""
    first, rows = database.get("catalog_writes"), last.of(database["name"], "catalog_writes")
    return first is not None and rows is not None and rows[0]["count"] != first


def roles(control: Psql, facts: Mapping[str, Any], last: LastLook = NO_LOOK) -> Check:
    """All roles of the manifest exist."""
    found = {row["name"] for row in control.rows(CLUSTER, "SELECT rolname AS name FROM pg_roles")}
    tally = Tally(seen=1)
    for role in facts["roles"]:
        name = role["name"]
        tally.compare(name, f"{name} is missing", name in found, True, last.has("roles", role))
    total = len(facts["roles"])
    expected, right = f"{total} roles of the manifest", f"all {total - len(tally.dropped)} roles"
    return tally.check("roles", expected, right, finding="login-missing")


def sequences(
    control: Psql, databases: Iterable[Mapping[str, Any]], last: LastLook = NO_LOOK
) -> Check:
    """Every sequence goes on where it was, or further: none gives a value out again.

    One that the source restarted goes on where it was at the last look; of one that it moved, a
    value behind both is unknown. A cyclic one is only there.
    """
    tally, total = Tally(), 0
    for database in databases:
        name = database["name"]
        if database["sequences"] is None:
            tally.unseen.append(f"{name}: its sequences could not be read at the source")
            continue
        with tally.looking(name):
            found = restored(control, name)
            tally.seen += 1
            hidden = [row for row in database["sequences"] if not row.get("readable", True)]
            if hidden:
                text = f"{name}: the values of {len(hidden)} sequences were not shown at the source"
                tally.unseen.append(f"{text} (GRANT pg_read_all_data, or they were just dropped)")
            looked = last.of(name, "sequences")
            had = {(row["schema"], row["name"]): row for row in looked or ()}
            for row in database["sequences"]:
                total += 1
                key = row["schema"], row["name"]
                label, now = f"{name}.{row['schema']}.{row['name']}", found.get(key)
                if now is None:
                    there = NOT_ASKED
                    if looked is not None:
                        there = still_there(row, had.get(key), "file")
                    tally.compare(label, f"{label} is missing", False, True, there)
                elif not now["cycle"]:
                    _compare_values(tally, label, now, row, had.get(key))
    return tally.check(
        "sequences",
        "every sequence of the manifest, no value behind",
        f"all {total - len(tally.dropped)}",
        finding="incomplete-restore",
    )


def _compare_values(
    tally: Tally,
    label: str,
    now: Mapping[str, Any],
    first: Mapping[str, Any],
    had: Mapping[str, Any] | None,
) -> None:
    """Hold a sequence against its rows at the survey and at the last look.

    One that the source moved meanwhile, on or back, it may have set back after its last look, too;
    one with another file has been restarted.
    """
    was = first["value"]

    def behind(value: int | None, other: int | None) -> bool:
        if value is None or other is None or value == other:
            return value is None and other is not None
        return bool((value < other) == (now["increment"] > 0))

    text = f"{label} is at {now['value']}, was at {was}"
    if not behind(now["value"], was):
        return
    if had is None or not had["readable"]:
        tally.unseen.append(f"{text}: damaged, or restarted since; the source was not asked again")
    elif had["value"] == was and first.get("file") in (None, now["file"]):
        tally.fail(text)
    elif not behind(now["value"], had["value"]):
        tally.changed.append(label)
    else:
        tally.unseen.append(f"{text}: the source moved it since, and was at {had['value']}")


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
    databases: Iterable[Mapping[str, Any]],
    bin_dir: str,
    asleep: Sequence[str] = (),
    last: LastLook = NO_LOOK,
) -> Check:
    """What hangs on the server's own files: libraries of functions, dictionaries, extensions.

    Libraries that are kept `asleep`, and those that refuse to be loaded by a session, are looked
    for as files. What the source has lost itself need not be here; of what it made after it was
    last asked, or did not show, it is unknown.
    """
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
        name = database["name"]
        with tally.looking(name):
            text = control.script(name, script, timeout=600)
            result = wire.parsed(text.strip().rpartition("\n")[2])
            done, tally.seen = done + result["done"], tally.seen + 1
            source = AtSource(database, last.of(name, "extensions") or ())
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
                text = f"{source.database['name']}: library {library}: {why}"
                hold(source, "library", library, subject, text)
            tally.unseen += [f"library {item}" for item in there.unseen("libraries")]
    right = f"all {done}" + (f"; {len(waiting)} are there, and not loaded" if waiting else "")
    right += f"; {len(lost)} that the source has lost as well" if lost else ""
    return tally.check(
        "loadable",
        "every library, dictionary and extension version is on this host",
        right,
        finding="extension-missing",
    )


def indexes_valid(
    control: Psql, databases: Iterable[Mapping[str, Any]], last: LastLook = NO_LOOK
) -> Check:
    """No index is unusable, no materialized view unfilled, other than it was at the source."""
    tally, total, same = Tally(), 0, 0
    for database in databases:
        name = database["name"]
        if (known := database.get("unusable", [])) is None:
            tally.unseen.append(f"{name}: its indexes could not be read at the source")
            continue
        with tally.looking(name):
            found = control.rows(name, UNUSABLE)
            total += int(control.value(name, "SELECT count(*) FROM pg_index") or 0)
            tally.seen += 1
            looked = last.of(name, "indexes")
            for item in found:
                if _at_source(item, known):
                    same += 1
                    continue
                # One that was not there at the last look either was begun after it.
                had: object = NOT_ASKED if looked is None else "not there"
                if there := _at_source(item, looked or ()):
                    had = "usable" if there["usable"] else "unusable"
                label = f"{name}: {item['name']}"
                text = f"{label} is not valid, or was never refreshed"
                tally.compare(label, text, "unusable", "usable", had)
    right = f"all {total}" + (f"; {same} not usable, as at the source" if same else "")
    return tally.check(
        "indexes-valid",
        "every index and materialized view can be used that the source could use",
        right,
        finding="usable-not-restored",
    )


def _at_source(
    item: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The source's row of a relation, which a physical restore leaves its number as well.

    Another one may have been given the name since. Older sets tell no numbers.
    """
    same = (row for row in rows if row["name"] == item["name"])
    return next((row for row in same if row.get("oid") in (None, item["oid"])), None)


def collations(
    control: Psql, databases: Iterable[Mapping[str, Any]], last: LastLook = NO_LOOK
) -> Check:
    """Text sorts here as it did there: the source's collation versions against those here.

    A version is of the source's libraries: it stays, but for a collation that is created again. Of
    one that no column used when the source was asked, what it was made with may be out of date.
    """
    tally, compared = Tally(), 0
    for database in databases:
        name = database["name"]
        if database["collations"] is None:
            tally.unseen.append(f"{name}: its collations could not be read at the source")
            continue
        with tally.looking(name):
            rows = control.rows(
                name,
                "SELECT 'default' AS name, datcollversion AS recorded_version,"
                " pg_database_collation_actual_version(oid) AS actual_version"
                " FROM pg_database WHERE datname = current_database() UNION ALL"
                f" (SELECT * FROM ({COLLATIONS}) c)",
            )
            tally.seen += 1
            there = {row["name"]: {row["actual_version"]} for row in database["collations"]}
            for row in last.of(name, "collations") or ():
                there.setdefault(row["name"], set()).add(row["actual_version"])
            there["default"] = {database["actual_version"]}
            for row in rows:
                compared += row["recorded_version"] is not None
                was = there.get(row["name"], {row["recorded_version"]})
                if row["actual_version"] not in was:
                    had = " or ".join(map(str, was))
                    text = f"{name}: {row['name']} was {had}, is {row['actual_version']}"
                    (tally.wrong if row["name"] in there else tally.unseen).append(text)
    return tally.check(
        "collation-versions",
        "the versions of the source's collations",
        f"unchanged ({compared} versioned)",
        finding=PostgresFinding.LOCALE_CHANGED,
    )
