"""Standbys of a restored primary: they follow it, and one of them can take its place."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from blocks.engines.base import checked
from blocks.engines.pg.psql import Psql, identifier, literal, quote_conninfo
from blocks.engines.pg.servers import Place
from blocks.engines.pg.survey import write_probe
from blocks.errors import PermanentError, TransientError
from blocks.evidence.record import Check, Node

CATCH_UP_SECONDS = 3600.0
"""Time limit for a standby to stream what its primary has: its host may replay more slowly."""
SHOWN_SECONDS = 30.0
"""Time limit for what was committed just now to reach a standby that follows."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Replica:
    """A role that exists on the restored servers only, and the password that it was given there.

    No password of the site's is needed to replicate between them, so none is written to a disk.
    """

    role: str
    password: str

    @classmethod
    def new(cls, rehearsal_id: str) -> "Replica":
        """A role of one rehearsal."""
        return cls(cls.role_of(rehearsal_id), secrets.token_hex(16))

    @staticmethod
    def role_of(rehearsal_id: str) -> str:
        """The role's name."""
        return f"farside_{rehearsal_id}"

    def conninfo(self, primary: Place, name: str) -> str:
        """How the standby on host `name` reaches the primary."""
        parts = {
            "host": primary.address,
            "port": str(primary.port),
            "user": self.role,
            "password": self.password,
            "application_name": name,
        }
        return " ".join(f"{key}={quote_conninfo(value)}" for key, value in parts.items())

    def create(self, primary: Psql) -> None:
        """Create the role on the primary. Raises as Psql.script."""
        # The password comes over standard input, and statements are not logged.
        sql = (
            "SET log_statement = 'none'; SET log_min_duration_statement = -1;"
            " SET password_encryption = 'scram-sha-256';\n"
            f"CREATE ROLE {identifier(self.role)} REPLICATION LOGIN"
            f" PASSWORD {literal(self.password)};"
        )
        primary.script("postgres", sql)


def following(primary: Psql) -> Mapping[str, Mapping[str, Any]]:
    """What streams from a primary: host of the standby -> its row of pg_stat_replication."""
    rows = primary.rows(
        "postgres",
        "SELECT application_name AS name, host(client_addr) AS address, state, sync_state,"
        " replay_lsn::text FROM pg_stat_replication",
    )
    return {row["name"]: row for row in rows}


def observed(server: Psql) -> Node:
    """The node that a server itself says it is."""
    (row,) = server.rows(
        "postgres",
        "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END AS role,"
        " current_setting('listen_addresses') AS address, current_setting('port')::int AS port",
    )
    return Node(server.host.name, row["role"], row["address"], row["port"])


def await_following(primary: Psql, standbys: Sequence[Place]) -> None:
    """Until every standby streams. Raises TransientError with those that do not."""
    give_up = time.monotonic() + CATCH_UP_SECONDS
    while True:
        found = following(primary)
        missing = [
            item.host for item in standbys if found.get(item.host, {}).get("state") != "streaming"
        ]
        if not missing:
            return
        if time.monotonic() > give_up:
            raise TransientError(
                f"{', '.join(missing)} do not stream from the primary"
                f" after {CATCH_UP_SECONDS:.0f} s",
                operation="replication",
                host=primary.host.name,
                hint="read postgres.log of those hosts (run with --keep to have it left there)",
            )
        time.sleep(_POLL_SECONDS)


def be_synchronous(primary: Psql, standbys: Sequence[Place]) -> None:
    """From now on a commit waits for one of the standbys."""
    names = ", ".join(identifier(item.host) for item in standbys)
    primary.script(
        "postgres",
        f"ALTER SYSTEM SET synchronous_standby_names = {literal(f'ANY 1 ({names})')};\n"
        "SELECT pg_reload_conf();",
    )
    _until(
        lambda: (
            primary.value(
                "postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"
            )
            == str(len(standbys))
        )
    )


def check(
    primary: Psql, standbys: Mapping[str, Psql], rehearsal_id: str, synchronous: bool
) -> Check:
    """A row committed on the primary is read on each standby, which streams and takes no write."""
    want = "synchronously" if synchronous else "asynchronously"
    expected = f"{', '.join(standbys)} follow {want}: a committed row is read there"
    write, read, undo = write_probe(rehearsal_id)
    primary.script("postgres", write)
    try:
        rows, wrong = following(primary), list[str]()
        for name, standby in standbys.items():
            row = rows.get(name)
            if row is None or row["state"] != "streaming":
                wrong.append(f"{name} does not stream")
                continue
            if (row["sync_state"] in ("sync", "quorum")) != synchronous:
                wrong.append(f"{name} is {row['sync_state']}")
            if standby.value("postgres", "SELECT pg_is_in_recovery()") != "t":
                wrong.append(f"{name} is no standby")
            elif not _shows(standby, read, rehearsal_id):
                wrong.append(f"{name} does not show the row")
    finally:
        primary.script("postgres", undo)
    right = f"{len(standbys)} stream, each shows the row"
    return checked("replication", expected, wrong, right, finding="node-count-differs")


def failover(
    primary: Psql, standby: Psql, end: Callable[[], object], promote: Callable[[], object], id: str
) -> Check:
    """The primary dies; the standby has what was committed, is promoted, and takes writes.

    `end` kills the primary, `promote` makes the standby one; `id` is the rehearsal's.
    """
    old, new = primary.host.name, standby.host.name
    expected = f"{new} serves after the death of {old}: the last committed row is there"
    write, read, undo = write_probe(id)
    primary.script("postgres", write)
    position = primary.value("postgres", "SELECT pg_current_wal_flush_lsn()::text")
    _until(
        lambda: (
            standby.value(
                "postgres",
                f"SELECT pg_last_wal_receive_lsn() >= {literal(str(position))}::pg_lsn",
            )
            == "t"
        )
    )
    end()
    began, wrong = time.monotonic(), list[str]()
    try:
        promote()
        if standby.value("postgres", read) != id:
            wrong.append("the row is lost")
        standby.script("postgres", undo)
        if standby.value("postgres", "SELECT pg_is_in_recovery()") != "f":
            wrong.append(f"{new} is still a standby")
    except PermanentError as error:
        # Also what a standby says that never heard of the row's table.
        wrong.append(f"{new} does not take over with the row: {error.message}")
    seconds = time.monotonic() - began
    right = f"the row is there; {new} took a write {seconds:.1f} s after the end of {old}"
    return checked("failover", expected, wrong, right, finding="usable-not-restored")


def _shows(standby: Psql, read: str, wanted: str) -> bool:
    def there() -> bool:
        with suppress(PermanentError):  # until it has come, the row's table is unknown, too
            return standby.value("postgres", read) == wanted
        return False

    return _until(there)


def _until(done: Callable[[], bool]) -> bool:
    """Wait for it; whether it came true within SHOWN_SECONDS."""
    give_up = time.monotonic() + SHOWN_SECONDS
    while not done():
        if time.monotonic() > give_up:
            return False
        time.sleep(_POLL_SECONDS)
    return True
