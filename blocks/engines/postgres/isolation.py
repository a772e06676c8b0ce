"""Whether a restored server can reach, or change, anything beyond itself."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from blocks.engines.checks import Answer, CheckSpec, judged
from blocks.engines.postgres.checks import NONE
from blocks.engines.postgres.psql import CLUSTER, Psql
from blocks.engines.postgres.standbys import upstreams
from blocks.evidence.catalogue import FindingId


def archiving(control: Psql) -> CheckSpec:
    """The live server archives nowhere."""
    run = partial(_archiving, control)
    return CheckSpec("archiving", "archives nowhere", run, FindingId.ARCHIVE_INTO_PRODUCTION)


def _archiving(control: Psql) -> Answer:
    wrong = _other_settings(
        control, {"archive_mode": ("off",), "archive_command": NONE, "archive_library": NONE}
    ) + _running(control, "archiver")
    return judged(wrong, "archiving is off")


_BACKENDS = (
    *("client backend", "parallel worker", "autovacuum launcher", "autovacuum worker"),
    *("background writer", "checkpointer", "startup", "walwriter", "walsender"),
    *("walsummarizer", "io worker", "standalone backend"),
)
"""PostgreSQL's own processes, 15 to 18, that only serve the server and its clients."""


def isolation(
    control: Psql,
    allowed_libraries: Callable[[], Sequence[str]],
    *,
    replica: str = "",
    standby: bool = False,
) -> CheckSpec:
    """The live server streams from nowhere, subscribes to nothing, starts no job by itself.

    Any process but PostgreSQL's own may be a job. Nobody follows it but its own standbys, by the
    role `replica`, for which commits may wait. Whom a `standby` itself streams from is told by
    standbys.check. `allowed_libraries` may ask the host.
    """
    streams = "" if standby else "streams from nowhere, "
    return CheckSpec(
        "isolation",
        f"{streams}subscribes to nothing, starts no job",
        lambda: _isolation(control, allowed_libraries(), replica, standby),
        FindingId.RESTORED_JOBS_FIRE,
    )


def _isolation(
    control: Psql, allowed_libraries: Sequence[str], replica: str, standby: bool
) -> Answer:
    wrong = _other_settings(
        control.seeing_defaults(),
        {
            "max_logical_replication_workers": ("0",),
            **({} if replica else {"synchronous_standby_names": NONE}),
            "shared_preload_libraries": (",".join(allowed_libraries),),
            "session_preload_libraries": NONE,
            "local_preload_libraries": NONE,
        },
    )
    rows = control.rows(
        CLUSTER,
        "SELECT DISTINCT backend_type AS kind FROM pg_stat_activity"
        " WHERE backend_type IS NOT NULL AND backend_type <> 'archiver' ORDER BY 1",
    )
    own = (*_BACKENDS, "walreceiver") if standby else _BACKENDS
    wrong += [f"a {row['kind']} runs" for row in rows if row["kind"] not in own]
    if not standby:
        wrong += [f"{what} {upstream}" for what, upstream in upstreams(control)]
    senders = control.rows(
        CLUSTER,
        "SELECT usename AS role, application_name AS name FROM pg_stat_replication",
    )
    wrong += [
        f"{row['name']} follows it as {row['role']}" for row in senders if row["role"] != replica
    ]
    slots = control.value(CLUSTER, "SELECT count(*) FROM pg_replication_slots")
    if slots != "0":
        wrong.append(f"{slots} replication slots")
    return judged(
        wrong,
        f"{'' if standby else 'no streaming, '}no subscription, no slot, and only the server's "
        f"own processes; preloaded: {', '.join(allowed_libraries) or 'nothing'}",
    )


# What a role's or a database's own setting hides is in the files that the server reads.
_SETTINGS = """
SELECT s.name,
       CASE WHEN s.source IN ('global', 'database', 'user', 'database user')
            THEN (SELECT f.setting FROM pg_file_settings f WHERE f.name = s.name AND f.applied)
            ELSE s.setting END AS setting
FROM pg_settings s WHERE s.name IN ({})
"""


def _other_settings(control: Psql, wanted: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Settings of the server whose value is none of those wanted."""
    names = ", ".join(f"'{name}'" for name in wanted)
    found = {
        row["name"]: row["setting"] or "" for row in control.rows(CLUSTER, _SETTINGS.format(names))
    }
    return [
        f"{name} = {found.get(name)!r}"
        for name, values in wanted.items()
        if found.get(name, "") not in values
    ]


def _running(control: Psql, *kinds: str) -> list[str]:
    names = ", ".join(f"'{kind}'" for kind in kinds)
    rows = control.rows(
        CLUSTER,
        f"SELECT backend_type FROM pg_stat_activity WHERE backend_type IN ({names})",
    )
    return [f"a {row['backend_type']} runs" for row in rows]
