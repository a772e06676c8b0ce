"""What each account may do, by digests: nothing of a password is in them."""

import hashlib
import json
from collections.abc import Mapping

from blocks.engines.galera.mariadb import Mariadb, NotAllowed

_TABLES: Mapping[str, str] = {
    "global_priv": ", ".join(
        f"JSON_VALUE(Priv, '$.{name}')"
        for name in (
            *("access", "is_role", "default_role", "max_queries", "max_updates"),
            *("max_connections", "max_user_connections", "max_statement_time"),
        )
    ),
    "db": "db.*",
    "tables_priv": "Db, Table_name, Table_priv, Column_priv",
    "columns_priv": "Db, Table_name, Column_name, Column_priv",
    "procs_priv": "Db, Routine_name, Routine_type, Proc_priv",
    "roles_mapping": "Role, Admin_option",
    "proxies_priv": "Proxied_host, Proxied_user, With_grant",
}
"""Table of the schema mysql -> its columns that say what may be done; the others are times."""


def digests(node: Mariadb) -> dict[str, str] | None:
    """Account or role -> digest of all that it was granted; None if the user may not read it."""
    granted = dict[str, list[list[str]]]()
    try:
        for table, columns in _TABLES.items():
            for user, host, *rest in node.rows(f"SELECT User, Host, {columns} FROM mysql.{table}"):
                name = f"{user}@{host}" if host else f"role {user}"
                granted.setdefault(name, []).append([table, *rest])
    except NotAllowed:
        return None
    return {
        name: hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:12]
        for name, rows in granted.items()
    }
