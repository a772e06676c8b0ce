"""Configuration of a restored server: written for its own host, never carried over.

Only settings that say how queries behave, and the limits that replay needs, come along. Paths,
addresses, archiving, preloading, replication, logging, TLS and memory are decided here.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

# A hot standby refuses to replay with less than the source had (PostgreSQL docs, 26.4.3).
REPLAY_LIMITS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

ISOLATION = {
    "archive_mode": "off",
    "archive_command": "",
    "archive_library": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "synchronous_standby_names": "",
    "max_logical_replication_workers": "0",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
}
"""Nothing that the restored server does may reach outside the recovery domain."""

# pg_settings.category, by prefix: settings of behaviour, which hold no path and no address.
_CARRIED = (
    "Client Connection Defaults / Statement Behavior",
    "Client Connection Defaults / Locale and Formatting",
    "Query Tuning",
    "Lock Management",
    "Version and Platform Compatibility",
    "Vacuuming",
    "Autovacuum",
    "Customized Options",
)
_NOT_CARRIED = {
    "default_tablespace",
    "dynamic_library_path",
    "extension_control_path",
    "search_path_file",
    "session_preload_libraries",
    "local_preload_libraries",
    "default_transaction_read_only",
    "transaction_read_only",
}

SCHEDULERS = frozenset(
    {"pg_cron", "pg_partman_bgw", "pg_timetable", "pgagent", "pg_task", "pg_squeeze", "pglogical"}
)
"""Libraries that start work by themselves: in a rehearsal they stay asleep."""


def carried(settings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The source's settings that a restored service needs to behave the same."""
    kept = {}
    for row in settings:
        name = str(row["name"])
        if name in REPLAY_LIMITS or (
            str(row["category"]).startswith(_CARRIED)
            and name not in _NOT_CARRIED
            and row["context"] != "internal"
            and row["source"] not in ("database", "user", "database user", "environment variable")
            # An extension's options may name anything, other servers included.
            and (row["category"] != "Customized Options" or _harmless(str(row["setting"])))
        ):
            kept[name] = str(row["setting"])
    return kept


def too_low(settings: Sequence[Mapping[str, Any]], own: Mapping[str, str]) -> dict[str, str]:
    """Limits that the recovery site sets below the source's: name -> the source's value."""
    return {
        str(row["name"]): str(row["setting"])
        for row in settings
        if row["name"] in REPLAY_LIMITS
        and int(own.get(row["name"], row["setting"])) < int(row["setting"])
    }


def _harmless(value: str) -> bool:
    return value.replace(".", "").replace("-", "").isalnum() and not value.count(".") > 1


def wal_limits(segment_size: int) -> dict[str, str]:
    """Sizes that a server insists on for its segment size (in bytes), which may be unusual."""
    megabytes = segment_size // 2**20
    return {
        "min_wal_size": f"{max(80, 2 * megabytes)}MB",
        "max_wal_size": f"{max(1024, 4 * megabytes)}MB",
    }


def preloaded(libraries: str) -> list[str]:
    """The names in a shared_preload_libraries setting."""
    return [name.strip().strip('"') for name in libraries.split(",") if name.strip()]


def postgresql_conf(
    facts: Mapping[str, Any],
    *,
    address: str,
    port: int,
    data_dir: str,
    socket_dir: str,
    memory_bytes: int,
    restore_command: str,
    libraries: Sequence[str],
    own: Mapping[str, str],
    upstream: str = "",
) -> str:
    """The whole postgresql.conf of the restored server.

    `memory_bytes` is the host's memory; `own` are the recovery site's own settings, which go
    before what came along, but not before what isolates the server. `upstream` is how a standby
    reaches the restored primary; empty for the primary itself.
    """
    settings = carried(facts["settings"]) | wal_limits(facts["wal_segment_size"])
    settings["shared_buffers"] = f"{max(32, min(memory_bytes // 8 // 2**20, 8192))}MB"
    settings["maintenance_work_mem"] = "128MB"
    settings.update(own)
    settings.update(
        {
            "listen_addresses": address,
            "port": str(port),
            "unix_socket_directories": socket_dir,
            "hba_file": f"{data_dir}/pg_hba.conf",
            "ident_file": f"{data_dir}/pg_ident.conf",
            "huge_pages": "off",
            # Files of the data directory, which is removed, rather than of /dev/shm.
            "dynamic_shared_memory_type": "mmap",
            "shared_preload_libraries": ",".join(libraries),
            **ISOLATION,
            "hot_standby": "on" if upstream else "off",
            "primary_conninfo": upstream,
            "wal_retrieve_retry_interval": "500ms",
            # A standby whose host is slower finds what it still needs.
            "wal_keep_size": "1024MB",
            "restore_command": restore_command,
            "recovery_target_timeline": "latest",
            "recovery_target_action": "promote",
            "logging_collector": "off",
            "log_destination": "stderr",
            "log_line_prefix": "%m [%p] ",
            "log_timezone": "UTC",
            # The log is read for signs of recovery, which must not be translated.
            "lc_messages": "C",
            "ssl": "off",
        }
    )
    head = "# Written by farside for this host; nothing of the source's configuration is read.\n"
    return head + "".join(f"{name} = {_value(value)}\n" for name, value in sorted(settings.items()))


def login_method(facts: Mapping[str, Any]) -> str:
    """How roles with a password log in."""
    # `md5` also accepts SCRAM secrets; without it, roles with an old md5 secret could not log in.
    old = any(role["password"] == "md5" for role in facts["roles"])
    return "md5" if old else "scram-sha-256"


def pg_hba_conf(
    facts: Mapping[str, Any],
    networks: Sequence[IPv4Network | IPv6Network],
    replica: str = "",
) -> str:
    """Who may connect: farside through its private socket, applications from the recovery side.

    `replica` is the role by which standbys follow; without one nobody does.
    """
    method = login_method(facts)

    def lines() -> Iterator[str]:
        yield "# Written by farside. The socket lies in a directory that only its owner can enter."
        yield "local all all trust"
        for network in ("samehost", *networks):
            yield f"host all all {network} {method}"
            if replica:
                yield f'host replication "{replica}" {network} scram-sha-256'

    return "\n".join(lines()) + "\n"


def tablespace_map(locations: Mapping[str, str]) -> str:
    """The tablespace_map of a restored cluster: oid -> directory on this host."""

    def escape(path: str) -> str:
        return path.replace("\\", "\\\\").replace("\n", "\\\n")

    return "".join(f"{oid} {escape(path)}\n" for oid, path in sorted(locations.items()))


def _value(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
