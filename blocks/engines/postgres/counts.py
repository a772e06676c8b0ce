"""Rows and large objects: counted where that is cheap, and compared as exactly as can be known.

A number that was counted at the source holds for the restored data only if nothing was written
since. Whether something was, the server's own counters tell, read again just before the source is
lost; without that second look (a retained set, a standby) a number is an estimate, and says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TypeVar

from blocks.engines.checks import Answer, CheckSpec
from blocks.engines.common.tally import NOT_ASKED
from blocks.engines.postgres.catalog import LARGE_OBJECTS, OBJECT_PAGES, TABLES
from blocks.engines.postgres.facts import Database
from blocks.engines.postgres.last_look import NO_LOOK, LastLook, still_there
from blocks.engines.postgres.psql import Psql, SqlError, identifier, literal
from blocks.engines.postgres.rows import Counter, Table, rows_of
from blocks.engines.postgres.tally import Tally
from blocks.evidence.catalogue import FindingId

HOURS = 3600.0
ROW = '"farside row"'
"""A table's alias that no column has as its name: that would be meant, not the row."""
ALL_READ = f"{ROW} OPERATOR(pg_catalog.*=) {ROW}"
"""True of every row: comparing its image with itself, the server reads each value, also those that
are stored apart (TOAST), and runs no code of a type's."""
_PLACE = f"{ROW}.ctid"
"""Only the table itself tells it: an index alone could tell the number of rows, and of damage
nothing."""
_UNDEFINED = ("42883", "42P01", "42704")
"""SQLSTATEs of a function, a relation and another object that no name leads to."""
_PATH = """
SELECT format('%I, %I, public', pg_get_userbyid(c.relowner), n.nspname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid"""
_WRITTEN = "it may have been written to"
SLACK_ROWS = 10
"""A number that is no exact one may be off by so many rows, or by a tenth."""


def row_counts(
    control: Psql,
    databases: Iterable[Database],
    last: LastLook = NO_LOOK,
) -> CheckSpec:
    """Every table and materialized view is there, with the rows that it must have.

    A table that was counted, and to which nothing was written since, has exactly its rows; else
    a shortfall of more than a tenth and of SLACK_ROWS fails, next to what was deleted meanwhile.
    Of one that the source has emptied or rewritten since, only its last estimate tells something.
    One that was counted and has come back empty never passes, unless the source emptied it, or was
    writing to it at one of the two looks, or had deleted from it before the only one.
    Unlogged tables are empty: no backup holds them. Where values are stored apart from their rows,
    all are read.
    """
    return CheckSpec(
        "row-counts",
        "every table of the manifest, with its rows (a tenth less where they are estimated)",
        lambda: _Rows(control, last).answer(databases),
        FindingId.INCOMPLETE_RESTORE,
        grows=True,
    )


class _Rows:
    """Counts the rows of the tables of all databases."""

    def __init__(self, control: Psql, last: LastLook) -> None:
        self._control, self._last = control, last
        self._tally = Tally()
        self._exact = self._about = self._tables = self._total = 0

    def answer(self, databases: Iterable[Database]) -> Answer:
        """What is found in all of them."""
        for database in databases:
            if database.tables is None:
                text = f"{database.name}: its tables could not be read at the source"
                self._tally.unseen.append(text)
                continue
            with self._tally.looking(database.name):
                self._look_into(database, database.tables)
        right = (
            f"{self._total} rows in {self._tables} tables, {self._exact} of them compared exactly"
        )
        if self._about:
            right += f", {self._about} only to about a tenth or {SLACK_ROWS} rows"
        return self._tally.answer(right)

    def _look_into(self, database: Database, tables: Iterable[Table]) -> None:
        name = database.name
        present = _by_key(rows_of(Table, self._control.rows(name, TABLES)))
        self._tally.seen += 1
        moves, looked = Moves(database, self._last), self._last.of(name, "tables", Table)
        had = _by_key(looked or ())
        for table in tables:
            label = f"{name}.{table.schema}.{table.name}"
            if (here := present.get(table.key)) is None:
                there = NOT_ASKED
                if looked is not None:
                    there = still_there(table, had.get(table.key), attrgetter("file"))
                self._tally.compare(label, f"{label} is missing", False, True, there)
                continue
            with self._tally.looking(label):
                found = _count(self._control, name, here)
                self._tables, self._total = self._tables + 1, self._total + found
                if not here.unlogged:
                    is_count = table.count is not None
                    wanted = table.count if is_count else table.rows
                    moved = moves.of_table(table, here, had.get(table.key))
                    held = compare(self._tally, label, found, wanted, is_count, moved)
                    self._exact, self._about = self._exact + held, self._about + (not held)


