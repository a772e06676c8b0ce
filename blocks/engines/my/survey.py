"""What a live cluster is: everything that a restore has to match, read from one node."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from blocks.engines.my.client import Mariadb
from blocks.engines.my.clusters import address_and_port
from blocks.errors import PermanentError, TransientError
from blocks.evidence.record import SourceNode

SYSTEM = ("information_schema", "performance_schema", "mysql", "sys")
OUTBOUND = ("CONNECT", "FEDERATED", "SPHINX", "SPIDER")
"""Storage engines whose tables are another server's: reading one calls it."""
USERS = f"TABLE_SCHEMA NOT IN ({', '.join(repr(name) for name in SYSTEM)})"
CARRIED = (
    "character_set_server",
    "collation_server",
    "explicit_defaults_for_timestamp",
    "innodb_data_file_path",
    "innodb_default_row_format",
    "innodb_page_size",
    "innodb_strict_mode",
    "innodb_undo_tablespaces",
    "log_bin_trust_function_creators",
    "lower_case_table_names",
    "max_allowed_packet",
    "max_connections",
    "sql_mode",
    "time_zone",
)
"""Settings that the data, or what is written to it, depends on."""
NEEDED = ("AUTHENTICATION", "STORAGE ENGINE")
"""Types of plugins without which a table cannot be opened, or a user not get in."""
DECIDED = (
    "aria_log_dir_path",
    "basedir",
    "bind_address",
    "character_sets_dir",
    "datadir",
    "general_log",
    "hostname",
    "in_transaction",
    "innodb_data_home_dir",
    "innodb_log_group_home_dir",
    "innodb_temp_data_file_path",
    "innodb_tmpdir",
    "innodb_undo_directory",
    "lc_messages_dir",
    "log_",
    "pid_file",
    "plugin_dir",
    "port",
    "relay_log",
    "report_",
    "slave_load_tmpdir",
    "slow_query_log",
    "socket",
    "ssl_",
    "tmpdir",
    "version",
    "wsrep_",
)
"""Settings, by prefix, that a restore decides anew for its host: what the source had is gone."""

# Text -> what it says in a few bytes: lists of columns may be long.
_DIGESTS = f"""
SET SESSION group_concat_max_len = 1073741824;
SELECT JSON_ARRAY(CONCAT('table ', TABLE_SCHEMA, '.', TABLE_NAME),
  MD5(GROUP_CONCAT(CONCAT_WS('|', COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLLATION_NAME,
    COLUMN_DEFAULT, EXTRA, GENERATION_EXPRESSION) ORDER BY ORDINAL_POSITION)))
FROM information_schema.COLUMNS WHERE {USERS} GROUP BY TABLE_SCHEMA, TABLE_NAME;
SELECT JSON_ARRAY(CONCAT('index ', TABLE_SCHEMA, '.', TABLE_NAME, '.', INDEX_NAME),
  MD5(GROUP_CONCAT(CONCAT_WS('|', NON_UNIQUE, COLUMN_NAME, SUB_PART) ORDER BY SEQ_IN_INDEX)))
FROM information_schema.STATISTICS WHERE {USERS} GROUP BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME;
SELECT JSON_ARRAY(CONCAT('view ', TABLE_SCHEMA, '.', TABLE_NAME), MD5(VIEW_DEFINITION))
FROM information_schema.VIEWS WHERE {USERS};
SELECT JSON_ARRAY(CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME),
  MD5(ROUTINE_DEFINITION))
FROM information_schema.ROUTINES WHERE {USERS.replace("TABLE_SCHEMA", "ROUTINE_SCHEMA")};
SELECT JSON_ARRAY(CONCAT('trigger ', TRIGGER_SCHEMA, '.', TRIGGER_NAME), MD5(ACTION_STATEMENT))
FROM information_schema.TRIGGERS WHERE {USERS.replace("TABLE_SCHEMA", "TRIGGER_SCHEMA")};
SELECT JSON_ARRAY(CONCAT('event ', EVENT_SCHEMA, '.', EVENT_NAME), MD5(EVENT_DEFINITION))
FROM information_schema.EVENTS WHERE {USERS.replace("TABLE_SCHEMA", "EVENT_SCHEMA")};
"""
_TABLES = f"""
SELECT JSON_OBJECT('schema', TABLE_SCHEMA, 'name', TABLE_NAME, 'engine', UPPER(ENGINE),
  'rows', COALESCE(TABLE_ROWS, 0))
FROM information_schema.TABLES
WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND ENGINE IS NOT NULL AND {USERS}
ORDER BY TABLE_SCHEMA, TABLE_NAME
"""
_ACCOUNTS = """
SELECT JSON_ARRAY(IF(is_role = 'Y', 'role', 'user'), User, Host) FROM mysql.user
WHERE User <> 'mariadb.sys' ORDER BY User, Host
"""
_PLUGINS = """
SELECT JSON_OBJECT('name', PLUGIN_NAME, 'type', PLUGIN_TYPE, 'library', PLUGIN_LIBRARY,
  'installed', EXISTS (SELECT 1 FROM mysql.plugin WHERE name = PLUGIN_NAME))
FROM information_schema.PLUGINS
WHERE PLUGIN_LIBRARY IS NOT NULL AND PLUGIN_STATUS = 'ACTIVE' AND PLUGIN_NAME <> 'wsrep_provider'
ORDER BY PLUGIN_NAME
"""


