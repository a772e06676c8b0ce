"""Where each sequence goes on: it is in no count of rows, and CHECK TABLE does not know it."""

from collections.abc import Sequence

from blocks.engines.galera.facts import (
    KnownSequence,
    SequenceState,
    TableName,
    UnreadableSequence,
    local,
)
from blocks.engines.galera.mariadb import Mariadb, SqlError
from blocks.engines.galera.survey import USERS, names, one_by_one
from blocks.errors import FarsideError

# Of an empty one, too, there is a row.
_READ = """
SET STATEMENT lock_wait_timeout = 10 FOR
SELECT JSON_OBJECT('value', MAX(next_not_cached_value), 'increment', MAX(increment),
  'cycle', MAX(cycle_option), 'least', MAX(minimum_value), 'most', MAX(maximum_value))
FROM {}
"""
_AT_ONCE = 50


def read(node: Mariadb) -> dict[str, SequenceState | FarsideError]:
    """Schema and name -> where it goes on, and between what; or the error with which it cannot."""
    found = dict[str, SequenceState | FarsideError]()
    items = local(names(node, f"TABLE_TYPE = 'SEQUENCE' AND {USERS}"))

    def ask(some: Sequence[TableName]) -> list[SequenceState]:
        query = ";".join(_READ.format(item.place) for item in some)
        return [SequenceState(**state) for state in node.objects(query, timeout=600)]

    for start in range(0, len(items), _AT_ONCE):
        for item, answer in one_by_one(ask, items[start : start + _AT_ONCE]):
            found[item.label] = answer
    return found


def known(node: Mariadb) -> dict[str, KnownSequence]:
    """The same as facts: of one that cannot be read, the number of the error."""
    return {
        name: UnreadableSequence(answer.number if isinstance(answer, SqlError) else 0)
        if isinstance(answer, FarsideError)
        else answer
        for name, answer in read(node).items()
    }
