"""The checks of a restored PostgreSQL server's contents: each passes, fails, or could not run."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import TypeVar

from blocks.engines.checks import Answer, CheckSpec
from blocks.engines.common.tally import NOT_ASKED
from blocks.engines.postgres.catalog import COLLATIONS, OPEN, UNUSABLE
from blocks.engines.postgres.digest import digest_like
from blocks.engines.postgres.facts import Database, PostgresFacts
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.postgres.installation import Installation
from blocks.engines.postgres.last_look import MADE_AGAIN, NO_LOOK, LastLook, still_there
from blocks.engines.postgres.psql import CLUSTER, LoginRefused, Psql, RefusedByCode
from blocks.engines.postgres.rows import Collation, Relation, rows_of
from blocks.engines.postgres.rows import Sequence as SequenceFacts
from blocks.engines.postgres.sequences import restored
from blocks.engines.postgres.tally import Tally
from blocks.evidence.catalogue import FindingId

HOURS = 3600.0
NONE = ("", "(disabled)")


class Databases:
    """Which databases of the manifest are there and can be entered; all checks ask those."""

    def __init__(
        self, control: Psql, facts: PostgresFacts, last: LastLook, installed: Installation
    ) -> None:
        self._control, self._facts, self._last = control, facts, last
        self._installed = installed
        self.here: list[Database] = []
        """Those that the check has entered; checks that were made before it see the same list."""

    def check(self) -> CheckSpec:
        """Every database of the manifest is there, and can be entered."""
        expected = "every database, to be entered"
        return CheckSpec("databases", expected, self._answer, FindingId.INCOMPLETE_RESTORE)

    def _answer(self) -> Answer:
        tally, cause = Tally(), ""
        present = {row["name"] for row in self._control.rows(CLUSTER, OPEN)}
        self.here.clear()
        for database in self._facts.databases:
            name = database.name
            if name not in present:
                text = f"{name} is not there, or takes no connections"
                had = self._last.has("databases", database)
                tally.compare(name, text, False, True, had, subject=f"database {name}")
                continue
            with tally.looking(name):
                try:
                    self._control.value(name, "SELECT 1")
                    self.here.append(database)
                    tally.seen += 1
                except RefusedByCode as error:
                    tally.unseen.append(f"{name}: {error.message}")
                except LoginRefused as error:
                    cause = self._refused(database, error, tally) or cause
        return replace(tally.answer(f"{len(self.here)} databases"), finding=cause)

    def _refused(self, database: Database, error: LoginRefused, tally: Tally) -> str:
        """Note that a database lets nobody in; the finding that this is, if it is one."""
        name, lacking = database.name, self._installed.lacking("locales")
        no_locale = not {database.collate, database.ctype}.isdisjoint(lacking)
        if "contents" in database.unread and not no_locale:
            tally.unseen.append(f"{name}: not entered at the source either")
            return ""
        tally.fail(f"{name} cannot be entered: {error.message}", f"database {name}")
        return PostgresFinding.LOCALE_MISSING if no_locale else FindingId.USABLE_NOT_RESTORED


def schema(control: Psql, databases: Iterable[Database], last: LastLook = NO_LOOK) -> CheckSpec:
    """Definitions of all objects, owners and grants are those of the source."""
    return CheckSpec(
        "schema-digest",
        "the source's schema digests, of the survey or of the last look before the loss",
        partial(same_definitions, control, databases, last),
        FindingId.INCOMPLETE_RESTORE,
    )


def same_definitions(control: Psql, databases: Iterable[Database], last: LastLook) -> Answer:
    """See `schema`."""
    tally, same = Tally(), 0
    for database in databases:
        name, digest = database.name, database.schema_digest
        if digest is None:
            tally.unseen.append(f"{name}: its definitions could not be read at the source")
            continue
        with tally.looking(name):
            found = control.rows(name, digest_like(digest), timeout=600)[0]["digest"]
            tally.seen += 1
            rows, same = last.rows(name, "schema_digest"), same + (found == digest)
            had = rows[0]["digest"] if rows else NOT_ASKED
            if had == digest and _redefined(database, last):
                had = MADE_AGAIN
            tally.compare(name, f"{name}: {found}, manifest {digest}", found, digest, had)
    return tally.answer(
        f"the same in {same} databases"
        if same == tally.seen
        else f"the same in {same} databases of {tally.seen}"
    )


def _redefined(database: Database, last: LastLook) -> bool:
    """Whether definitions changed at the source between the survey and the last look."""
    first, rows = database.catalog_writes, last.rows(database.name, "catalog_writes")
    return first is not None and rows is not None and rows[0]["count"] != first


def roles(control: Psql, facts: PostgresFacts, last: LastLook = NO_LOOK) -> CheckSpec:
    """All roles of the manifest exist."""
    expected = f"{len(facts.roles)} roles of the manifest"
    return CheckSpec(
        "roles", expected, partial(_roles, control, facts, last), FindingId.LOGIN_MISSING
    )


def _roles(control: Psql, facts: PostgresFacts, last: LastLook) -> Answer:
    found = {row["name"] for row in control.rows(CLUSTER, "SELECT rolname AS name FROM pg_roles")}
    tally = Tally(seen=1)
    for role in facts.roles:
        text, had = f"{role.name} is missing", last.has("roles", role)
        tally.compare(role.name, text, role.name in found, True, had)
    return tally.answer(f"all {len(facts.roles) - len(tally.dropped)} roles")


def sequences(control: Psql, databases: Iterable[Database], last: LastLook = NO_LOOK) -> CheckSpec:
    """Every sequence goes on where it was, or further: none gives a value out again.

    One that the source restarted goes on where it was at the last look; of one that it moved, a
    value behind both is unknown. A cyclic one is only there.
    """
    return CheckSpec(
        "sequences",
        "every sequence of the manifest, no value behind",
        partial(_sequences, control, databases, last),
        FindingId.INCOMPLETE_RESTORE,
    )


def _sequences(control: Psql, databases: Iterable[Database], last: LastLook) -> Answer:
    tally, total = Tally(), 0
    for database in databases:
        name = database.name
        if database.sequences is None:
            tally.unseen.append(f"{name}: its sequences could not be read at the source")
            continue
        with tally.looking(name):
            found = restored(control, name)
            tally.seen += 1
            hidden = [row for row in database.sequences if not row.readable]
            if hidden:
                text = f"{name}: the values of {len(hidden)} sequences were not shown at the source"
                tally.unseen.append(f"{text} (GRANT pg_read_all_data, or they were just dropped)")
            looked = last.of(name, "sequences", SequenceFacts)
            had = {row.key: row for row in looked or ()}
            for row in database.sequences:
                total += 1
                label, now = f"{name}.{row.schema}.{row.name}", found.get(row.key)
                if now is None:
                    there = NOT_ASKED
                    if looked is not None:
                        there = still_there(row, had.get(row.key), attrgetter("file"))
                    tally.compare(label, f"{label} is missing", False, True, there)
                elif not now.cycle:
                    _compare_values(tally, label, now, row, had.get(row.key))
    return tally.answer(f"all {total - len(tally.dropped)}")


def _compare_values(
    tally: Tally,
    label: str,
    now: SequenceFacts,
    first: SequenceFacts,
    had: SequenceFacts | None,
) -> None:
    """Hold a sequence against its rows at the survey and at the last look.

    One that the source moved meanwhile, on or back, it may have set back after its last look, too;
    one with another file has been restarted.
    """
    was = first.value

    def behind(value: int | None, other: int | None) -> bool:
        if value is None or other is None or value == other:
            return value is None and other is not None
        return (value < other) == (now.increment > 0)

    text = f"{label} is at {now.value}, was at {was}"
    if not behind(now.value, was):
        return
    if had is None or not had.readable:
        tally.unseen.append(f"{text}: damaged, or restarted since; the source was not asked again")
    elif had.value == was and first.file in (None, now.file):
        tally.fail(text)
    elif not behind(now.value, had.value):
        tally.changed.append(label)
    else:
        tally.unseen.append(f"{text}: the source moved it since, and was at {had.value}")


def indexes_valid(
    control: Psql, databases: Iterable[Database], last: LastLook = NO_LOOK
) -> CheckSpec:
    """No index is unusable, no materialized view unfilled, other than it was at the source."""
    return CheckSpec(
        "indexes-valid",
        "every index and materialized view can be used that the source could use",
        partial(_indexes_valid, control, databases, last),
        FindingId.USABLE_NOT_RESTORED,
    )


@dataclass(frozen=True, slots=True)
class _Index(Relation):
    """One of the last look, and whether queries could use it."""

    usable: bool = False


def _indexes_valid(control: Psql, databases: Iterable[Database], last: LastLook) -> Answer:
    tally, total, same = Tally(), 0, 0
    for database in databases:
        name = database.name
        if (known := database.unusable) is None:
            tally.unseen.append(f"{name}: its indexes could not be read at the source")
            continue
        with tally.looking(name):
            found = rows_of(Relation, control.rows(name, UNUSABLE))
            total += int(control.value(name, "SELECT count(*) FROM pg_index") or 0)
            tally.seen += 1
            looked = last.of(name, "indexes", _Index)
            for item in found:
                if _at_source(item, known):
                    same += 1
                    continue
                # One that was not there at the last look either was begun after it.
                had: object = NOT_ASKED if looked is None else "not there"
                if there := _at_source(item, looked or ()):
                    had = "usable" if there.usable else "unusable"
                label = f"{name}: {item.name}"
                text = f"{label} is not valid, or was never refreshed"
                tally.compare(label, text, "unusable", "usable", had)
    return tally.answer(f"all {total}" + (f"; {same} not usable, as at the source" if same else ""))


_AtSource = TypeVar("_AtSource", bound=Relation)


def _at_source(item: Relation, rows: Iterable[_AtSource]) -> _AtSource | None:
    """The source's row of a relation, which a physical restore leaves its number as well.

    Another one may have been given the name since. Older sets tell no numbers.
    """
    same = (row for row in rows if row.name == item.name)
    return next((row for row in same if row.oid in (None, item.oid)), None)


_HERE = f"""
SELECT 'default' AS name, datcollversion AS recorded_version,
       pg_database_collation_actual_version(oid) AS actual_version
