"""What a live cluster is: everything that a restore has to match, read from one node."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from blocks.agent.redaction import redacted_value
from blocks.engines.galera import privileges
from blocks.engines.galera.facts import Counters, GaleraFacts, Plugin, Table, TableName, local
from blocks.engines.galera.mariadb import Mariadb, SqlError, literal
from blocks.engines.galera.plan import address_and_port
from blocks.engines.galera.settings import CARRIED
from blocks.errors import PermanentError, TransientError
from blocks.evidence.record import SourceNode

SYSTEM = ("information_schema", "performance_schema", "mysql", "sys")
USERS = f"BINARY TABLE_SCHEMA NOT IN ({', '.join(repr(name) for name in SYSTEM)})"
"""By bytes: of names that differ by case or accents, information_schema's collation sees one."""
DECIDED = (
    "aria_log_dir_path",
    "basedir",
    "bind_address",
    "binlog_format",
    "character_sets_dir",
    "datadir",
    "event_scheduler",
    "general_log",
    "hostname",
    "in_transaction",
    "innodb_autoinc_lock_mode",
    "innodb_buffer_pool_size",
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
    "skip_networking",
    "skip_slave_start",
    "slave_load_tmpdir",
    "slow_query_log",
    "socket",
    "ssl_",
    "tmpdir",
    "version",
    "wsrep_",
)
"""Settings, by prefix, that a restore decides anew for its host, but for those that it carries."""
_CHANGED = """
SELECT LOWER(VARIABLE_NAME) FROM information_schema.SYSTEM_VARIABLES
WHERE GLOBAL_VALUE_ORIGIN IN ('CONFIG', 'COMMAND-LINE', 'SQL') ORDER BY 1
"""

