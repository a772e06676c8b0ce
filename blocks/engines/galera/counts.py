"""Whether rows, and the values of sequences, are as many and as high as at the source."""

from dataclasses import dataclass

from blocks.engines.checks import Answer, CheckSpec
from blocks.engines.common.tally import NOT_ASKED
from blocks.engines.galera import sequences as going_on
from blocks.engines.galera import survey
from blocks.engines.galera.facts import (
    GaleraFacts,
    KnownSequence,
    Moved,
    SequenceState,
    Table,
    UnreadableSequence,
    local,
)
from blocks.engines.galera.last_look import LastLook
from blocks.engines.galera.mariadb import Mariadb
from blocks.engines.galera.nodes import HOURS, Nodes, number
from blocks.engines.galera.tally import Tally, unopened
from blocks.errors import FarsideError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import CheckStatus

EMPTIED = 100
"""A table of fewer rows may be empty a moment later (a queue)."""
# Not InnoDB's own statistics: an estimate of pages that were read at random.
ESTIMATE = 2
"""How many times too high an estimate of rows may be."""


@dataclass(slots=True)
class _Counted:
    """What has been counted so far."""

    tally: Tally
    last: LastLook
    rows: int = 0
    exactly: int = 0
    """Tables that were counted at the source, too."""


def row_counts(node: Mariadb, facts: GaleraFacts) -> CheckSpec:
    """Every table is there with as many rows as were counted at the source.

    Where it counted none (a large table, or one that was written to) its own estimate has to do:
    no fewer rows than half of it, for it comes from a few pages. A table that had EMPTIED rows and
    has none now fails as well. Tables in memory are empty.
    """

    def run() -> Answer:
        counted, wanted = _Counted(Tally(), LastLook(facts.since)), local(facts.tables)
        present = {item.label for item in survey.names(node)}
        for item in wanted:
            _count(node, item, counted, is_there=item.label in present)
        tally = counted.tally
        right = f"{counted.rows:,} rows in {len(wanted)} tables: {counted.exactly} as counted"
        right += f" at the source, {len(wanted) - counted.exactly} by its estimates"
        if not (tally.wrong or tally.unseen or tally.seen):
            text = "the source showed no table: nothing was compared"
            return Answer(CheckStatus.UNKNOWN, text)
        return tally.answer(right)

    expected = "as many rows as were counted at the source, or as its estimates allow"
    return CheckSpec("row-counts", expected, run, finding=FindingId.INCOMPLETE_RESTORE, grows=True)


def _count(node: Mariadb, table: Table, so_far: _Counted, *, is_there: bool) -> None:
    """Count a table, and hold it against the source's."""
    tally, last, name = so_far.tally, so_far.last, table.label
    moved = last.table(name)
    if not is_there:
        had = NOT_ASKED if moved is None else not moved.dropped
        tally.compare(name, f"{name} is missing", False, True, had)
        tally.seen += 1
        return
    if table.broken:
        tally.unseen.append(unopened(name, table.broken))
        return
    with tally.looking(name):
        counted = int(node.value("", f"SELECT COUNT(*) FROM {table.place}", timeout=HOURS))
        tally.seen, so_far.rows = tally.seen + 1, so_far.rows + counted
        if table.engine == "MEMORY":
            return
        if table.exact is not None:
            so_far.exactly += 1
            if counted != table.exact:
                tally.fail(f"{name} has {counted} rows, where the source had {table.exact}")
        elif table.rows is None:
            tally.unseen.append(f"{name} has {counted} rows, and the source had no estimate")
        else:
            # Of other engines, a table may lose all its rows with none of them counted.
            deleted = last.deleted if table.engine == "INNODB" else None
            _hold_estimate(tally, name, counted, table.rows, moved, deleted)


def _hold_estimate(  # noqa: PLR0913 (what was counted, and all that it is held against)
    tally: Tally, name: str, counted: int, estimate: int, moved: Moved | None, deleted: int | None
) -> None:
    """Hold a number of rows against the source's estimate, less those that it deleted itself.

    `deleted` is how many it deleted from all tables; None is any number.
    """
    least = max(0, estimate - moved.fewer) if moved else estimate
    text = f"{name} has {counted} of about {estimate} rows"
    if not _is_short(counted, least):
        if _is_short(counted, estimate):
            tally.changed.append(name)
    elif moved is None:
        tally.unseen.append(f"{text}: lost, or deleted since the survey; it was not asked again")
    elif moved.remade:
        tally.unseen.append(f"{text}: the source emptied it, or created it again, since the survey")
    elif moved.written and (deleted is None or not _is_short(counted + deleted, least)):
        tally.unseen.append(f"{text}: the source may have deleted them since the survey")
    else:
        tally.fail(text)


def _is_short(counted: int, least: int) -> bool:
    return counted < least // ESTIMATE - EMPTIED or (counted == 0 and least >= EMPTIED)


def sequences(nodes: Nodes, facts: GaleraFacts) -> CheckSpec:
    """Every sequence goes on where it was, or further, on each node: none gives a value twice."""

    def run() -> Answer:
        tally, last, wanted = Tally(), LastLook(facts.since), facts.sequences
        if wanted is None:
            text = "the source was not asked where its sequences go on"
            return Answer(CheckStatus.UNKNOWN, text)
        for host, node in nodes.items():
            with tally.looking(host):
                there = going_on.read(node)
                tally.seen += 1
                for name, first in sorted(wanted.items()):
                    had = last.had("sequences", name, first)
                    _hold(tally, host, name, there.get(name), first, had)
        return tally.answer(f"all {len(wanted)} on {number(nodes)}")

    expected = "every sequence of the manifest, no value behind"
    return CheckSpec("sequences", expected, run, finding=FindingId.INCOMPLETE_RESTORE)


def _hold(  # noqa: PLR0913 (a sequence at three times, and what names it)
    tally: Tally,
    host: str,
    name: str,
    now: SequenceState | FarsideError | None,
    first: KnownSequence,
    had: object,
) -> None:
    """Hold what a node has of a sequence against the source's survey and last look.

    None is one that is not there. One that was moved on, or back, by the source itself may have
    been set back after its last look, too. One that cycles is only there.
    """
    label = f"{host}: {name}"
    if now is None:
        there = NOT_ASKED if had is NOT_ASKED else had is not None
        tally.compare(name, f"{label} is missing", False, True, there)
        return
    if isinstance(first, UnreadableSequence):
        tally.unseen.append(f"{label}: the source could not read it either")
        return
    last = had if isinstance(had, SequenceState) else None
    with tally.looking(label):
        if isinstance(now, FarsideError):
            raise now
        limits = last.limits if last else NOT_ASKED
        tally.compare(name, f"{label} has other limits", now.limits, first.limits, limits)
        if not now.cycle:
            _hold_value(tally, name, f"{label} is at {now.value}", now, first, last)


def _hold_value(  # noqa: PLR0913 (a sequence at three times, and what names it)
    tally: Tally,
    name: str,
    text: str,
    now: SequenceState,
    first: SequenceState,
    last: SequenceState | None,
) -> None:
    text += f", was at {first.value}"
    if not now.is_behind(first.value):
        return
    if last is None:
        tally.unseen.append(f"{text}: damaged, or set back since; the source was not asked again")
    elif last.value == first.value:
        tally.fail(text)
    elif not now.is_behind(last.value):
        if name not in tally.changed:  # each node is asked
            tally.changed.append(name)
    else:
        tally.unseen.append(f"{text}: the source moved it since, and was at {last.value}")