FROM pg_database WHERE datname = current_database()
UNION ALL (SELECT * FROM ({COLLATIONS}) c)
"""


def collations(control: Psql, databases: Iterable[Database], last: LastLook = NO_LOOK) -> CheckSpec:
    """Text sorts here as it did there: the source's collation versions against those here.

    A version is of the source's libraries: it stays, but for a collation that is created again. Of
    one that no column used when the source was asked, what it was made with may be out of date.
    """
    return CheckSpec(
        "collation-versions",
        "the versions of the source's collations",
        partial(_collations, control, databases, last),
        PostgresFinding.LOCALE_CHANGED,
    )


def _collations(control: Psql, databases: Iterable[Database], last: LastLook) -> Answer:
    tally, compared = Tally(), 0
    for database in databases:
        name = database.name
        if database.collations is None:
            tally.unseen.append(f"{name}: its collations could not be read at the source")
            continue
        with tally.looking(name):
            rows = rows_of(Collation, control.rows(name, _HERE))
            tally.seen += 1
            there = {row.name: {row.actual_version} for row in database.collations}
            for row in last.of(name, "collations", Collation) or ():
                there.setdefault(row.name, set()).add(row.actual_version)
            there["default"] = {database.actual_version}
            for row in rows:
                compared += row.recorded_version is not None
                was = there.get(row.name, {row.recorded_version})
                if row.actual_version not in was:
                    had = " or ".join(map(str, was))
                    text = f"{name}: {row.name} was {had}, is {row.actual_version}"
                    (tally.wrong if row.name in there else tally.unseen).append(text)
    return tally.answer(f"unchanged ({compared} versioned)")
