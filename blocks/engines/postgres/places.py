"""What a rehearsal takes of a live source that others need too: senders, slots, sessions."""

from collections.abc import Iterator
from typing import Any

from blocks.engines.postgres import burden
from blocks.engines.postgres.facts import PostgresFacts
from blocks.engines.postgres.findings import PostgresFinding
from blocks.engines.postgres.psql import CLUSTER, Psql, literal
from blocks.evidence.findings import Finding, finding

SENDERS = 2
"""The base backup and the receiver of the log."""
SESSIONS = 2
"""Those that a snapshot cannot do without: the watch over its burden, and a question."""

# Walsenders do not count against max_connections. A superuser meets no limit of roles or databases.
_PLACES = """
WITH session AS (SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()),
asking AS (SELECT * FROM pg_roles WHERE rolname = current_user)
SELECT 'senders' AS kind, 'max_wal_senders' AS setting,
       current_setting('max_wal_senders')::int AS most,
       (SELECT count(*) FROM session WHERE backend_type = 'walsender')
         + (SELECT count(*) FROM pg_replication_slots WHERE NOT active) AS used
UNION ALL
SELECT 'slots', 'max_replication_slots', current_setting('max_replication_slots')::int,
       (SELECT count(*) FROM pg_replication_slots)
UNION ALL
SELECT 'sessions', 'max_connections less those reserved',
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0),
       (SELECT count(*) FROM session WHERE backend_type = 'client backend')
UNION ALL
SELECT CASE WHEN rolname <> {backup} THEN 'sessions'
            WHEN rolname <> current_user THEN 'senders' ELSE 'both' END,
       format('CONNECTION LIMIT of role %s', rolname), rolconnlimit,
       (SELECT count(*) FROM session
        WHERE usename = rolname AND backend_type IN ('client backend', 'walsender'))
FROM pg_roles
WHERE rolname IN (current_user, {backup}) AND rolconnlimit >= 0 AND NOT rolsuper
UNION ALL
SELECT 'sessions', format('CONNECTION LIMIT of database %s', d.datname), d.datconnlimit,
       (SELECT count(*) FROM session
        WHERE session.datname = d.datname AND backend_type = 'client backend')
FROM pg_database d, asking
WHERE d.datname = current_database() AND d.datconnlimit >= 0 AND NOT rolsuper
"""


def survey(psql: Psql, backup_role: str) -> list[Any]:
    """Each limit of the source's that a snapshot meets, and how much of it is used.

    Raises as Psql.rows.
    """
    return psql.rows(CLUSTER, _PLACES.format(backup=literal(backup_role)))


def findings(facts: PostgresFacts, subject: str) -> Iterator[Finding]:
    """Limits that leave too few places for a snapshot; none where nobody could read them.

    What is away and comes back keeps its place: a slot's reader, a standby that commits wait for.
    """
    needed = {
        "senders": SENDERS + len(burden.awaited_names(facts)),
        "sessions": SESSIONS,
        "both": SENDERS + SESSIONS,
        "slots": 1 if burden.may_hold(facts) else 0,
    }
    for limit in facts.places or ():
        need = needed[limit.kind]
        if limit.used + need > limit.most:
            text = f"{limit.setting}: {limit.used} of {limit.most} used, {need} more needed"
            yield finding(PostgresFinding.SOURCE_AT_LIMIT, f"{subject} {limit.setting}", text)
