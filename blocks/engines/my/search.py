"""What of a cluster names another failure domain: settings, and all that is stored as text."""

from collections.abc import Iterator, Mapping
from typing import Any

from blocks.artifact.mentions import Belongings
from blocks.engines.my.client import Mariadb, identifier
from blocks.engines.my.survey import OUTBOUND, SYSTEM, USERS
from blocks.evidence.findings import Finding, finding

_SCHEMAS = ", ".join(repr(name) for name in SYSTEM)
_TEXTS = f"""
SELECT JSON_ARRAY(CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME),
  ROUTINE_DEFINITION) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('view ', TABLE_SCHEMA, '.', TABLE_NAME), VIEW_DEFINITION)
  FROM information_schema.VIEWS WHERE {USERS};
SELECT JSON_ARRAY(CONCAT('trigger ', TRIGGER_SCHEMA, '.', TRIGGER_NAME), ACTION_STATEMENT)
  FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('event ', EVENT_SCHEMA, '.', EVENT_NAME), EVENT_DEFINITION)
  FROM information_schema.EVENTS WHERE EVENT_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('default of ', TABLE_SCHEMA, '.', TABLE_NAME, '.', COLUMN_NAME),
  COLUMN_DEFAULT) FROM information_schema.COLUMNS WHERE COLUMN_DEFAULT IS NOT NULL AND {USERS};
SELECT JSON_ARRAY(CONCAT('constraint ', CONSTRAINT_SCHEMA, '.', TABLE_NAME, '.', CONSTRAINT_NAME),
  CHECK_CLAUSE) FROM information_schema.CHECK_CONSTRAINTS
  WHERE CONSTRAINT_SCHEMA NOT IN ({_SCHEMAS});
SELECT JSON_ARRAY(CONCAT('server ', Server_name), CONCAT_WS('\\n', Host, Socket))
  FROM mysql.servers;
"""
_ACCOUNTS = (
    "SELECT User, Host FROM mysql.user WHERE is_role = 'N' AND Host NOT IN ('%', 'localhost')"
)


def in_cluster(node: Mariadb, tables: list[Any], foreign: Belongings) -> Iterator[Finding]:
    """Objects and accounts of the restored cluster that name what is `foreign`, with the line."""
    texts = node.objects(_TEXTS, timeout=600)
    for item in tables:
        if item["engine"] in OUTBOUND:
            place = f"{identifier(item['schema'])}.{identifier(item['name'])}"
            shown = node.script("", f"SHOW CREATE TABLE {place};").partition("\t")[2]
            texts.append([f"table {item['schema']}.{item['name']}", shown.replace("\\n", "\n")])
    for name, text in texts:
        for line, mention in foreign.lines(str(text or "")):
            yield _finding(name, f"its line {line} names {mention}", mention, foreign, "verify")
    for user, host in node.rows(_ACCOUNTS):
        if foreign.owns_name(_an_address(host)):
            text = f"it may connect from {host} only, which is lost"
            yield finding("address-hard-coded", f"user {user}@{host}", text, "verify")


def in_settings(facts: Mapping[str, Any], foreign: Belongings) -> Iterator[Finding]:
    """Settings of the source, other than those decided anew, that name what is `foreign`."""
    for name, value in facts["settings"].items():
        for _, mention in foreign.lines(value):
            text = f"{name} names {mention}"
            yield _finding(f"setting {name}", text, mention, foreign, "preflight")


def _an_address(pattern: str) -> str:
    """Some address, or name, that an account's host pattern lets in: 10.1.% lets 10.1.1.1 in."""
    host = pattern.partition("/")[0]
    if host[:1].isdigit():
        parts = [part if part.isdecimal() else "1" for part in host.split(".")]
        return ".".join([*parts, "1", "1", "1"][:4])
    return host.replace("%", "x").replace("_", "x")


def _finding(subject: str, evidence: str, mention: str, foreign: Belongings, stage: str) -> Finding:
    id = "path-hard-coded" if mention in foreign.paths else "address-hard-coded"
    return finding(id, subject, evidence, stage)
