"""Configuration of a restored server: written for its own host, never carried over.

Only settings that say how queries behave, and the limits that replay needs, come along
(`settings`). Paths, addresses, archiving, preloading, replication, logging, TLS and memory are
decided here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from blocks.engines.postgres.facts import PostgresFacts
from blocks.engines.postgres.psql import identifier
from blocks.engines.postgres.rows import Role, Setting
from blocks.engines.postgres.settings import REPLAY_LIMITS, carried

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

_HARMLESS = """
    auth_delay auto_explain credcheck hypopg orafce passwordcheck pg_hint_plan pg_qualstats
    pg_stat_kcache pg_stat_monitor pg_stat_statements pg_store_plans pg_trgm pgaudit
    pgauditlogtofile pgoutput pgrowlocks plan_filter plperl plpgsql plpgsql_check plprofiler
    plpython3 pltcl safeupdate set_user shared_ispell sslutils supautils temporal_tables
    test_decoding wal2json
"""
HARMLESS = frozenset(_HARMLESS.split())
"""Libraries that only serve the sessions which use them: a restored server preloads these alone.

All others may start work by themselves, as schedulers, job queues, replication and site-made
background workers do: in a rehearsal they stay asleep, and the record lists them.
"""

_LIBRARY = re.compile(r"(\$libdir/)?(plugins/)?[\w.+-]+", re.ASCII)


def too_low(settings: Iterable[Setting], own: Mapping[str, str]) -> dict[str, str]:
    """Limits that the recovery site sets below the source's: name -> the source's value."""
    return {
        row.name: row.value
        for row in settings
        if row.name in REPLAY_LIMITS and int(own.get(row.name, row.value)) < int(row.value)
    }


def wal_limits(segment_size: int) -> dict[str, str]:
    """Sizes that a server insists on for its segment size (in bytes), which may be unusual."""
    megabytes = segment_size // 2**20
    return {
        "min_wal_size": f"{max(80, 2 * megabytes)}MB",
        "max_wal_size": f"{max(1024, 4 * megabytes)}MB",
    }


def preloaded(libraries: str) -> list[str]:
    """The names in a shared_preload_libraries setting."""
    names = (name.strip().strip('"') for name in libraries.split(","))
    return [name for name in names if name]


def is_installed_name(library: str) -> bool:
    """Whether a library is named as an installation's own: by no path but `$libdir/`."""
    return _LIBRARY.fullmatch(library) is not None


def postgresql_conf(  # noqa: PLR0913 (each is a value of the file, by name)
    facts: PostgresFacts,
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
    settings = carried(facts.settings) | wal_limits(facts.wal_segment_size)
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
    return head + "".join(f"{name} = {quoted(value)}\n" for name, value in sorted(settings.items()))


def login_method(roles: Iterable[Role]) -> str:
    """How roles with a password log in."""
    # `md5` also accepts SCRAM secrets; without it, roles with an old md5 secret could not log in.
    old = any(role.password in ("md5", "unknown") for role in roles)
    return "md5" if old else "scram-sha-256"


def pg_hba_conf(
    roles: Iterable[Role],
    networks: Sequence[IPv4Network | IPv6Network],
    application: str,
    replica: str = "",
) -> str:
    """Who may connect: farside through its private socket, `application` from the recovery side.

    Nobody else, for the source may refuse other roles. `replica` is the role by which standbys
    follow; without one nobody does.
    """
    method = login_method(roles)

    def lines() -> Iterator[str]:
        yield "# Written by farside. The socket lies in a directory that only its owner can enter."
        yield "local all all trust"
        for network in ("samehost", *networks):
            yield f"host all {identifier(application)} {network} {method}"
            if replica:
                yield f'host replication "{replica}" {network} scram-sha-256'

    return "\n".join(lines()) + "\n"


def tablespace_map(locations: Mapping[str, str]) -> str:
    """The tablespace_map of a restored cluster: oid -> directory on this host."""

    def escape(path: str) -> str:
        return path.replace("\\", "\\\\").replace("\n", "\\\n")

    return "".join(f"{oid} {escape(path)}\n" for oid, path in sorted(locations.items()))


def quoted(value: str) -> str:
    """A value as postgresql.conf has it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
