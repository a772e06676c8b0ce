"""Standbys of a restored primary: they follow it, and one of them can take its place."""

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from blocks.engines.checks import Answer, CheckSpec, judged
from blocks.engines.postgres.plan import Place
from blocks.engines.postgres.probe import write_probe
from blocks.engines.postgres.psql import CLUSTER, Psql, identifier, literal, quote_conninfo
from blocks.errors import PermanentError, TransientError
from blocks.evidence.catalogue import FindingId
from blocks.evidence.record import CheckStatus, Node

CATCH_UP_SECONDS = 3600.0
"""Time limit for a standby that is promoted to replay what it has."""
STALLED_SECONDS = 60.0
"""A standby that neither streams nor replays anything for so long follows nobody."""
SHOWN_SECONDS = 30.0
"""Time limit for what was committed just now to reach a standby that follows."""
_POLL_SECONDS = 0.2
_PROMOTED = "promoted"
_CONNINFO = re.compile(r"(\w+)\s*=\s*(?:'([^']*)'|(\S+))")


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
        # The password comes over standard input, and statements are not logged. Nobody follows
        # yet: a commit that waited for a standby would wait for ever.
        sql = (
            "SET synchronous_commit = local; SET log_statement = 'none';"
            " SET log_min_duration_statement = -1;"
            " SET password_encryption = 'scram-sha-256';\n"
            f"CREATE ROLE {identifier(self.role)} REPLICATION LOGIN"
            f" PASSWORD {literal(self.password)};"
        )
        primary.script(CLUSTER, sql)


def following(primary: Psql) -> Mapping[str, Mapping[str, Any]]:
    """What streams from a primary: host of the standby -> its row of pg_stat_replication."""
    rows = primary.rows(
        CLUSTER,
        "SELECT application_name AS name, host(client_addr) AS address, state, sync_state,"
        " replay_lsn::text FROM pg_stat_replication",
    )
    return {row["name"]: row for row in rows}


def streaming(primary: Psql) -> set[str]:
    """The hosts of the standbys that stream from a primary."""
    return {name for name, row in following(primary).items() if row["state"] == "streaming"}


def streams(primary: Psql, host: str) -> bool:
    """Whether the standby on a host streams; both may have been started just now."""
    return _until(lambda: host in streaming(primary))


def upstreams(server: Psql) -> Iterator[tuple[str, str]]:
    """Whom a server is told to stream from, and whom it does: in words, and ADDRESS:PORT.

    The setting holds a password: it is not shown.
    """
    conninfo = server.value(CLUSTER, "SELECT current_setting('primary_conninfo')")
    if conninfo:
        said = {key: quoted or plain for key, quoted, plain in _CONNINFO.findall(conninfo)}
        address = said.get("hostaddr") or said.get("host") or "somewhere"
        yield "primary_conninfo leads to", f"{address}:{said.get('port', 5432)}"
    receiving = (
        "SELECT sender_host AS host, sender_port AS port FROM pg_stat_wal_receiver"
        " WHERE sender_host IS NOT NULL"
    )
    for row in server.rows(CLUSTER, receiving):
        yield "a walreceiver streams from", f"{row['host']}:{row['port']}"


def observed(server: Psql) -> Node | None:
    """The node that a server itself says it is; None if it does not answer."""
    with suppress(TransientError):
        (row,) = server.rows(
            CLUSTER,
            "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END AS role,"
            " current_setting('listen_addresses') AS address,"
            " current_setting('port')::int AS port",
        )
        return Node(server.host.name, row["role"], row["address"], row["port"])
    return None


def await_following(primary: Psql, standbys: Mapping[str, Psql]) -> None:
    """Until every standby, by its host, streams, or has shown that it never will.

    What keeps one from it (it is dead, promoted, or follows somebody else) is for verification.
    """
    waiting = dict.fromkeys(standbys, ("", time.monotonic()))
    while waiting:
        there = streaming(primary)
        for name, (known, since) in list(waiting.items()):
            position = _replayed(standbys[name])
            moved = position not in (known, "")
            if moved:
                waiting[name] = position, time.monotonic()
            late = not moved and time.monotonic() > since + STALLED_SECONDS
            if name in there or position == _PROMOTED or late:
                del waiting[name]
        time.sleep(_POLL_SECONDS)


def _replayed(standby: Psql) -> str:
    """How far a standby has replayed; empty if it does not answer."""
    with suppress(TransientError):
        return str(
            standby.value(
                CLUSTER,
                "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text"
                f" ELSE '{_PROMOTED}' END",
            )
        )
    return ""


def be_synchronous(primary: Psql, standbys: Sequence[Place]) -> None:
    """From now on a commit waits for one of the standbys."""
    primary.script(
        CLUSTER,
        f"ALTER SYSTEM SET synchronous_standby_names = {literal(_any_of(standbys))};\n"
        "SELECT pg_reload_conf();",
    )
    _until(
        lambda: (
            primary.value(
                CLUSTER,
                "SELECT count(*) FROM pg_stat_replication"
                " WHERE state = 'streaming' AND sync_state <> 'quorum'",
            )
            == "0"
        )
    )