def _count(control: Psql, database: str, table: Table) -> int:
    """The rows of a restored table; raises as Psql.user_rows.

    Its indexes may have expressions whose functions find others by the search_path that
    applications have, and to plan any query, the server reads these.
    """
    place = f"{identifier(table.schema)}.{identifier(table.name)}"
    counted = f"SELECT pg_catalog.count({ALL_READ if table.apart else _PLACE}) AS rows"
    query = f"{counted} FROM ONLY {place} AS {ROW}"
    try:
        (answer,) = control.user_rows(database, query, timeout=HOURS)
    except SqlError as error:
        if error.sqlstate not in _UNDEFINED:
            raise
        path = control.value(database, f"{_PATH} = {literal(place)}::regclass")
        (answer,) = control.user_rows(database, query, timeout=HOURS, path=path or "public")
    return int(answer["rows"])


def large_objects(
    control: Psql,
    databases: Iterable[Database],
    last: LastLook = NO_LOOK,
) -> CheckSpec:
    """The large objects that there were, and all pages of their contents.

    They are counted: fewer than the source is known to have left are unknown at least.
    """
    return CheckSpec(
        "large-objects",
        "the manifest's large objects",
        partial(_large_objects, control, databases, last),
        FindingId.INCOMPLETE_RESTORE,
        grows=True,
    )


def _large_objects(control: Psql, databases: Iterable[Database], last: LastLook) -> Answer:
    tally, exact, total = Tally(), 0, 0
    for database in databases:
        name, had = database.name, database.large_objects
        if had is None:
            tally.unseen.append(f"{name}: they could not be counted at the source")
            continue
        with tally.looking(name):
            objects, contents = "pg_largeobject_metadata", "pg_largeobject"
            found = control.rows(name, LARGE_OBJECTS)[0]["count"]
            tally.seen, total = tally.seen + 1, total + found
            moves = Moves(database, last)
            moved = moves.of("pg_catalog", objects)
            held = compare(tally, name, found, had, True, moved, strict=True)
            if (pages := database.object_pages) is not None:
                found = control.rows(name, OBJECT_PAGES, timeout=HOURS)[0]["count"]
                moved = moves.of("pg_catalog", contents)
                label = f"{name}: pages of contents"
                held &= compare(tally, label, found, pages, True, moved, strict=True)
            exact += held
    return tally.answer(f"{total}, compared exactly in {exact} of {tally.seen} databases")


@dataclass(frozen=True, slots=True)
class Moved:
    """What the source itself did to a table since the survey."""

    deleted: int = 0
    """Rows that are gone from it, at most."""
    known: bool = False
    """Whether its counters say so."""
    untouched: bool = False
    busy: bool = False
    """Whether rows may have come and gone, by what was seen of it, without its counters telling."""
    doubt: str = ""
    """Why a shortfall may be the source's own doing."""