# Text -> what it says in a few bytes: lists of columns may be long.
_COLUMNS = """
SET STATEMENT group_concat_max_len = 1073741824 FOR
SELECT JSON_ARRAY(CONCAT('table ', TABLE_SCHEMA, '.', TABLE_NAME),
  MD5(GROUP_CONCAT(CONCAT_WS('|', COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLLATION_NAME,
    COLUMN_DEFAULT, EXTRA, GENERATION_EXPRESSION) ORDER BY ORDINAL_POSITION)))
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name}
GROUP BY BINARY TABLE_SCHEMA, BINARY TABLE_NAME
"""
_DIGESTS = f"""
SET SESSION group_concat_max_len = 1073741824;
SELECT JSON_ARRAY(CONCAT('index ', TABLE_SCHEMA, '.', TABLE_NAME, '.', INDEX_NAME),
  MD5(GROUP_CONCAT(CONCAT_WS('|', NON_UNIQUE, COLUMN_NAME, SUB_PART) ORDER BY SEQ_IN_INDEX)))
FROM information_schema.STATISTICS WHERE {USERS}
GROUP BY BINARY TABLE_SCHEMA, BINARY TABLE_NAME, INDEX_NAME;
SELECT JSON_ARRAY(CONCAT('view ', TABLE_SCHEMA, '.', TABLE_NAME), MD5(NULLIF(VIEW_DEFINITION, '')))
FROM information_schema.VIEWS WHERE {USERS};
SELECT JSON_ARRAY(CONCAT(LOWER(ROUTINE_TYPE), ' ', ROUTINE_SCHEMA, '.', ROUTINE_NAME),
  MD5(NULLIF(ROUTINE_DEFINITION, '')))
FROM information_schema.ROUTINES WHERE {USERS.replace("TABLE_SCHEMA", "ROUTINE_SCHEMA")};
SELECT JSON_ARRAY(CONCAT('trigger ', TRIGGER_SCHEMA, '.', TRIGGER_NAME),
  MD5(NULLIF(ACTION_STATEMENT, '')))
FROM information_schema.TRIGGERS WHERE {USERS.replace("TABLE_SCHEMA", "TRIGGER_SCHEMA")};
SELECT JSON_ARRAY(CONCAT('event ', EVENT_SCHEMA, '.', EVENT_NAME),
  MD5(NULLIF(EVENT_DEFINITION, '')))
FROM information_schema.EVENTS WHERE {USERS.replace("TABLE_SCHEMA", "EVENT_SCHEMA")};
"""
_NAMES = """
SELECT JSON_OBJECT('schema', TABLE_SCHEMA, 'name', TABLE_NAME, 'engine', UPPER(ENGINE))
FROM information_schema.TABLES WHERE ENGINE IS NOT NULL
"""
_STORED = "TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"
CHECKED = f"{_STORED} AND ({USERS} OR BINARY TABLE_SCHEMA = 'mysql' AND ENGINE <> 'CSV')"
"""The tables of users, and those of the server itself; its logs cannot be locked."""
_SIZES = """
SELECT JSON_ARRAY(TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS, UNIX_TIMESTAMP(CREATE_TIME),
  UNIX_TIMESTAMP(UPDATE_TIME),
  COALESCE(DATA_LENGTH, 0) + COALESCE(INDEX_LENGTH, 0) + COALESCE(DATA_FREE, 0))
FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name}
"""
# A table has another one when it was emptied by TRUNCATE, which leaves all its times as they were.
_IDS = """
SELECT JSON_ARRAY(
  CONVERT(CONVERT(CAST(SUBSTRING_INDEX(NAME, '/', 1) AS BINARY) USING filename) USING utf8mb4),
  CONVERT(CONVERT(CAST(SUBSTRING_INDEX(SUBSTRING_INDEX(NAME, '/', -1), '#', 1) AS BINARY)
    USING filename) USING utf8mb4), TABLE_ID)
FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE '%/%' ORDER BY TABLE_ID
"""
_FULLTEXT = """
SELECT COUNT(*) FROM information_schema.INNODB_SYS_TABLES
WHERE NAME LIKE '%/FTS\\_%\\_INDEX\\_1'
"""
_COUNTERS = """
SELECT JSON_OBJECT('started', UNIX_TIMESTAMP() - SUM(IF(VARIABLE_NAME = 'UPTIME', N, 0)),
  'deleted', SUM(IF(VARIABLE_NAME = 'HANDLER_DELETE', N, 0)),
  'statements', SUM(IF(VARIABLE_NAME LIKE 'COM\\_%', N, 0)))
FROM (SELECT VARIABLE_NAME, CAST(VARIABLE_VALUE AS SIGNED) AS N
  FROM information_schema.GLOBAL_STATUS
  WHERE VARIABLE_NAME IN ('UPTIME', 'HANDLER_DELETE')
  OR VARIABLE_NAME REGEXP '^COM_(ALTER|CREATE|DROP|GRANT|RENAME|REVOKE)(_|$)'
  AND VARIABLE_NAME NOT LIKE '%\\_TEMPORARY\\_TABLE') AS counted
"""
_ACCOUNTS = """
SELECT JSON_ARRAY(IF(is_role = 'Y', 'role', 'user'), User, Host) FROM mysql.user
WHERE User <> 'mariadb.sys' ORDER BY User, Host
"""
# How each account is let in, without anything of its password.
_DEMANDS = """
SELECT JSON_ARRAY(CONCAT(User, '@', Host), CONCAT_WS(', ',
  COALESCE(JSON_VALUE(Priv, '$.plugin'), 'no plugin'),
  CONCAT('TLS ', COALESCE(JSON_VALUE(Priv, '$.ssl_type'), 0)),
  IF(COALESCE(JSON_VALUE(Priv, '$.account_locked'), '0') IN ('1', 'true'), 'locked', 'open'),
  IF(COALESCE(JSON_VALUE(Priv, '$.authentication_string'), '') = '', 'no password', 'a password'),
  CONCAT(COALESCE(JSON_LENGTH(Priv, '$.auth_or'), 0), ' alternatives')))
FROM mysql.global_priv
WHERE COALESCE(JSON_VALUE(Priv, '$.is_role'), '0') NOT IN ('1', 'true') AND User <> 'mariadb.sys'
"""
_PRIVILEGES = """
SELECT DISTINCT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES
WHERE GRANTEE IN (CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), ''''),
  COALESCE(CURRENT_ROLE(), ''), CONCAT('''', COALESCE(CURRENT_ROLE(), ''), ''''))
"""
_SEEN_WITH = {"view": "SHOW VIEW", "trigger": "TRIGGER", "event": "EVENT", "table": "SELECT"}
_PLUGINS = """
SELECT JSON_OBJECT('name', PLUGIN_NAME, 'type', PLUGIN_TYPE, 'library', PLUGIN_LIBRARY)
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


def survey(node: Mariadb) -> GaleraFacts:
    """The facts of a cluster. Reads only. Raises as Mariadb.script, and PermanentError."""
    status = node.status()
    plugins = active_plugins(node)
    encrypted = [item.name for item in plugins if item.type == "ENCRYPTION"]
    if encrypted:
        raise PermanentError(
            f"the tables may be encrypted at rest: plugin {', '.join(encrypted)} is active",
            operation="survey",
            domain=node.host.domain,
            host=node.host.name,
            hint="farside cannot carry MariaDB's keys; rehearse it with another tool",
        )
    return GaleraFacts(
        version=node.value("", "SELECT @@version"),
        cluster=node.value("", "SELECT @@wsrep_cluster_name"),
        state_uuid=status["wsrep_cluster_state_uuid"],
        nodes=nodes(node),
        bytes=sum(size for *_, size in of_each(node, _SIZES, local(names(node, _STORED)))),
        settings=settings_of(node),
        changed=changed(node),
        plugins=plugins,
        libraries=tuple(sorted({row[0] for row in node.rows("SELECT dl FROM mysql.func")})),
        # What tells of changes comes first: what changes while it is asked for counts, too.
        counters=counters(node),
        tables=tables(node),
        definitions=definitions(node),
        hidden=hidden(node),
        demands=demands(node),
        accounts=accounts(node),
        privileges=privileges.digests(node),
        upstreams=tuple(row[3] for row in node.rows("SHOW ALL SLAVES STATUS")),
        elsewhere=_elsewhere(node),
        fulltext=fulltext(node),
    )


def active_plugins(node: Mariadb) -> tuple[Plugin, ...]:
    """The plugins from libraries that run."""
    installed = {row[0].lower() for row in node.rows("SELECT name FROM mysql.plugin")}
    return tuple(
        Plugin(**item, installed=item["name"].lower() in installed)
        for item in node.objects(_PLUGINS)
    )


def nodes(node: Mariadb) -> tuple[SourceNode, ...]:
    """The cluster's own nodes."""
    query = "SELECT node_name, node_incoming_address FROM mysql.wsrep_cluster_members ORDER BY 1"
    return tuple(
        SourceNode(name, "node", *address_and_port(place)) for name, place in node.rows(query)
    )