class NotSynced(TransientError):
    """No node of the source is a whole member of its cluster."""


def why_not(status: Mapping[str, str]) -> str:
    """Why this node is not to be backed up; empty if it is."""
    wanted = {
        "wsrep_ready": "ON",
        "wsrep_connected": "ON",
        "wsrep_cluster_status": "Primary",
        "wsrep_local_state_comment": "Synced",
    }
    if "wsrep_local_state_comment" not in status:
        return "it is no node of Galera"
    wrong = [f"{name} is {status.get(name)}" for name, value in wanted.items()
             if status.get(name) != value]  # fmt: skip
    return ", ".join(wrong)


def survey(node: Mariadb) -> dict[str, Any]:
    """The facts of a cluster. Reads only. Raises as Mariadb.script, and PermanentError."""
    status = node.status()
    plugins = node.objects(_PLUGINS)
    encrypted = [item["name"] for item in plugins if item["type"] == "ENCRYPTION"]
    if encrypted:
        raise PermanentError(
            f"the tables may be encrypted at rest: plugin {', '.join(encrypted)} is active",
            operation="survey",
            host=node.host.name,
            hint="farside cannot carry MariaDB's keys; rehearse it with another tool",
        )
    used = "SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH + DATA_FREE), 0)"
    return {
        "version": node.value("", "SELECT @@version"),
        "cluster": node.value("", "SELECT @@wsrep_cluster_name"),
        "state_uuid": status["wsrep_cluster_state_uuid"],
        "nodes": _nodes(node),
        "bytes": int(node.value("", f"{used} FROM information_schema.TABLES")),
        "settings": _settings(node),
        "plugins": plugins,
        "libraries": sorted({row[0] for row in node.rows("SELECT dl FROM mysql.func")}),
        "tables": tables(node),
        "definitions": definitions(node),
        "accounts": accounts(node),
        "upstreams": [row[3] for row in node.rows("SHOW ALL SLAVES STATUS")],
        "elsewhere": _elsewhere(node),
    }


def _nodes(node: Mariadb) -> list[dict[str, Any]]:
    """The cluster's own nodes, with the fields of SourceNode."""
    found = []
    query = "SELECT node_name, node_incoming_address FROM mysql.wsrep_cluster_members ORDER BY 1"
    for name, place in node.rows(query):
        found.append(asdict(SourceNode(name, "node", *address_and_port(place))))
    return found


def _settings(node: Mariadb) -> dict[str, str]:
    """The server's settings, without those that a restore decides anew."""
    found = {row[0]: "\t".join(row[1:]) for row in node.rows("SHOW GLOBAL VARIABLES")}
    return {name: value for name, value in found.items() if not name.startswith(DECIDED)}


def tables(node: Mariadb) -> list[Any]:
    """The tables of users: schema, name, engine, and an estimate of their rows."""
    return node.objects(_TABLES, timeout=600)


def definitions(node: Mariadb) -> dict[str, str]:
    """Object -> digest of its definition: tables, indexes, views, routines, triggers, events."""
    found: Sequence[tuple[str, str | None]] = node.objects(_DIGESTS, timeout=600)
    # A definition that the user may not see is told apart from one that is empty.
    return {name: digest[:12] if digest else "unseen" for name, digest in found}


def accounts(node: Mariadb) -> list[str]:
    """Users and roles, as `user shop@%` and `role reader`."""
    rows = node.objects(_ACCOUNTS)
    return [f"{kind} {name}" + (f"@{host}" if kind == "user" else "") for kind, name, host in rows]


def _elsewhere(node: Mariadb) -> list[list[str]]:
    """Tables whose file is at a path of its own, and that path (DATA DIRECTORY)."""
    return node.rows(
        "SELECT NAME, FILENAME FROM information_schema.INNODB_SYS_TABLESPACES"
        " WHERE FILENAME LIKE '/%' ORDER BY NAME"
    )
