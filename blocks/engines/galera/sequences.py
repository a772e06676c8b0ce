"""Where each sequence goes on: it is in no count of rows, and CHECK TABLE does not know it."""

from collections.abc import Mapping, Sequence
from typing import Any

from blocks.engines.common.tally import NOT_ASKED, Tally
from blocks.engines.galera.mariadb import Mariadb, SqlError, identifier
from blocks.engines.galera.survey import USERS, local, names, one_by_one
from blocks.errors import FarsideError

# Of an empty one, too, there is a row.
_READ = """
SET STATEMENT lock_wait_timeout = 10 FOR
SELECT JSON_OBJECT('value', MAX(next_not_cached_value), 'increment', MAX(increment),
  'cycle', MAX(cycle_option), 'least', MAX(minimum_value), 'most', MAX(maximum_value))
FROM {}.{}
"""
_AT_ONCE = 50


def read(node: Mariadb) -> dict[str, Any]:
    """Schema and name -> where it goes on, and between what; or the error with which it cannot."""
    found = dict[str, Any]()
    items = local(names(node, f"TABLE_TYPE = 'SEQUENCE' AND {USERS}"))

    def ask(some: Sequence[Any]) -> list[Any]:
        places = ((identifier(item["schema"]), identifier(item["name"])) for item in some)
        return node.objects(";".join(_READ.format(*place) for place in places), timeout=600)

    for start in range(0, len(items), _AT_ONCE):
        for item, answer in one_by_one(ask, items[start : start + _AT_ONCE]):
            found[f"{item['schema']}.{item['name']}"] = answer
    return found


def known(node: Mariadb) -> dict[str, Any]:
    """The same as facts: of one that cannot be read, the number of the error."""
    return {
        name: {"broken": answer.number if isinstance(answer, SqlError) else 0}
        if isinstance(answer, FarsideError)
        else answer
        for name, answer in read(node).items()
    }


def hold(tally: Tally, host: str, name: str, now: Any, first: Mapping[str, Any], had: Any) -> None:
    """Hold what a node has of a sequence against the source's survey and last look.

    None is one that is not there. One that was moved on, or back, by the source itself may have
    been set back after its last look, too. One that cycles is only there.
    """
    label = f"{host}: {name}"
    if now is None:
        there = NOT_ASKED if had is NOT_ASKED else had is not None
        tally.compare(name, f"{label} is missing", False, True, there)
        return
    if "broken" in first:
        tally.unseen.append(f"{label}: the source could not read it either")
        return
    last = had if had is not NOT_ASKED and had and "broken" not in had else None
    with tally.looking(label):
        if isinstance(now, FarsideError):
            raise now
        limits = _limits(last) if last else NOT_ASKED
        tally.compare(name, f"{label} has other limits", _limits(now), _limits(first), limits)
        if not now["cycle"]:
            _hold_value(tally, name, f"{label} is at {now['value']}", now, first, last)


def _limits(sequence: Mapping[str, Any]) -> list[Any]:
    return [sequence[name] for name in ("increment", "cycle", "least", "most")]


def _hold_value(
    tally: Tally,
    name: str,
    text: str,
    now: Mapping[str, Any],
    first: Mapping[str, Any],
    last: Mapping[str, Any] | None,
) -> None:
    text += f", was at {first['value']}"
    if not _is_behind(now, first["value"]):
        return
    if last is None:
        tally.unseen.append(f"{text}: damaged, or set back since; the source was not asked again")
    elif last["value"] == first["value"]:
        tally.fail(text)
    elif not _is_behind(now, last["value"]):
        if name not in tally.changed:  # each node is asked
            tally.changed.append(name)
    else:
        tally.unseen.append(f"{text}: the source moved it since, and was at {last['value']}")


def _is_behind(now: Mapping[str, Any], value: int | None) -> bool:
    """Whether a sequence will give out again what one at a value has given out already."""
    here = now["value"]
    if here is None or value is None:
        return value is not None
    return bool(here > value if now["increment"] < 0 else here < value)