def settings_of(node: Mariadb) -> dict[str, str]:
    """The server's settings, without secrets, and without those that a restore decides anew."""
    found = {row[0]: "\t".join(row[1:]) for row in node.rows("SHOW GLOBAL VARIABLES")}
    return {
        name: redacted_value(name, value) for name, value in found.items() if _comes_along(name)
    }


def changed(node: Mariadb) -> tuple[str, ...]:
    """Those of the same settings that somebody has set."""
    return tuple(row[0] for row in node.rows(_CHANGED) if _comes_along(row[0]))


def _comes_along(name: str) -> bool:
    """Whether a setting of the source means anything to a restored node."""
    return name in CARRIED or not name.startswith(DECIDED)


def of_each(node: Mariadb, query: str, tables: Iterable[TableName]) -> list[Any]:
    """The rows of a query, JSON, of information_schema, in which each of some tables is named.

    Before it looks at what else a query asks for, the server opens all tables that are not ruled
    out by their names alone, and all that views are made of: one that is another server's calls it.
    """
    script = ";\n".join(
        query.format(schema=literal(item.schema), name=literal(item.name)) for item in tables
    )
    return node.objects(script, timeout=600) if script else []


_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


def one_by_one(
    ask: Callable[[Sequence[_Item]], Sequence[_Answer]], items: Sequence[_Item]
) -> Iterator[tuple[_Item, _Answer | PermanentError]]:
    """What is asked of some things together, by thing; of one that is refused, the error."""
    try:
        answers = ask(items)
    except PermanentError as error:
        if len(items) == 1:
            yield items[0], error
            return
        middle = len(items) // 2
        yield from one_by_one(ask, items[:middle])
        yield from one_by_one(ask, items[middle:])
    else:
        yield from zip(items, answers, strict=True)