class Moves:
    """What was written to the tables of a database between two looks at it."""

    def __init__(self, database: Database, last: LastLook) -> None:
        looked = last.of(database.name, "counters", Counter)
        self._asked, self._standby = looked is not None, last.standby
        self._first, self._last = _by_key(database.counters or ()), _by_key(looked or ())
        # A standby has none, nor has a server that does not count; an older set does not say.
        self._untold = database.counters == ()

    def of(self, schema: str, name: str) -> Moved:
        """By the server's counters alone."""
        first, last = self._first.get((schema, name)), self._last.get((schema, name))
        if first is None or last is None:
            # Large objects have counters wherever there are any.
            if self._asked:
                return Moved(busy=bool(self._first and self._last), doubt=_WRITTEN)
            if self._untold:
                return Moved(doubt=_WRITTEN)
            # Not asked again: what rows were deleted from before may be a queue, which empties.
            came_and_went = first is None or first.deleted > 0
            return Moved(busy=bool(self._first) and came_and_went)
        if first == last:
            return Moved(known=True, untouched=True)
        if first.written.split()[0] != last.written.split()[0]:
            return Moved(doubt="it was emptied or rewritten")  # its counters say nothing of that
        return Moved(max(0, last.deleted - first.deleted), known=True)

    def of_table(self, first: Table, here: Table, last: Table | None) -> Moved:
        """The same, with a table's rows in TABLES: at the survey, restored, and at the last look.

        Where the counters do not tell, the source's own estimates do, if they are of the table
        that was restored.
        """
        file, had = first.file, first.rows
        moved, same = self.of(*first.key), last is not None and last.file == file
        if rewritten := file not in (None, here.file) and not same:
            moved = Moved(busy=moved.busy, doubt="it was emptied, rewritten or created again")
            had = had if first.count is None else first.count
        if moved.known or last is None or last.file != here.file or had is None:
            return moved
        left = last.rows
        if left is None and not self._went_on(first.key):
            return moved
        # A standby's estimates are those of the primary's last ANALYZE, however long ago.
        doubt = moved.doubt if rewritten or self._standby else ""
        return Moved(max(0, had - (left or 0)), busy=moved.busy, doubt=doubt)

    def _went_on(self, key: tuple[str, str]) -> bool:
        """Whether a table's counters were not lost meanwhile: one without an estimate is empty."""
        inserted = [
            int(rows[key].written.split()[1]) if key in rows else 0
            for rows in (self._first, self._last)
        ]
        return 0 < inserted[0] <= inserted[1]


_Keyed = TypeVar("_Keyed", Table, Counter)


def _by_key(rows: Iterable[_Keyed]) -> dict[tuple[str, str], _Keyed]:
    return {row.key: row for row in rows}


def compare(  # noqa: PLR0913 (what was counted, and all that it is held against)
    tally: Tally,
    label: str,
    found: int,
    wanted: int | None,
    is_count: bool,
    moved: Moved,
    *,
    strict: bool = False,
) -> bool:
    """Hold a number against the source's; whether the comparison was an exact one.

    A `strict` one that is too small never passes, however little is missing.
    """
    if wanted is None:
        tally.unseen.append(
            f"{label} has {found} rows: the source has neither count nor estimate (with row"
            " security, ALTER ROLE ... BYPASSRLS lets its role count)"
        )
        return False
    if is_count and moved.untouched:
        # More may have come in the last seconds, which a server's counters do not show at once.
        if found < wanted:
            tally.fail(f"{label} has {found} of {wanted}, and nothing was written to it since")
        elif found > wanted + max(SLACK_ROWS, wanted // 10):
            text = f"{label} has {found}, had {wanted}, and nothing was written to it until the end"
            tally.unseen.append(f"{text}: rows that were deleted are back, or came at once")
        return found == wanted
    short = f"{label} has {found} of {'' if is_count else 'about '}{wanted}"
    least = wanted - moved.deleted
    gone = is_count and found == 0 and not moved.busy  # queues come and go all the time
    if found < least - max(SLACK_ROWS, wanted // 10):
        if moved.doubt:
            tally.unseen.append(f"{short}: at the source {moved.doubt} since the survey")
        else:
            tally.fail(f"{short}, {moved.deleted} deleted since")
    elif found < wanted and is_count and moved.known and not moved.deleted:
        tally.unseen.append(f"{short}: it was written to meanwhile")
    elif found < least and (gone or strict):
        known = f"{moved.deleted} deleted at the source" if moved.deleted else moved.doubt
        why = f": {known}" if known else ""
        tally.unseen.append(f"{short}: lost, or deleted since the survey{why}")
    return False
