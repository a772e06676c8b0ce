"""What of a cluster names another failure domain: settings, and all that is stored as text."""

import re
from collections.abc import Iterator, Sequence

from blocks import readings
from blocks.engines.galera.facts import GaleraFacts, TableName, local
from blocks.engines.galera.mariadb import Mariadb, literal
from blocks.engines.galera.survey import SYSTEM, USERS, names, of_each
from blocks.evidence.catalogue import FindingId, Severity
from blocks.evidence.findings import Finding, finding
from blocks.ownership import Belongings
from blocks.remote.resolving import hard_coded

_SCHEMAS = ", ".join(repr(name) for name in SYSTEM)
_TEXTS = f"""
SELECT JSON_ARRAY(CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME),
  ROUTINE_DEFINITION) FROM information_schema.ROUTINES
  WHERE BINARY ROUTINE_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('view ', TABLE_SCHEMA, '.', TABLE_NAME), VIEW_DEFINITION)
  FROM information_schema.VIEWS WHERE {USERS};
SELECT JSON_ARRAY(CONCAT('trigger ', TRIGGER_SCHEMA, '.', TRIGGER_NAME), ACTION_STATEMENT)
  FROM information_schema.TRIGGERS WHERE BINARY TRIGGER_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('event ', EVENT_SCHEMA, '.', EVENT_NAME), EVENT_DEFINITION)
  FROM information_schema.EVENTS WHERE BINARY EVENT_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('comment on ', LOWER(ROUTINE_TYPE), ' ', ROUTINE_SCHEMA, '.',
  ROUTINE_NAME), ROUTINE_COMMENT) FROM information_schema.ROUTINES
  WHERE BINARY ROUTINE_SCHEMA NOT IN ({_SCHEMAS}) AND ROUTINE_COMMENT <> '';
SELECT JSON_ARRAY(CONCAT('comment on event ', EVENT_SCHEMA, '.', EVENT_NAME), EVENT_COMMENT)
  FROM information_schema.EVENTS
  WHERE BINARY EVENT_SCHEMA NOT IN ({_SCHEMAS}) AND EVENT_COMMENT <> '';
SELECT JSON_ARRAY(CONCAT('server ', Server_name), CONCAT_WS('\\n', CONCAT('host ', Host), Socket))
  FROM mysql.servers;
"""
_ACCOUNTS = (
    "SELECT User, Host FROM mysql.user WHERE is_role = 'N' AND Host NOT IN ('%', 'localhost')"
)
# Asked of each table, which is not opened for it.
_OF_COLUMNS = """
SELECT JSON_ARRAY(CONCAT('default of ', TABLE_SCHEMA, '.', TABLE_NAME, '.', COLUMN_NAME),
  COLUMN_DEFAULT) FROM information_schema.COLUMNS
  WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name} AND COLUMN_DEFAULT IS NOT NULL;
SELECT JSON_ARRAY(CONCAT('type of ', TABLE_SCHEMA, '.', TABLE_NAME, '.', COLUMN_NAME),
  COLUMN_TYPE) FROM information_schema.COLUMNS
  WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name} AND DATA_TYPE IN ('enum', 'set');
SELECT JSON_ARRAY(CONCAT('generated column ', TABLE_SCHEMA, '.', TABLE_NAME, '.', COLUMN_NAME),
  GENERATION_EXPRESSION) FROM information_schema.COLUMNS
  WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name} AND GENERATION_EXPRESSION IS NOT NULL;
SELECT JSON_ARRAY(CONCAT('comment on ', TABLE_SCHEMA, '.', TABLE_NAME, '.', COLUMN_NAME),
  COLUMN_COMMENT) FROM information_schema.COLUMNS
  WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name} AND COLUMN_COMMENT <> ''
"""
# Asked of each table that may be opened.
_OF_TABLES = """
SELECT JSON_ARRAY(CONCAT('constraint ', CONSTRAINT_SCHEMA, '.', TABLE_NAME, '.', CONSTRAINT_NAME),
  CHECK_CLAUSE) FROM information_schema.CHECK_CONSTRAINTS
  WHERE CONSTRAINT_SCHEMA = {schema} AND TABLE_NAME = {name};
SELECT JSON_ARRAY(CONCAT('partition ', TABLE_SCHEMA, '.', TABLE_NAME, '.', PARTITION_NAME),
  PARTITION_DESCRIPTION) FROM information_schema.PARTITIONS
  WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name} AND PARTITION_DESCRIPTION IS NOT NULL;
SELECT JSON_ARRAY(CONCAT('comment on table ', TABLE_SCHEMA, '.', TABLE_NAME), TABLE_COMMENT)
  FROM information_schema.TABLES
  WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name} AND TABLE_COMMENT <> ''
"""
_FILE = """
SELECT CONCAT(@@datadir, CAST(CAST(CONVERT({schema} USING filename) AS BINARY) AS CHAR), '/',
  CAST(CAST(CONVERT({name} USING filename) AS BINARY) AS CHAR))
"""
# A name that Windows has for a device (con, aux) is marked.
_CAT = 'cat "$1.frm" 2>/dev/null || cat "$1@@@.frm"'
_PRINTED = re.compile(rb"[^\x00-\x1f\x7f]{3,}")