def fulltext(node: Mariadb) -> int:
    """How many full-text indexes InnoDB keeps: each in tables of its own, which it does not check.

    It names them FTS_, the number of the table, that of the index, and INDEX_1 to INDEX_6.
    """
    return int(node.value("", _FULLTEXT))


def names(node: Mariadb, where: str = f"{_STORED} AND {USERS}") -> list[TableName]:
    """The tables of users, or those of a condition. None is opened."""
    by_name = "ORDER BY BINARY TABLE_SCHEMA, BINARY TABLE_NAME"
    found = node.objects(f"{_NAMES} AND {where} {by_name}", timeout=600)
    return [TableName(**item) for item in found]


def tables(node: Mariadb) -> tuple[Table, ...]:
    """The tables of users; of those of other servers no more than their names."""
    found, had = names(node), ids(node)
    known = {
        (schema, name): (rows, had.get((schema, name), "") + f"{created or ''}", written)
        for schema, name, rows, created, written, _ in of_each(node, _SIZES, local(found))
    }
    unknown = (None, "", None)
    items = []
    for item in found:
        rows, made, written = known.get((item.schema, item.name), unknown)
        broken = why_closed(node, item) if rows is None and local([item]) else 0
        items.append(
            Table(item.schema, item.name, item.engine, rows, made, written, broken or None)
        )
    return tuple(items)


def ids(node: Mariadb) -> dict[tuple[str, str], str]:
    """Schema and name of a table -> the numbers by which InnoDB knows it and its partitions."""
    found = dict[tuple[str, str], str]()
    for schema, name, table_id in node.objects(_IDS, timeout=600):
        found[schema, name] = found.get((schema, name), "") + f"{table_id} "
    return found


def why_closed(node: Mariadb, table: TableName) -> int:
    """The number of the error with which a table's first row cannot be read; 0 if it can.

    Raises TransientError.
    """
    try:
        node.rows(f"SELECT 1 FROM {table.place} LIMIT 1")
    except PermanentError as error:
        return error.number if isinstance(error, SqlError) else 0
    return 0


def counters(node: Mariadb) -> Counters:
    """What this server has counted since it started: rows deleted, statements that define."""
    (found,) = node.objects(_COUNTERS)
    counted = {name: round(value) for name, value in found.items()}
    return Counters(f"{node.host.name} {node.port}", **counted)


def definitions(node: Mariadb) -> dict[str, str]:
    """Object -> digest of its definition: tables, indexes, views, routines, triggers, events."""
    found: list[tuple[str, str | None]] = of_each(node, _COLUMNS, names(node, USERS))
    found += node.objects(_DIGESTS, timeout=600)
    # A definition that the user may not see is told apart from one that is empty.
    return {name: digest[:12] if digest else "unseen" for name, digest in found}


def hidden(node: Mariadb) -> dict[str, str]:
    """Kinds of objects that this user may not see all of -> the privilege that it lacks."""
    granted = {row[0] for row in node.rows(_PRIVILEGES)}
    return {kind: needed for kind, needed in _SEEN_WITH.items() if needed not in granted}


def demands(node: Mariadb) -> dict[str, str]:
    """Account -> by what it is let in: plugin, TLS, a password or none."""
    return dict(node.objects(_DEMANDS))


def accounts(node: Mariadb) -> tuple[str, ...]:
    """Users and roles, as `user shop@%` and `role reader`."""
    return tuple(
        f"{kind} {name}" + (f"@{host}" if kind == "user" else "")
        for kind, name, host in node.objects(_ACCOUNTS)
    )


def _elsewhere(node: Mariadb) -> tuple[tuple[str, str], ...]:
    """Tables whose file is at a path of its own, and that path (DATA DIRECTORY)."""
    rows = node.rows(
        "SELECT NAME, FILENAME FROM information_schema.INNODB_SYS_TABLESPACES"
        " WHERE FILENAME LIKE '/%' ORDER BY NAME"
    )
    return tuple((name, path) for name, path in rows)
