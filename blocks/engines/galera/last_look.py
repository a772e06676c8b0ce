"""The last look at a source, when its backup has ended: what it changed itself since the survey.

What is restored is what the source was at about this moment. The manifest keeps what differs from
the survey; a part that could not be asked again is left out, and not known.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from blocks.engines.common.tally import NOT_ASKED, Tally
from blocks.engines.galera import details, privileges, sequences, survey
from blocks.engines.galera.mariadb import Mariadb
from blocks.errors import FarsideError

FACT = "since"
"""Where the facts of a manifest keep it; older ones have none."""
_SINCE = "since the survey"
_MOST_JITTER = 2
"""Seconds by which the start of a server, reckoned from its uptime, may differ."""

_PARTS: Mapping[str, Callable[[Mariadb], Any]] = {
    "definitions": survey.definitions,
    "details": details.digests,
    "demands": survey.demands,
    "accounts": survey.accounts,
    "privileges": privileges.digests,
    "sequences": sequences.known,
    "plugins": survey.active_plugins,
}


@dataclass(frozen=True, slots=True)
class Moved:
    """What the source itself did to a table since the survey."""

    dropped: bool = False
    fewer: int = 0
    """Rows that are gone from it, by the server's estimates."""
    remade: bool = False
    """It was emptied, altered, or dropped and made again."""
    written: bool = False


@dataclass(frozen=True, slots=True)
class LastLook:
    """What differed from the survey; see `differences`."""

    since: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(facts: Mapping[str, Any]) -> "LastLook":
        """That of a manifest."""
        return LastLook(facts.get(FACT) or {})

    def had(self, part: str, name: str, first: object) -> object:
        """What a part had last; None if it was gone, NOT_ASKED where it is not known."""
        changes = self.since.get(part)
        return NOT_ASKED if changes is None else changes.get(name, first)

    def table(self, label: str) -> Moved | None:
        """What happened to a table; None where it is not known."""
        changes = self.since.get("tables")
        return None if changes is None else Moved(**changes.get(label, {}))

    @property
    def deleted(self) -> int | None:
        """Rows that the source deleted from all its tables; None where it is not known."""
        found: int | None = self.since.get("deleted")
        return found

    def compare(
        self, tally: Tally, part: str, name: str, text: str, found: object, first: object
    ) -> None:
        """As Tally.compare, but for what came and went between the two looks."""
        last = self.had(part, name, first)
        if found not in (first, last) and last is not NOT_ASKED:
            if self._remade(part, name):
                tally.unseen.append(f"{text}: the source altered it, or made it anew, {_SINCE}")
                return
            if not (first or last) and self.since.get("statements") != 0:
                tally.unseen.append(f"{text}: the source may have made and dropped it {_SINCE}")
                return
        tally.compare(name, text, found, first, last)

    def _remade(self, part: str, name: str) -> bool:
        """Whether a definition is of a table that was altered: it may be as it was before again."""
        if part not in ("definitions", "details"):
            return False
        kind, _, label = name.partition(" ")
        for table, moved in (self.since.get("tables") or {}).items():
            of_it = label == table if kind == "table" else label.startswith(f"{table}.")
            if of_it and kind in ("table", "index") and moved.get("remade"):
                return True
        return False


def differences(node: Mariadb, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of the facts of a survey is otherwise now, as JSON. Reads only; raises nothing.

    By part, what each name has instead (null: it is gone); for tables, the fields of Moved. Rows
    `deleted` in all tables and `statements` that define, where the server has counted them.
    """
    found = dict[str, Any]()
    for part, ask in _PARTS.items():
        with suppress(FarsideError):
            parts = facts[part], ask(node)
            if None in parts:  # what the user may not read
                continue
            first, last = map(_by_name, parts)
            found[part] = {
                name: last.get(name)
                for name in first.keys() | last.keys()
                if first.get(name) != last.get(name)
            }
    with suppress(FarsideError):
        found["tables"] = _of_tables(facts["tables"], survey.tables(node))
    with suppress(FarsideError):
        first, last = facts["counters"], survey.counters(node)
        same = first["node"] == last["node"]
        if same and abs(first["started"] - last["started"]) <= _MOST_JITTER:
            found |= {name: last[name] - first[name] for name in ("deleted", "statements")}
    return found


def _by_name(part: Any) -> dict[str, Any]:
    """The parts of a survey are objects, or lists of names or of objects with names."""
    if isinstance(part, Mapping):
        return dict(part)
    return dict(
        (item["name"], item["type"]) if isinstance(item, Mapping) else (item, True) for item in part
    )


def _of_tables(first: Any, last: Any) -> dict[str, Any]:
    now = {label(item): item for item in last}
    found = dict[str, Any]()
    for item in first:
        name = label(item)
        if name not in now:
            found[name] = {"dropped": True}
            continue
        there = now[name]
        moved = {
            "fewer": max(0, (item["rows"] or 0) - (there["rows"] or 0)),
            "remade": item.get("made") != there.get("made"),
            "written": item.get("written") != there.get("written"),
        }
        if any(moved.values()):
            found[name] = moved
    return found


def label(table: Mapping[str, Any]) -> str:
    """A table's name, with its schema's."""
    return f"{table['schema']}.{table['name']}"
