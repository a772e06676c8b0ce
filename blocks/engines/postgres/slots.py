"""The replication slot of a rehearsal: made, looked for and dropped, and on which server.

An address that moves with the primary, or that several servers share, may lead to another server
than the one on which the slot was made. There it would hold the log back for ever, unseen.
"""

import time
from contextlib import suppress

from blocks.engines.engine import LeftElsewhere
from blocks.engines.postgres import wal
from blocks.engines.postgres.psql import CLUSTER, Psql, literal
from blocks.errors import PermanentError, TransientError
from blocks.ids import PREFIX, began, id_in, name_of

IN_USE_SECONDS = 30.0
"""How long the end of a slot's receiver is waited for."""
_SERVER = "SELECT pg_postmaster_start_time()::text"
_PROMOTED = (
    "SELECT max(modification)::text FROM pg_ls_waldir()"
    r" WHERE name ~ '^[0-9A-F]{8}\.history$' AND modification > "
)


def idle(psql: Psql) -> list[str]:
    """Ids of the rehearsals whose slots have no receiver."""
    rows = psql.rows(
        CLUSTER,
        "SELECT slot_name AS name FROM pg_replication_slots"
        f" WHERE starts_with(slot_name, '{PREFIX}') AND NOT active ORDER BY 1",
    )
    return [rehearsal_id for row in rows if (rehearsal_id := id_in(row["name"]))]


def reserve(psql: Psql, slot: str) -> int:
    """Make a slot on a standby; the position from which it keeps the log.

    A base backup of a standby begins at its last restart point, which lies behind what it has
    replayed: the slot has to begin there, too.
    """
    made = f"SELECT lsn::text FROM pg_create_physical_replication_slot({literal(slot)}, true)"
    return wal.parse_lsn(str(psql.value(CLUSTER, made)))


def server_of(psql: Psql, slot: str) -> str:
    """The server that has the slot, by the time of its start: a restart drops no slot.

    Raises LeftElsewhere if the server that answers has none of that name.
    """
    server = f"{_SERVER} FROM pg_replication_slots WHERE slot_name = {literal(slot)}"
    if found := psql.value(CLUSTER, server):
        return found
    raise _elsewhere(psql, slot, "more than one server answers at this address")


def drop(psql: Psql, slot: str) -> bool:
    """Whether there was one. Its receiver is ended: a slot in use cannot be dropped."""
    named = f"FROM pg_replication_slots WHERE slot_name = {literal(slot)}"
    count = f"SELECT count(*) {named}"
    if psql.value(CLUSTER, count) == "0":
        return False
    give_up = time.monotonic() + IN_USE_SECONDS
    while True:
        # The server notices late that a receiver has ended, and the slot may be dropped meanwhile:
        # a session that does so holds it, too, and must not be ended.
        # A receiver of another role's may be out of reach: it is then ended by its own host.
        for act in (
            f"SELECT pg_terminate_backend(active_pid) {named}"
            " AND active_pid IN (SELECT pid FROM pg_stat_replication)",
            f"SELECT pg_drop_replication_slot(slot_name) {named} AND NOT active",
        ):
            with suppress(PermanentError, TransientError):
                psql.script(CLUSTER, act)
        if psql.value(CLUSTER, count) == "0":
            return True
        if time.monotonic() > give_up:
            raise TransientError(f"the replication slot {slot} stays in use", operation="snapshot")
        time.sleep(0.1)


def check_gone(psql: Psql, rehearsal_id: str, made_on: str | None) -> None:
    """Raise LeftElsewhere unless the slot of a rehearsal, which this server has not, is gone.

    `made_on` is what `server_of` said when it was made; None where another process made it, if any
    did: then a server of which the primary changed since the rehearsal began may not be the one.
    """
    slot = name_of(rehearsal_id)
    if made_on is not None:
        if psql.value(CLUSTER, _SERVER) != made_on:
            why = "the server that answers is not the one on which it was made, or was restarted"
            raise _elsewhere(psql, slot, why)
        return
    since = began(rehearsal_id)
    if since is None:
        return
    if promoted := psql.value(CLUSTER, f"{_PROMOTED}{literal(since.isoformat())}"):
        why = f"the primary changed on {promoted}, after the rehearsal began"
        raise _elsewhere(psql, slot, why)


def _elsewhere(psql: Psql, slot: str, why: str) -> LeftElsewhere:
    return LeftElsewhere(
        f"whether the replication slot {slot} is gone is unknown: {why}",
        operation="drop the replication slot",
        domain=psql.host.domain,
        host=psql.host.name,
        hint="on every server that was the primary meanwhile: SELECT pg_drop_replication_slot"
        f"(slot_name) FROM pg_replication_slots WHERE slot_name = {literal(slot)}",
    )
