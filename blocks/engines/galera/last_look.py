"""The last look at a source, when its backup has ended: what it changed itself since the survey.

What is restored is what the source was at about this moment. The manifest keeps what differs from
the survey; a part that could not be asked again is left out, and not known.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from blocks.engines.common.tally import NOT_ASKED, Tally
from blocks.engines.galera import details, privileges, sequences, survey
from blocks.engines.galera.facts import Counters, GaleraFacts, Moved, Plugin, Since, Table
from blocks.engines.galera.mariadb import Mariadb
from blocks.errors import FarsideError

_SINCE = "since the survey"
_MOST_JITTER = 2
"""Seconds by which the start of a server, reckoned from its uptime, may differ."""

Part = Literal[
    "definitions", "details", "demands", "accounts", "privileges", "sequences", "plugins"
]
_PARTS: Mapping[Part, Callable[[Mariadb], Any]] = {
    "definitions": survey.definitions,
    "details": details.digests,
    "demands": survey.demands,
    "accounts": survey.accounts,
    "privileges": privileges.digests,
    "sequences": sequences.known,
    "plugins": survey.active_plugins,
}


class LastLook:
    """What differed from the survey, to hold a restored service against.

    None is a set of an older farside: then nothing is known.
    """

    def __init__(self, since: Since | None) -> None:
        self._since = since or Since()

    def had(self, part: Part, name: str, first: object) -> object:
        """What a part had last; None if it was gone, NOT_ASKED where it is not known."""
        changes: Mapping[str, object] | None = getattr(self._since, part)
        return NOT_ASKED if changes is None else changes.get(name, first)

    def table(self, label: str) -> Moved | None:
        """What happened to a table; None where it is not known."""
        changes = self._since.tables
        return None if changes is None else changes.get(label, Moved())

    @property
    def deleted(self) -> int | None:
        """Rows that the source deleted from all its tables; None where it is not known."""
        return self._since.deleted

    def compare(  # noqa: PLR0913 (what Tally.compare takes, and the part)
        self, tally: Tally, part: Part, name: str, text: str, found: object, first: object
    ) -> None:
        """As Tally.compare, but for what came and went between the two looks."""
        last = self.had(part, name, first)
        if found not in (first, last) and last is not NOT_ASKED:
            if self._remade(part, name):
                tally.unseen.append(f"{text}: the source altered it, or created it again, {_SINCE}")
                return
            if not (first or last) and self._since.statements != 0:
                tally.unseen.append(f"{text}: the source may have made and dropped it {_SINCE}")
                return
        tally.compare(name, text, found, first, last)

    def _remade(self, part: Part, name: str) -> bool:
        """Whether a definition is of a table that was altered: it may be as it was before again."""
        if part not in ("definitions", "details"):
            return False
        kind, _, label = name.partition(" ")
        for table, moved in (self._since.tables or {}).items():
            of_it = label == table if kind == "table" else label.startswith(f"{table}.")
            if of_it and kind in ("table", "index") and moved.remade:
                return True
        return False


def differences(node: Mariadb, facts: GaleraFacts) -> Since:
    """What of the facts of a survey is otherwise now. Reads only; raises nothing."""
    found = dict[str, Any]()
    for part, ask in _PARTS.items():
        with suppress(FarsideError):
            first, last = getattr(facts, part), ask(node)
            if first is None or last is None:  # what the user may not read
                continue
            found[part] = _changes(_by_name(first), _by_name(last))
    with suppress(FarsideError):
        found["tables"] = _of_tables(facts.tables, survey.tables(node))
    with suppress(FarsideError):
        found |= _counted(facts.counters, survey.counters(node))
    return Since(**found)


def _changes(first: Mapping[str, object], last: Mapping[str, object]) -> dict[str, object]:
    """What each name has instead; None: it is gone."""
    return {
        name: last.get(name)
        for name in first.keys() | last.keys()
        if first.get(name) != last.get(name)
    }


def _by_name(part: Mapping[str, object] | Sequence[str | Plugin]) -> Mapping[str, object]:
    """The parts of a survey are objects, or lists of names or of plugins."""
    if isinstance(part, Mapping):
        return part
    return dict(
        (item.name, item.type) if isinstance(item, Plugin) else (item, True) for item in part
    )


def _of_tables(first: Sequence[Table], last: Sequence[Table]) -> dict[str, Moved]:
    now = {item.label: item for item in last}
    found = dict[str, Moved]()
    for item in first:
        if (there := now.get(item.label)) is None:
            found[item.label] = Moved(dropped=True)
            continue
        moved = Moved(
            fewer=max(0, (item.rows or 0) - (there.rows or 0)),
            remade=item.made != there.made,
            written=item.written != there.written,
        )
        if moved != Moved():
            found[item.label] = moved
    return found


def _counted(first: Counters | None, last: Counters) -> dict[str, int]:
    """What the server has counted since; nothing if it is another one, or was started anew."""
    if first is None or first.node != last.node or abs(first.started - last.started) > _MOST_JITTER:
        return {}
    return {
        "deleted": last.deleted - first.deleted,
        "statements": last.statements - first.statements,
    }