def _any_of(standbys: Sequence[Place]) -> str:
    return f"ANY 1 ({', '.join(identifier(item.host) for item in standbys)})"


def waits_for(primary: Psql, standbys: Sequence[Place], synchronous: bool) -> CheckSpec:
    """A commit on the primary waits for one of the standbys that it has, or for nobody."""
    wanted = _any_of(standbys) if synchronous else ""
    return CheckSpec(
        "synchronous-standbys",
        f"a commit waits for {wanted or 'nobody'}",
        partial(_waits_for, primary, wanted),
        FindingId.PEER_LIST_STALE,
    )


def _waits_for(primary: Psql, wanted: str) -> Answer:
    found = primary.value(CLUSTER, "SELECT current_setting('synchronous_standby_names')") or ""
    return judged(
        [f"it waits for {found or 'nobody'}"] if found != wanted else [],
        f"it waits for {found or 'nobody'}",
        subjects=(primary.host.name,),
    )


def serving(server: Psql, role: str) -> CheckSpec:
    """A server answers, and is what the plan has in its place: a primary, or a standby."""
    run = partial(_serving, server, role)
    return CheckSpec("serving", f"it answers, and is a {role}", run, FindingId.NODE_COUNT_DIFFERS)


def _serving(server: Psql, role: str) -> Answer:
    name, node = server.host.name, observed(server)
    other, wrong = "", list[str]()
    if node is None:
        wrong.append(f"{name} does not answer")
    elif node.role != role:
        other, wrong = FindingId.PLACEMENT_DROPPED, [f"{name} is a {node.role}"]
    return replace(judged(wrong, f"it is a {role}", subjects=(name,)), finding=other)


def check(
    primary: Psql, standby: Psql, upstream: str, rehearsal_id: str, synchronous: bool
) -> CheckSpec:
    """A row committed on the primary is read on the standby, which streams and takes no write.

    It follows `upstream`, the primary's ADDRESS:PORT, and nobody else.
    """
    want = "synchronously" if synchronous else "asynchronously"
    return CheckSpec(
        "replication",
        f"it follows {upstream} {want}, and nobody else: a committed row is read there",
        partial(_follows, primary, standby, upstream, rehearsal_id, synchronous),
        FindingId.NODE_COUNT_DIFFERS,
    )


def _follows(
    primary: Psql, standby: Psql, upstream: str, rehearsal_id: str, synchronous: bool
) -> Answer:
    name, other, wrong = standby.host.name, "", list[str]()
    serves, row = _serving(standby, "standby"), following(primary).get(name)
    if serves.status is CheckStatus.FAILED:
        other, wrong = serves.finding, [str(serves.actual)]
    elif others := [f"{what} {where}" for what, where in upstreams(standby) if where != upstream]:
        other, wrong = FindingId.PEER_LIST_STALE, others
    elif row is None or row["state"] != "streaming":
        wrong.append(f"{name} does not stream")
    elif (row["sync_state"] in ("sync", "quorum")) != synchronous:
        wrong.append(f"{name} is {row['sync_state']}")
    else:
        write, read, undo = write_probe(rehearsal_id)
        primary.script(CLUSTER, write)
        try:
            if not _shows(standby, read, rehearsal_id):
                wrong.append(f"{name} does not show the row")
        finally:
            primary.script(CLUSTER, undo)
    want = "synchronously" if synchronous else "asynchronously"
    right = f"it follows {upstream} {want}, and shows the row"
    return replace(judged(wrong, right, subjects=(name,)), finding=other)


def failover(
    primary: Psql,
    standby: Psql,
    end: Callable[[], object],
    promote: Callable[[], object],
    rehearsal_id: str,
) -> Answer:
    """The primary dies; the standby has what was committed, is promoted, and takes writes.

    `end` kills the primary, `promote` makes the standby one.
    """
    old, new = primary.host.name, standby.host.name
    write, read, undo = write_probe(rehearsal_id)
    primary.script(CLUSTER, write)
    position = primary.value(CLUSTER, "SELECT pg_current_wal_flush_lsn()::text")
    _until(
        lambda: (
            standby.value(
                CLUSTER,
                f"SELECT pg_last_wal_receive_lsn() >= {literal(str(position))}::pg_lsn",
            )
            == "t"
        )
    )
    end()
    began, wrong = time.monotonic(), list[str]()
    try:
        promote()
        if standby.value(CLUSTER, read) != rehearsal_id:
            wrong.append(f"the row is lost on {new}")
        standby.script(CLUSTER, undo)
        if standby.value(CLUSTER, "SELECT pg_is_in_recovery()") != "f":
            wrong.append(f"{new} is still a standby")
    except PermanentError as error:
        # Also what a standby says that never heard of the row's table.
        wrong.append(f"{new} does not take over with the row: {error.message}")
    seconds = time.monotonic() - began
    right = f"the row is there; {new} took a write {seconds:.1f} s after the end of {old}"
    return judged(wrong, right)


def _shows(standby: Psql, read: str, wanted: str) -> bool:
    def there() -> bool:
        with suppress(PermanentError):  # until it has come, the row's table is unknown, too
            return standby.value(CLUSTER, read) == wanted
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
