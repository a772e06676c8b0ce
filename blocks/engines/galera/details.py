"""How objects are made besides what they consist of: digests of options, keys, and definers."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from blocks.engines.galera.facts import TableName, local
from blocks.engines.galera.mariadb import Mariadb
from blocks.engines.galera.survey import SYSTEM, USERS, names, one_by_one

_SCHEMAS = ", ".join(repr(name) for name in SYSTEM)
# Of an event, which node of a cluster it was made at is left out, and no time is of a time zone.
QUERIES = f"""
SELECT JSON_ARRAY(CONCAT('view ', TABLE_SCHEMA, '.', TABLE_NAME), IF(VIEW_DEFINITION = '', NULL,
  JSON_ARRAY(CHECK_OPTION, DEFINER, SECURITY_TYPE, ALGORITHM, CHARACTER_SET_CLIENT,
    COLLATION_CONNECTION))) FROM information_schema.VIEWS WHERE {USERS};
SELECT JSON_ARRAY(CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME),
  IF(COALESCE(ROUTINE_DEFINITION, '') = '', NULL, JSON_ARRAY(IS_DETERMINISTIC, SQL_DATA_ACCESS,
    SECURITY_TYPE, SQL_MODE, DEFINER, CHARACTER_SET_CLIENT, COLLATION_CONNECTION,
    DATABASE_COLLATION))) FROM information_schema.ROUTINES
  WHERE BINARY ROUTINE_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT(LOWER(ROUTINE_TYPE), ' ', SPECIFIC_SCHEMA, '.', SPECIFIC_NAME),
  JSON_ARRAY(ORDINAL_POSITION, PARAMETER_MODE, PARAMETER_NAME, DTD_IDENTIFIER, COLLATION_NAME))
  FROM information_schema.PARAMETERS WHERE BINARY SPECIFIC_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('trigger ', TRIGGER_SCHEMA, '.', TRIGGER_NAME),
  JSON_ARRAY(EVENT_MANIPULATION, EVENT_OBJECT_TABLE, ACTION_ORDER, ACTION_TIMING, SQL_MODE,
    DEFINER, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION))
  FROM information_schema.TRIGGERS WHERE BINARY TRIGGER_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('event ', db, '.', name), JSON_ARRAY(definer, execute_at, interval_value,
  interval_field, starts, ends, status = 'DISABLED', on_completion, sql_mode, time_zone,
  character_set_client, collation_connection, db_collation))
  FROM mysql.event WHERE BINARY db NOT IN ({_SCHEMAS});
"""
_SHOWN_ALIKE = "SET SESSION sql_quote_show_create = 1, lock_wait_timeout = 60"
_NEXT = re.compile(r" AUTO_INCREMENT=\d+")
_AT_ONCE = 100


def digests(node: Mariadb) -> dict[str, str]:
    """Object, as in the definitions of a survey -> a digest; `unseen` where it is not shown."""
    parts = dict[str, list[Any]]()
    for name, part in [*_of_tables(node), *node.objects(QUERIES, timeout=600)]:
        parts.setdefault(name, []).append(part)
    return {
        name: "unseen" if None in found else _digest(sorted(map(json.dumps, found)))
        for name, found in parts.items()
    }


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _of_tables(node: Mariadb) -> list[tuple[str, str | None]]:
    """How each local table is created, but for the number that it gives out next."""
    tables, found = local(names(node, USERS)), list[tuple[str, str | None]]()

    def ask(some: Sequence[TableName]) -> list[list[str]]:
        shown = (f"SHOW CREATE TABLE {item.place}" for item in some)
        return node.rows("; ".join([_SHOWN_ALIKE, *shown]), timeout=600)

    for start in range(0, len(tables), _AT_ONCE):
        for item, row in one_by_one(ask, tables[start : start + _AT_ONCE]):
            text = _NEXT.sub("", row[1]) if isinstance(row, list) else None
            found.append((f"table {item.label}", text))
    return found