def texts(node: Mariadb) -> list[tuple[str, str]]:
    """Objects of the restored cluster, each with what it is defined by."""
    tables = names(node, USERS)
    stored = local(tables)
    found = node.objects(_TEXTS, timeout=600)
    found += of_each(node, _OF_COLUMNS, tables) + of_each(node, _OF_TABLES, stored)
    return [
        *((name, str(text or "")) for name, text in found),
        *((f"table {item.label}", _outbound(node, item)) for item in tables if item not in stored),
    ]


def _outbound(node: Mariadb, table: TableName) -> str:
    """What a table of another server is defined by: to show it, the server would open it."""
    query = _FILE.format(schema=literal(table.schema), name=literal(table.name))
    file = node.value("", query)
    parts = _PRINTED.findall(node.host.run(["sh", "-c", _CAT, "sh", file]).stdout)
    return " ".join(part.decode(errors="replace") for part in parts)


def in_cluster(
    node: Mariadb, texts: Sequence[tuple[str, str]], foreign: Belongings
) -> Iterator[Finding]:
    """Objects, by their `texts`, and accounts that name what is `foreign`, with the line."""
    for name, text in texts:
        comments = readings.comments(text)
        for line, mention in foreign.lines(text):
            severity = Severity.INFO if is_comment(name) or line in comments else None
            said = f"its line {line} names {mention}"
            yield hard_coded(name, said, mention, foreign, severity)
    for user, host in node.rows(_ACCOUNTS):
        if foreign.owns_name(_an_address(host)):
            text = f"it may connect from {host} only, which is lost"
            yield finding(FindingId.ADDRESS_HARD_CODED, f"user {user}@{host}", text)


def is_comment(name: str) -> bool:
    """Whether an object of `texts` is a comment on another, which uses nothing."""
    return name.startswith("comment on ")


def in_settings(facts: GaleraFacts, foreign: Belongings) -> Iterator[Finding]:
    """Settings of the source, other than those decided anew, that name what is `foreign`."""
    for name, value in facts.settings.items():
        for _, mention in foreign.lines(value):
            text = f"{name} names {mention}"
            yield hard_coded(f"setting {name}", text, mention, foreign)


def _an_address(pattern: str) -> str:
    """Some address, or name, that an account's host pattern lets in: 10.1.% lets 10.1.1.1 in."""
    host = pattern.partition("/")[0]
    if host[:1].isdigit():
        parts = [part if part.isdecimal() else "1" for part in host.split(".")]
        return ".".join([*parts, "1", "1", "1"][:4])
    return host.replace("%", "x").replace("_", "x")
